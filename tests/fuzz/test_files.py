"""Files that a bad disk, a bad line or a bad person has had: refused in one line, or right."""

from __future__ import annotations

import functools
import io
import json
import lzma
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from secateur import api
from secateur.cli.common import arrays
from secateur.cli.estimates import show_energy
from secateur.cli.model import show_inspection
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.image import delta, signing
from secateur.image import image as images
from secateur.image.decode import decode
from secateur.pruning.explore.study import load_study
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.recipe import load_recipe
from secateur.report import compare
from secateur.report.energy import estimate, load_energies
from secateur.report.summary import summary
from secateur.target import Target
from tests.fuzz.damage import damaged
from tests.fuzz.json_damage import mutated
from tests.sw.image.image_files import parts, resealed, trailed

SEEDS, MANY = range(40), range(1000, 1240)
DATA = Path(__file__).parents[1] / "data"
TOML = "n = 2\np = 1\nweight_words = 512\nbank_words = 128\ntables = 0\n"
ENERGIES = (
    "mac = 1\nweight_byte = 2.5\nbank_read_byte = 3\nbank_write_byte = 4\nrequantise = 5\n"
    'cycle = 6\nsource = "by hand"\n'
)
#: Values that a line of TOML may get.
ODD = (
    "-1", "0", "1", "2.5", "nan", "inf", "1e400", "9" * 5000, "true", '""', '"\\u0000"', '"[/]"',
    "[]", "{}", "[[1]]", "1979-05-27", '"' + "n" * 10_000 + '"', "0x10", "[" * 3000,
)  # fmt: skip
Way = Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, its sound content, what reads it, and ways to damage it."""

    name: str
    content: bytes
    uses: tuple[Callable[[Path], object], ...]
    ways: tuple[Way, ...] = (damaged,)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.rnn(x)[0])  # type: ignore[no-any-return]


@functools.cache
def image_of(name: str) -> tuple[bytes, np.ndarray]:
    """A small image and an input of it."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2)
    )
    x = torch.randn(3, 1, 6, 6)
    if name == "recurrent":
        model, x = Recurrent(), torch.randn(3, 4, 3)
    geometry = api.Geometry(n=2, p=1, weight_words=512, bank_words=128, tables=0)
    target = Target(name="t", geometry=geometry)
    image = api.compile(model.eval(), target=target, calibration=x)
    text = json.dumps(image.metadata).encode()
    return image.stream + trailed(text), x[:1].numpy()


def new_stream(data: bytes, seed: int) -> bytes:
    """The words damaged, under a right CRC-32."""
    stream, metadata = parts(data)
    changed = resealed(stream[:24] + damaged(stream[24:], seed))
    return changed + trailed(json.dumps(metadata).encode())


def new_header(data: bytes, seed: int) -> bytes:
    stream, metadata = parts(data)
    changed = bytearray(stream)
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 2))):
        changed[rng.randrange(4, 20)] = rng.choice((0, 1, 2, 4, 8, 127, 128, 255))
    blank = bytes(changed[:20] + bytes(4) + changed[24:])
    sealed = blank[:20] + struct.pack("<I", zlib.crc32(blank)) + blank[24:]
    return sealed + trailed(json.dumps(metadata).encode())


def new_metadata(data: bytes, seed: int) -> bytes:
    stream, metadata = parts(data)
    return stream + trailed(json.dumps(mutated(metadata, seed)).encode())


def new_metadata_text(data: bytes, seed: int) -> bytes:
    stream, metadata = parts(data)
    return stream + trailed(damaged(json.dumps(metadata).encode(), seed))


def image_kind(name: str) -> Kind:
    data, x = image_of(name)
    found = compare.Estimate("ethos-u55-32", 32, 10, 20, 30, 0)

    def run(path: Path) -> None:
        outputs = api.run(api.load(path), x)
        assert np.isfinite(outputs.values).all()

    def beside(image: images.Image) -> None:
        if image.metadata:  # compare refuses others
            compare.beside(image, [found])

    uses: tuple[Callable[[Path], object], ...] = (
        lambda path: show_inspection(summary(images.load(path))),
        lambda path: show_energy(estimate(images.load(path))),
        lambda path: beside(images.load(path)),
        lambda path: decode(images.load(path)),
        run,
    )
    ways = (damaged, new_stream, new_header, new_metadata, new_metadata, new_metadata_text)
    return Kind("m.sec", data, uses, ways)


