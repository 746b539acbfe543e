"""Signatures: RFC 8032's vectors, OpenSSL beside us, and one line for everything that is wrong."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from secateur import api
from secateur.errors import SecateurError
from secateur.image import delta, signing
from tests.sw.image.image_files import METADATA, image_file, random_words

IMAGE = image_file(random_words(40, 4, 0), METADATA)
PEM = serialization.Encoding.PEM
# RFC 8032, 7.1: secret key, public key, message, signature of TEST 1 to TEST 3
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
        "b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f1"
        "1d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984d"
        "c6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed image, its keys, and keys of other kinds."""
    (tmp_path / "m.sec").write_bytes(IMAGE)
    signing.keygen(tmp_path / "private.pem", tmp_path / "public.pem")
    signing.keygen(tmp_path / "private2.pem", tmp_path / "public2.pem")
    assert signing.sign(tmp_path / "m.sec", tmp_path / "private.pem") == tmp_path / "m.sec.sig"
    for name, other in (
        ("curve", ec.generate_private_key(ec.SECP256R1())),
        ("ed448", ed448.Ed448PrivateKey.generate()),
    ):
        write_private(tmp_path / f"{name}.pem", other)
        write_public(tmp_path / f"{name}-public.pem", other.public_key())
    return tmp_path


def write_private(path: Path, key, password: bytes | None = None) -> None:  # type: ignore[no-untyped-def]
    lock = serialization.NoEncryption()
    if password is not None:
        lock = serialization.BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock))


def write_public(path: Path, key) -> None:  # type: ignore[no-untyped-def]
    path.write_bytes(key.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_vectors_of_the_rfc(
    secret: str, public: str, message: str, signature: str, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("private.pem", "public.pem", "m.sig")]
    write_private(files[0], ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    write_public(files[1], ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    files[2].write_bytes(bytes.fromhex(signature))
    data = bytes.fromhex(message)
    signing.check(data, "m", files[1], files[2])
    assert signing.signature(data, files[0]) == bytes.fromhex(signature)
    with pytest.raises(SecateurError, match="does not match"):
        signing.check(data + b"\0", "m", files[1], files[2])


#: y of the points of small order, lowest byte first: orders 1, 2, 4, 8, 8; then 0 and 1, plus p.
SMALL = [
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 32,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("encoded", SMALL)
def test_keys_for_which_anybody_can_sign_are_refused(
    encoded: str, sign: int, tmp_path: Path
) -> None:
    raw = bytearray.fromhex(encoded)
    raw[31] |= sign
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes(raw))
    write_public(tmp_path / "small.pem", public)
    forged = bytes.fromhex(SMALL[0]) + bytes(32)  # R is the neutral point, S is 0
    (tmp_path / "m.sig").write_bytes(forged)
    with pytest.raises(SecateurError, match=r"small\.pem: a key of small order, .*keygen"):
        signing.check(b"anything", "m", tmp_path / "small.pem", tmp_path / "m.sig")


def test_the_forged_signature_is_one() -> None:
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(SMALL[0]))
    for message in (b"anything", b"something else"):
        public.verify(bytes.fromhex(SMALL[0]) + bytes(32), message)


def test_a_signed_image_loads(folder: Path) -> None:
    loaded = signing.load(folder / "m.sec", folder / "public.pem")
    assert loaded.stream == IMAGE[: len(loaded.stream)]
    assert signing.verify(folder / "m.sec", folder / "public.pem") == IMAGE
    assert (folder / "private.pem").stat().st_mode & 0o777 == 0o600
    assert (folder / "m.sec.sig").stat().st_size == 64


def test_every_altered_byte_is_found(folder: Path) -> None:
    # the signature covers header, words, metadata and the CRC-32 behind it
    for at in [*range(0, len(IMAGE), 7), len(IMAGE) - 1]:
        data = IMAGE[:at] + bytes([IMAGE[at] ^ 1]) + IMAGE[at + 1 :]
        (folder / "m.sec").write_bytes(data)
        with pytest.raises(SecateurError, match="altered"):
            signing.verify(folder / "m.sec", folder / "public.pem")
    for data in (IMAGE + b"\n", IMAGE[:-1], b""):
        (folder / "m.sec").write_bytes(data)
        with pytest.raises(SecateurError, match="altered"):
            signing.verify(folder / "m.sec", folder / "public.pem")
    (folder / "m.sec").write_bytes(IMAGE)
    good = (folder / "m.sec.sig").read_bytes()
    for bit in range(512):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (folder / "m.sec.sig").write_bytes(bad)
        with pytest.raises(SecateurError, match="does not match"):
            signing.verify(folder / "m.sec", folder / "public.pem")


@pytest.mark.parametrize(
    ("image", "key", "says"),
    [
        ("unsigned.sec", "public.pem", "unsigned.sec: unsigned (no "),
        ("m.sec", "public2.pem", "a key other than"),
        ("short.sec", "public.pem", "short.sec.sig: 63 bytes"),
        ("none.sec", "public.pem", "none.sec: cannot be read"),
        ("m.sec", "none.pem", "none.pem: cannot be read"),
        ("m.sec", "private.pem", "private.pem: a private key; give the public one"),
        ("m.sec", "curve-public.pem", "curve-public.pem: not an Ed25519 key"),
        ("m.sec", "ed448-public.pem", "ed448-public.pem: not an Ed25519 key"),
        ("m.sec", "m.sec", "m.sec: not an Ed25519 key in PEM"),
        ("m.sec", "torn.pem", "torn.pem: not an Ed25519 key in PEM"),
    ],
)
def test_what_verify_refuses(image: str, key: str, says: str, folder: Path) -> None:
    (folder / "unsigned.sec").write_bytes(IMAGE)
    (folder / "short.sec").write_bytes(IMAGE)
    (folder / "short.sec.sig").write_bytes(bytes(63))
    (folder / "torn.pem").write_bytes((folder / "public.pem").read_bytes()[:60])
    with pytest.raises(SecateurError) as caught:
        signing.verify(folder / image, folder / key)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "key", "says"),
    [
        ("cut.sec", "private.pem", "cut.sec: CRC-32"),
        ("m.sec", "public.pem", "a public key; signing takes the private one"),
        ("m.sec", "curve.pem", "not an Ed25519 key"),
        ("m.sec", "ed448.pem", "not an Ed25519 key"),
        ("m.sec", "locked.pem", "the key is encrypted"),
        ("m.sec", "m.sec", "not an Ed25519 key in PEM"),
    ],
)
def test_what_sign_refuses(image: str, key: str, says: str, folder: Path) -> None:
    (folder / "cut.sec").write_bytes(IMAGE[:-1])
    write_private(folder / "locked.pem", ed25519.Ed25519PrivateKey.generate(), b"word")
    before = set(folder.iterdir())
    with pytest.raises(SecateurError) as caught:
        signing.sign(folder / image, folder / key)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set(folder.iterdir()) == before


