"""Signed images: Ed25519 (RFC 8032) over the whole image file, in a file beside it.

``model.sec.sig`` holds the 64 bytes of the signature and nothing else, so that any tool for
Ed25519 makes and checks it; ``updates.md`` shows OpenSSL. The image file stays as it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.disk.storage import read, write_atomically
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image.image import LIMIT, Image

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519

SUFFIX = ".sig"
SIGNATURE_BYTES = 64
#: Bytes of a file with a key or a signature, and more.
KEY_LIMIT = 1 << 16


def signature_path(image: Path) -> Path:
    """Where the signature of an image is looked for."""
    return image.with_name(image.name + SUFFIX)


def keygen(private: Path, public: Path) -> None:
    """Write a new pair of keys as PEM; the private one for its owner only, never over another.

    Raises
    ------
    SecateurError : both are one file, ``private`` exists, a file cannot be written, or
        cryptography is missing
    """
    if os.path.realpath(private) == os.path.realpath(public):
        raise SecateurError(f"{private}: cannot hold both keys; give two files")
    serialization, kinds, _ = _cryptography()
    key = kinds.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    open_half = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SecateurError(f"{private}: cannot be made: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o600)  # whatever the umask has taken
            file.write(secret)
            file.flush()
            os.fsync(handle)
        write_atomically(public, open_half)
    except OSError as error:
        private.unlink()
        raise SecateurError(f"{private}: cannot be written: {error.strerror}") from None
    except BaseException:
        private.unlink()
        raise


def sign(image: Path, key: Path, output: Path | None = None) -> Path:
    """Check an image file and sign it.

    Parameters
    ----------
    image : the image file
    key : private key, PEM
    output : where to write the signature; by default where ``verify`` looks for it

    Returns
    -------
    path : file of the signature

    Raises
    ------
    SecateurError : the image is missing or damaged, the key is not a private Ed25519 key, the
        signature cannot be written, or cryptography is missing
    """
    data = read(image, LIMIT, "an image")
    images.parse(data, str(image))
    path = signature_path(image) if output is None else output
    write_atomically(path, signature(data, key))
    return path


def signature(data: bytes, key: Path) -> bytes:
    """The 64 bytes of the signature of ``data``.

    Raises
    ------
    SecateurError : ``key`` is not a private Ed25519 key, or cryptography is missing
    """
    return _private_key(key).sign(data)


def verify(image: Path | str, key: Path | str) -> bytes:
    """The bytes of an image file, if their signature is one by this key.

    Parameters
    ----------
    image : the image file
    key : public key, PEM

    Raises
    ------
    SecateurError : the image is unsigned, was altered, or was signed by another key; the key
        cannot be read or is of another kind; cryptography is missing
    """
    image = Path(image)
    data = read(image, LIMIT, "an image")
    check(data, str(image), key, signature_path(image))
    return data


def load(image: Path | str, key: Path | str | None = None) -> Image:
    """Read an image; with a key, one whose signature is good: the very bytes that were verified.

    Raises
    ------
    SecateurError : as ``verify``, or the image is damaged
    """
    if key is None:
        return images.load(image)
    return images.parse(verify(image, key), str(image))


def check(data: bytes, name: str, key: Path | str, signature: Path) -> None:
    """Check the signature of an image that need not be a file yet.

    Parameters
    ----------
    data : contents of the image file
    name : of the image, for messages
    key : public key, PEM
    signature : file of the signature

    Raises
    ------
    SecateurError : as ``verify``
    """
    _, _, invalid = _cryptography()
    public = _public_key(Path(key))
    if not os.path.lexists(signature):
        raise SecateurError(
            f"{name}: unsigned (no {signature}); sign it with secateur sign, or omit the key"
        )
    found = read(signature, KEY_LIMIT, "a signature")
    if len(found) != SIGNATURE_BYTES:
        raise SecateurError(
            f"{signature}: {len(found)} bytes, an Ed25519 signature has {SIGNATURE_BYTES}"
        )
    try:
        public.verify(found, data)
    except invalid:
        raise SecateurError(
            f"{name}: the signature does not match: the image was altered, or signed by a key "
            f"other than {key}"
        ) from None


def _public_key(path: Path) -> ed25519.Ed25519PublicKey:
    serialization, kinds, _ = _cryptography()
    text = read(path, KEY_LIMIT, "a key")
    if b"PRIVATE KEY" in text:
        raise SecateurError(f"{path}: a private key; give the public one that belongs to it")
    key = _parsed(path, serialization.load_pem_public_key, text)
    if not isinstance(key, kinds.Ed25519PublicKey):
        raise SecateurError(f"{path}: not an Ed25519 key ({type(key).__name__.strip('_')})")
    found: ed25519.Ed25519PublicKey = key
    raw = found.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if _has_small_order(raw):
        raise SecateurError(
            f"{path}: a key of small order, for which anybody can sign; make one with "
            f"secateur keygen"
        )
    return found


def _has_small_order(key: bytes) -> bool:
    """Whether eight times a public key is the neutral point (RFC 8032, sections 5.1 and 8.9).

    Of the curve -x^2 + y^2 = 1 + d x^2 y^2 only y is needed: x^2 follows from it.
    """
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p)
    y = (int.from_bytes(key, "little") & (1 << 255) - 1) % p
    for _ in range(3):  # doublings
        yy = y * y % p
        xx = (yy - 1) * pow(d * yy + 1, -1, p) % p
        y = (yy + xx) * pow(1 - d * xx * yy, -1, p) % p
    return y == 1


def _private_key(path: Path) -> ed25519.Ed25519PrivateKey:
    serialization, kinds, _ = _cryptography()
    text = read(path, KEY_LIMIT, "a key")
    if b"PUBLIC KEY" in text:
        raise SecateurError(f"{path}: a public key; signing takes the private one")
    if b"ENCRYPTED" in text:
        raise SecateurError(f"{path}: the key is encrypted; give it in plain PEM")
    key = _parsed(path, serialization.load_pem_private_key, text, None)
    if not isinstance(key, kinds.Ed25519PrivateKey):
        raise SecateurError(f"{path}: not an Ed25519 key ({type(key).__name__.strip('_')})")
    found: ed25519.Ed25519PrivateKey = key
    return found


def _parsed(path: Path, parse: Any, *arguments: Any) -> Any:
    """A key; an exception of cryptography becomes a SecateurError."""
    from cryptography.exceptions import InternalError, UnsupportedAlgorithm

    try:
        return parse(*arguments)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        raise SecateurError(f"{path}: not an Ed25519 key in PEM") from None


def _cryptography() -> tuple[Any, Any, type[Exception]]:
    """Modules serialization and ed25519, and the exception for a wrong signature."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SecateurError(
            "signatures need the package cryptography; pip install 'secateur[sign]'"
        ) from None
    return serialization, ed25519, InvalidSignature