def patch_kind() -> Kind:
    old = image_of("plain")[0]
    stream, metadata = parts(old)
    new = resealed(stream[:60] + b"\1\2\3" + stream[60:]) + trailed(json.dumps(metadata).encode())
    patch = delta.make(old, new)

    def use(path: Path) -> None:
        assert delta.apply(old, path.read_bytes()[: delta.LIMIT]) == new

    def sealed(data: bytes, seed: int) -> bytes:
        changed = damaged(data[:-4], seed)
        return changed + struct.pack("<I", zlib.crc32(changed))

    def new_body(data: bytes, seed: int) -> bytes:
        size = delta.HEADER.size
        body = lzma.decompress(data[size:-4], lzma.FORMAT_RAW, None, delta._FILTERS)
        changed = damaged(body, seed)
        head = data[:16] + struct.pack("<I", len(changed)) + data[20:size]
        packed = head + delta.compress(changed)
        return packed + struct.pack("<I", zlib.crc32(packed))

    return Kind("p.secd", patch, (use,), (damaged, sealed, new_body))


def npz_kind(compressed: bool) -> Kind:
    buffer, x = io.BytesIO(), np.arange(60, dtype=np.float32).reshape(5, 12)
    (np.savez_compressed if compressed else np.savez)(buffer, x=x, y=x[0])

    def inside(data: bytes, seed: int) -> bytes:
        """An array's file damaged, under a right CRC-32."""
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            files = {name: old.read(name) for name in old.namelist()}
        # twice in three times the header
        whole = files["x.npy"]
        head, rest = (whole[:128], whole[128:]) if seed % 3 else (whole, b"")
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as new:
            for name, content in (files | {"x.npy": damaged(head, seed) + rest}).items():
                new.writestr(name, content)
        return out.getvalue()

    def use(path: Path) -> None:
        assert arrays(path, limit=2).ndim >= 2

    return Kind("x.npz", buffer.getvalue(), (use,), (damaged, inside))


def safetensors_kind() -> Kind:
    content = save({"a": torch.randn(3, 4), "b": torch.arange(7), "c": torch.zeros(0, 2)})

    def new_head(data: bytes, seed: int) -> bytes:
        (size,) = struct.unpack_from("<Q", data)
        head = json.dumps(mutated(json.loads(data[8 : 8 + size]), seed)).encode()
        return struct.pack("<Q", len(head)) + head + data[8 + size :]

    return Kind("w.safetensors", content, (read_weights,), (damaged, new_head, new_head))


def checkpoint_kind(folder: Path, part: str) -> Kind:
    """The JSON file, or that of the tensors beside it."""
    tensors = {"a": torch.randn(3, 4)}
    data = {"recipe": "0" * 64, "stage": 3, "results": {"float": {"loss": 0.25}}, "trainer": {}}
    checkpoint.write(folder / "running.json", tensors, data)
    (file,) = folder.glob("*.safetensors") if part == "tensors" else [folder / "running.json"]

    def use(path: Path) -> None:
        found, read = checkpoint.read(folder / "running.json")
        assert torch.equal(found["a"], tensors["a"])
        assert read == data

    return Kind(file.name, file.read_bytes(), (use,))


def odd_value(data: bytes, seed: int) -> bytes:
    """A line of TOML with another value."""
    rng, lines = random.Random(seed), data.decode().splitlines()
    at = rng.choice([index for index, line in enumerate(lines) if "=" in line])
    lines[at] = f"{lines[at].split('=')[0]}= {rng.choice(ODD)}"
    return "\n".join(lines).encode()


def toml_kind(name: str, text: str, use: Callable[[Path], object]) -> Kind:
    return Kind(f"{name}.toml", text.encode(), (use,), (damaged, odd_value))


def study_kind(folder: Path) -> Kind:
    (folder / "tiny.toml").write_text((DATA / "tiny.toml").read_text())
    return toml_kind("s", (DATA / "tiny-study.toml").read_text(), load_study)