def test_a_private_key_is_never_overwritten(folder: Path) -> None:
    before = (folder / "private.pem").read_bytes()
    with pytest.raises(SecateurError, match="File exists"):
        signing.keygen(folder / "private.pem", folder / "other.pem")
    assert (folder / "private.pem").read_bytes() == before
    assert not (folder / "other.pem").exists()


def test_a_private_key_is_its_owners_from_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask gives or takes, and whatever happens later."""
    modes, original = list[int](), os.fdopen

    def opened(handle: int, how: str) -> object:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return original(handle, how)

    monkeypatch.setattr(os, "fdopen", opened)
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            signing.keygen(tmp_path / f"{mask}.pem", tmp_path / "public.pem")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mask}.pem").stat().st_mode) == 0o600
    assert modes[0] == 0o600
    assert modes[2] == 0  # of the second private key
    assert (tmp_path / "0.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("at", [0, 1])
def test_a_full_disk_leaves_no_key(at: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while the private key is written, nor while the public one is."""
    calls = iter(range(9))
    before = set(folder.iterdir())

    def full(_: int) -> None:
        if next(calls) == at:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SecateurError, match=r"cannot be written: No space left on device$"):
        signing.keygen(folder / "new.pem", folder / "new-public.pem")
    assert set(folder.iterdir()) == before


def test_both_keys_or_none(folder: Path) -> None:
    before = set(folder.iterdir())
    with pytest.raises(SecateurError, match=r"none/p\.pem: cannot be written"):
        signing.keygen(folder / "new.pem", folder / "none" / "p.pem")
    with pytest.raises(SecateurError, match=r"new\.pem: cannot hold both keys; give two files"):
        signing.keygen(folder / "new.pem", folder / "none" / ".." / "new.pem")
    assert set(folder.iterdir()) == before


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")
def test_openssl_agrees(folder: Path) -> None:
    def openssl(line: str) -> int:
        command = ["openssl", *line.split()]
        return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode

    verify = "pkeyutl -verify -pubin -rawin -inkey public.pem -in m.sec -sigfile m.sec.sig"
    assert openssl(verify) == 0
    (folder / "m.sec").write_bytes(IMAGE + b"\n")
    assert openssl(verify) != 0
    (folder / "m.sec").write_bytes(IMAGE)
    # and the other way: keys and a signature by OpenSSL
    assert openssl("genpkey -algorithm ed25519 -out o.pem") == 0
    assert openssl("pkey -in o.pem -pubout -out o-public.pem") == 0
    assert openssl("pkeyutl -sign -rawin -inkey o.pem -in m.sec -out m.sec.sig") == 0
    assert signing.verify(folder / "m.sec", folder / "o-public.pem") == IMAGE
    with pytest.raises(SecateurError, match="other than"):
        signing.verify(folder / "m.sec", folder / "public.pem")


def test_a_missing_package_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(SecateurError, match=r"pip install 'secateur\[sign\]'"):
        signing.verify(folder / "m.sec", folder / "public.pem")
    with pytest.raises(SecateurError, match="the program is refused"):  # read, all the same
        api.load(folder / "m.sec")


def test_a_patch_with_a_key_writes_signed_images_only(folder: Path) -> None:
    new, patch = (
        image_file(random_words(41, 4, 0), METADATA | {"cycles_dense": 2000}),
        folder / "p.secd",
    )
    (folder / "new.sec").write_bytes(new)
    delta.make_file(folder / "m.sec", folder / "new.sec", patch)
    out, key = folder / "out.sec", folder / "public.pem"
    with pytest.raises(SecateurError, match=r"out.sec: unsigned"):
        delta.apply_file(folder / "m.sec", patch, out, key)
    with pytest.raises(SecateurError, match="does not match"):
        delta.apply_file(folder / "m.sec", patch, out, key, folder / "m.sec.sig")
    assert not out.exists()
    signed = signing.sign(folder / "new.sec", folder / "private.pem")
    delta.apply_file(folder / "m.sec", patch, out, key, signed)
    assert out.read_bytes() == new
