"""Data files that bring code with them, or claim to be large: neither gets anywhere."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateur.cli.common import arrays
from secateur.disk.limits import Limits
from secateur.disk.npz import load_npz
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image import signing
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.recipe import load_recipe
from secateur.report.energy import load_energies
from secateur.target import Target
from tests.sw.image.image_files import METADATA, image_file, random_words

#: A file that nobody makes but a payload.
MARK = "payload-was-run"


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return open, (MARK, "w")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_payload_works(folder: Path) -> None:
    """Else the tests below could not fail."""
    np.savez("x.npz", x=np.array([Payload()]))
    with np.load("x.npz", allow_pickle=True) as file:
        file["x"][0].close()
    assert Path(MARK).exists()


def npz_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([[Payload()]]))
    return buffer.getvalue()


def npz_of(member: bytes, **claims: int) -> bytes:
    """An archive with one array x; ``claims`` are sizes that its directory gives instead."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
        info = archive.getinfo("x.npy")
        for name, value in claims.items():
            setattr(info, name, value)
    return buffer.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def array_header(shape: str, kind: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}")


CODE = f"open('{MARK}', 'w')"
READERS = {
    "npz": lambda path: arrays(path),
    "weights": read_weights,
    "image": images.load,
    "recipe": load_recipe,
    "target": lambda path: Target.load(str(path)),
    "energies": load_energies,
    "checkpoint": checkpoint.read,
    "key": lambda path: signing.signature(b"", path),
}
PAYLOADS = {
    "a pickle": pickle.dumps(Payload()),
    "an array of objects": npz_of_objects(),
    "a member that is a pickle": npz_of(pickle.dumps(Payload())),
    "a header that is code": npz_of(array_header(f"({CODE},)") + bytes(4)),
    "a type that is code": npz_of(array_header("(1, 1)", CODE) + bytes(4)),
    "code": CODE.encode(),
    "JSON": json.dumps(
        {"__reduce__": CODE, "tensors": CODE, "sha256": CODE, "data": CODE}
    ).encode(),
    "TOML": f'n = "{CODE}"\n[model]\nbuild = "{CODE}"\n'.encode(),
    "safetensors": struct.pack("<Q", 2 * len(CODE)) + (CODE * 2).encode(),
    "metadata": image_file(random_words(40, 2, 0), CODE.encode()),
    "metadata that are a pickle": image_file(random_words(40, 2, 0), pickle.dumps(Payload())),
}


@pytest.mark.parametrize("reader", READERS)
def test_payloads_do_not_run(reader: str, folder: Path) -> None:
    for name, content in PAYLOADS.items():
        (folder / "file").write_bytes(content)
        with pytest.raises(SecateurError):
            READERS[reader](folder / "file")
        assert not Path(MARK).exists(), name
    torch.save([Payload()], folder / "file")
    with pytest.raises(SecateurError):
        READERS[reader](folder / "file")
    assert not Path(MARK).exists()


def test_arrays_of_objects_are_refused_by_their_header(folder: Path) -> None:
    (folder / "x.npz").write_bytes(npz_of_objects())
    with pytest.raises(SecateurError, match=r"x\.npz: x: an array of Python objects"):
        load_npz(folder / "x.npz")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npz_of(array_header(f"({1 << 40},)") + bytes(8)), "claims 4,398,046,511,104 bytes, .* 8;"),
        (npz_of(array_header("(2, -2, -2)") + bytes(32)), "not an .npz file of arrays, or damaged"),
        (npz_of(array_header("()", "'V0'")), "not an .npz file"),
        (npz_of(array_header("(1,)"), file_size=1 << 42), "4,398,046,511,104 bytes, at most 1,024"),
        # more in the directory than in the file, and less
        (npz_of(array_header("(9,)") + bytes(8), file_size=len(array_header("(9,)")) + 36), "dam"),
        (npz_of(array_header("(1,)") + bytes(8), file_size=len(array_header("(1,)")) + 4), "dam"),
        (npz_of(b"\x93NUMPY\x09\x00" + bytes(60)), "not an .npz file"),
        (npz_of(header("[" * 9000)), "not an .npz file"),
        (npz_of(array_header("(1,)") + bytes(4), flag_bits=1), "not an .npz file"),  # encrypted
        (npz_of(array_header("(1,)") + bytes(4), compress_type=99), "not an .npz file"),
    ],
)
def test_claims_are_checked(content: bytes, says: str, folder: Path) -> None:
    (folder / "x.npz").write_bytes(content)
    with pytest.raises(SecateurError, match=rf"x\.npz: .*{says}"):
        load_npz(folder / "x.npz", ["x"])


def test_a_bomb_is_refused_before_it_is_unpacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.zeros((1 << 19, 4), np.uint8)  # 2 MB
    np.savez_compressed("x.npz", x=x, y=x[:1])
    assert (folder / "x.npz").stat().st_size < 10_000
    assert np.array_equal(arrays(folder / "x.npz", limits=Limits(megabytes=3)), x)

    def opened(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(zipfile.ZipFile, "open", opened)
    with pytest.raises(SecateurError, match=r"x\.npz: 2,097,280 bytes, at most 1 MB"):
        arrays(folder / "x.npz", limits=Limits(megabytes=1))
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    small = load_npz(folder / "x.npz", ["y"], Limits(megabytes=1))["y"]  # only what is wanted
    assert np.array_equal(small, x[:1])


def test_all_kinds_of_arrays_come_back(folder: Path) -> None:
    rng = np.random.default_rng(0)
    arrays_ = {
        "floats": rng.normal(size=(3, 4, 5)).astype(np.float32),
        "fortran": np.asfortranarray(rng.integers(-128, 127, (4, 5)).astype(np.int8)),
        "big endian": np.arange(6).astype(">i4"),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "text": np.array(["a", "bc"]),
    }
    np.savez("x.npz", **arrays_)
    found = load_npz(folder / "x.npz")
    assert set(found) == set(arrays_)
    for name, value in arrays_.items():
        assert np.array_equal(found[name], value), name
        assert found[name].dtype == value.dtype
        assert found[name].flags.writeable
    for limit in (None, 1):
        with pytest.raises(SecateurError, match=r"'scalar' has shape \(\)"):
            arrays(folder / "x.npz", "scalar", limit)


@pytest.mark.parametrize("reader", READERS)
def test_files_of_gigabytes_are_not_read(reader: str, folder: Path) -> None:
    (folder / "file").write_bytes(image_file(random_words(40, 2, 0), METADATA))
    os.truncate(folder / "file", 1 << 36)
    with pytest.raises(
        SecateurError, match=r"file: (more than [0-9,]+ bytes, too large for|not an)"
    ):
        READERS[reader](folder / "file")