def key_kind(folder: Path, name: str) -> Kind:
    """A key or a signature of an image, which verify uses."""
    image = folder / "i.sec"
    image.write_bytes(image_of("plain")[0])
    signing.keygen(folder / "private.pem", folder / "public.pem")
    signing.sign(image, folder / "private.pem")
    uses: tuple[Callable[[Path], object], ...] = (
        lambda path: signing.verify(image, folder / "public.pem"),
        lambda path: signing.signature(b"data", folder / "private.pem"),
    )
    return Kind(name, (folder / name).read_bytes(), uses)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "image": lambda _: image_kind("plain"),
    "recurrent image": lambda _: image_kind("recurrent"),
    "patch": lambda _: patch_kind(),
    "npz": lambda _: npz_kind(False),
    "compressed npz": lambda _: npz_kind(True),
    "public key": lambda folder: key_kind(folder, "public.pem"),
    "private key": lambda folder: key_kind(folder, "private.pem"),
    "signature": lambda folder: key_kind(folder, "i.sec.sig"),
    "safetensors": lambda _: safetensors_kind(),
    "recipe": lambda _: toml_kind("r", (DATA / "tiny.toml").read_text(), load_recipe),
    "study": study_kind,
    "target": lambda _: toml_kind("t", TOML, lambda path: Target.load(str(path))),
    "energies": lambda _: toml_kind("e", ENERGIES, load_energies),
    "checkpoint": lambda folder: checkpoint_kind(folder, "data"),
    "tensors of a checkpoint": lambda folder: checkpoint_kind(folder, "tensors"),
}


def check(name: str, folder: Path, seeds: range) -> None:
    kind, refused = KINDS[name](folder), 0
    file = folder / kind.name
    file.write_bytes(kind.content)
    for use in kind.uses:
        use(file)
    for seed in seeds:
        file.write_bytes(kind.ways[seed % len(kind.ways)](kind.content, seed))
        for use in kind.uses:
            try:
                use(file)
            except SecateurError as error:
                text = str(error)
                assert text.isprintable(), (name, seed)
                assert len(text) < 5000, (name, seed)
                refused += 1
            except BaseException as error:
                error.add_note(f"{name}, seed {seed}")
                raise
    assert refused > len(seeds) // 4


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, SEEDS)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, MANY)


#: A kind, and a command that reads such a file; what else it reads is sound.
LINES = [
    ("image", "run m.sec --input in.npz -o new.npz --json"),
    ("image", "inspect m.sec"),
    ("recurrent image", "energy m.sec --json"),
    ("npz", "run i.sec --input x.npz -o new.npz"),
    ("compressed npz", "device run i.sec --input x.npz --port none"),
    ("patch", "patch i.sec p.secd -o new.sec"),
    ("public key", "verify i.sec --key public.pem --json"),
    ("private key", "sign i.sec --key private.pem"),
    ("signature", "run i.sec --input in.npz --key public.pem"),
    ("target", "compile none.pt2 --target t.toml -o new.sec"),
    ("energies", "energy i.sec --table e.toml"),
    ("recipe", "prune r.toml -o in.npz"),
    ("study", "study s.toml -o in.npz"),
    ("checkpoint", f"prune {DATA / 'tiny.toml'} --resume -o ."),
    ("tensors of a checkpoint", f"prune {DATA / 'tiny.toml'} --resume -o ."),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data, x = image_of("plain")
    (tmp_path / "i.sec").write_bytes(data)
    np.savez(tmp_path / "in.npz", x=x)
    return tmp_path


@pytest.mark.parametrize(("name", "line"), LINES)
def test_commands_on_damaged_files(
    name: str, line: str, folder: Path, secateur: Callable[[str], tuple[int, str, str]]
) -> None:
    """A result, or one line on stderr and no new file."""
    kind = KINDS[name](folder)
    for seed in range(4):
        (folder / kind.name).write_bytes(kind.ways[seed % len(kind.ways)](kind.content, seed))
        before = {path: path.read_bytes() for path in folder.rglob("*")}
        status, out, err = secateur(line)
        assert "Traceback" not in err
        if status == 0:
            continue
        assert (status, out) == (1, ""), (seed, err)
        assert err.startswith("secateur: ")
        assert err[:-1].isprintable(), seed
        assert err[-1] == "\n"
        assert {path: path.read_bytes() for path in folder.rglob("*")} == before, seed
