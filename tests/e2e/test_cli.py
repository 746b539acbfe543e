"""The command line as a user meets it: results, messages, exit statuses, files."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur import __version__
from tests.support.commands import listed
from tests.sw.image.image_files import altered


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3, padding=1)
        self.depthwise = nn.Conv2d(10, 10, 3, stride=2, padding=1, groups=10)
        self.linear = nn.Linear(10, 5)
        for weight in self.parameters():  # none so small that its code is zero
            weight.data += 0.1 * weight.data.sign()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.depthwise(torch.relu(self.conv(x))))
        return self.linear(y.mean((2, 3)))  # type: ignore[no-any-return]


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 2, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x)  # type: ignore[no-any-return]


RECIPE = Path(__file__).parents[1] / "data" / "tiny.toml"
TOML = "n = 4\np = 3\nweight_words = 1024\nbank_words = 512\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a dynamic and one with a fixed batch, inputs, a target."""
    where = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    model = Small().eval()
    x = torch.randn(16, 3, 9, 11)
    batch = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=batch), where / "m.pt2")
    torch.export.save(torch.export.export(model, (x[:1],)), where / "fixed.pt2")
    other = torch.export.export(Unsupported().eval(), (x,))
    torch.export.save(other, where / "unsupported.pt2")
    np.savez(where / "x.npz", x=x.numpy())
    np.savez(where / "shape.npz", x=x.numpy()[:, :, 1:])
    np.savez(where / "key.npz", y=x.numpy())
    (where / "t.toml").write_text(TOML)
    (where / "broken.toml").write_text("n = 4\n")
    (where / "float.toml").write_text(TOML.replace("p = 3", "p = 3.0"))
    (where / "family.toml").write_text(TOML + 'family = "lattice"\n')
    ice40 = TOML.replace("p = 3", "p = 2").replace("n = 4", "n = 8") + 'family = "ice40"\n'
    (where / "wide.toml").write_text(ice40)
    deep = "n = 2\np = 1\nweight_words = 64\nbank_words = 32768\n"
    (where / "deep.toml").write_text(deep)
    (where / "deep_ecp5.toml").write_text(deep + 'family = "ecp5"\n')
    (where / "modes.toml").write_text(TOML + "extended = 1\n")
    pooled = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.MaxPool2d(2)).eval()
    torch.export.save(torch.export.export(pooled, (x,)), where / "max.pt2")
    large = TOML.replace("n = 4", "n = 16") + 'device = "LFE5U-25F"\nhard = 29\n'
    (where / "large.toml").write_text(large)
    (where / "text.sec").write_text("hello")
    np.save(where / "x.npy", x.numpy())
    np.savez(where / "large.npz", x=x.numpy() * 100)
    np.savez_compressed(where / "wide.npz", x=np.zeros((1 << 19, 4), np.uint8))
    (where / "once").mkdir()
    (where / "once" / "running.json").write_text("{}")
    damage(where / "m.pt2", where / "damaged.pt2")
    return where


def damage(archive: Path, to: Path) -> None:
    """Flip a bit of the largest member of a zip archive."""
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = max(opened.infolist(), key=lambda info: info.file_size)
    data[member.header_offset + 100 + len(member.filename) + member.file_size // 2] ^= 16
    to.write_bytes(data)


@pytest.fixture
def image(folder: Path, secateur) -> Path:  # type: ignore[no-untyped-def]
    if not (folder / "m.sec").exists():
        status, _, err = secateur("compile m.pt2 --calibrate x.npz --target t.toml -o m.sec --json")
        assert status == 0, err
    return folder / "m.sec"


def test_compile_and_inspect_agree(image: Path, secateur) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = secateur("inspect m.sec --json")
    data = json.loads(out)
    assert status == 0
    keys = "cycles cycles_dense bound_cycles stream_bits dense_weights blocks blocks_total layers"
    assert set(keys.split()) <= set(data)
    assert data["dense_weights"] == 10 * 27 + 10 * 9 + 5 * 10
    pixels = 9 * 11, 5 * 6, 1
    macs = [10 * 27 * pixels[0], 10 * 9 * pixels[1], 10 * 30, 5 * 10]
    assert data["bound_cycles"] == pytest.approx(sum(macs) / 12)
    for layer in data["layers"]:
        assert {
            "name",
            "kind",
            "cycles",
            "bound_cycles",
            "blocks",
            "blocks_total",
            "lanes_busy",
        } <= set(layer)
    assert secateur("inspect m.sec")[0] == 0


def test_fixed_batch_gives_the_same_image(image: Path, secateur) -> None:  # type: ignore[no-untyped-def]
    status, _, err = secateur("compile fixed.pt2 --calibrate x.npz --target t.toml -o fixed.sec")
    assert status == 0, err
    words = json.loads(secateur("inspect m.sec --json")[1])["words"]
    size = words * 5
    assert image.read_bytes()[:size] == (image.parent / "fixed.sec").read_bytes()[:size]


def test_run_and_simulate(image: Path, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("run m.sec --input x.npz -o y.npz --json")
    assert status == 0, err
    ran = json.loads(out)
    with np.load(folder / "y.npz") as saved:
        assert saved["codes"].shape == (16, 5)
        np.testing.assert_array_equal(saved["values"].tolist(), ran["outputs"])
    status, out, err = secateur("simulate m.sec --input x.npz --limit 2 -o s.npz --waves w --json")
    assert status == 0, err
    simulated = json.loads(out)
    assert simulated["mismatches"] == 0
    assert simulated["images"] == 2
    assert simulated["cycles"] == simulated["predicted_cycles"] == ran["cycles"]
    assert simulated["layers_compared"] == 2 * 4
    assert simulated["outputs"] == ran["outputs"][:2]
    with np.load(folder / "s.npz") as saved:
        np.testing.assert_array_equal(saved["values"].tolist(), simulated["outputs"])
    assert (folder / "w").stat().st_size > 0


def test_maps_are_shown_by_their_shape(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, _, err = secateur("compile max.pt2 --calibrate x.npz --target 4x16 -o maps.sec")
    assert status == 0, err
    status, out, err = secateur("run maps.sec --input x.npz -o maps.npz")
    assert status == 0, err
    with np.load(folder / "maps.npz") as saved:
        first = saved["values"][0]
    assert f"0: {first.shape}, {first.min():.4g} to {first.max():.4g}" in out
    assert len(out.splitlines()) < 20


def test_verilog_and_memory_files(image: Path, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("verilog --target t.toml --image m.sec -o v --json")
    assert status == 0, err
    names = {Path(name).name for name in json.loads(out)["files"]}
    weights = {f"weights.{s}" for s in ("bin", "hex", "coe", "mem", "mif")}
    assert names == {"secateur.v", "secateur.core", "memory_0.hex"} | weights
    assert listed("verilog", folder / "v")
    raw = (folder / "v/weights.bin").read_bytes()
    verilog = (folder / "v/secateur.v").read_text()
    assert f"Written by Secateur {__version__}: secateur verilog --target t.toml" in verilog
    assert f"image of SHA-256 {hashlib.sha256(raw).hexdigest()}" in verilog
    assert "memory_0.hex: {file_type: user" in (folder / "v/secateur.core").read_text()
    assert image.read_bytes().startswith(raw)
    words = [raw[i : i + 5][::-1].hex() for i in range(0, len(raw), 5)]
    memory = (folder / "v/memory_0.hex").read_text().split()
    assert memory == words + [10 * "0"] * (1024 - len(words))
    status, out, err = secateur("verilog --target t.toml --image m.sec --one-file -o one --json")
    assert status == 0, err
    assert not (folder / "one/memory_0.hex").exists()
    assert f"40'h{words[-1]};" in (folder / "one/secateur.v").read_text()
    assert (folder / "v/weights.hex").read_text().split() == words
    assert (folder / "v/weights.mem").read_text().split() == ["@0000", *words]
    coe = (folder / "v/weights.coe").read_text().split("vector=")[1]
    assert coe.replace(";", "").replace(",", " ").split() == words
    mif = (folder / "v/weights.mif").read_text()
    assert f"DEPTH={1024};" in mif
    assert f"{len(words) - 1:X} : {words[-1]};" in mif


@pytest.mark.parametrize(("interface", "port"), [("axi", "s_axi_awaddr"), ("wishbone", "wb_adr")])
def test_verilog_for_a_soc(interface: str, port: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur(f"verilog --target t.toml --interface {interface} -o soc --json")
    assert status == 0, err
    names = {Path(name).name for name in json.loads(out)["files"]}
    files = {"secateur.v", "secateur.core", "secateur.h", "secateur.c", "secateur_registers.h"}
    for_litex = {"secateur_litex.py", "secateur_litex.h", "secateur_litex.c"}
    assert names == files | (for_litex if interface == "wishbone" else set())
    assert listed("verilog", folder / "soc")
    assert f" {port};" in (folder / "soc/secateur.v").read_text()
    core = (folder / "soc/secateur.core").read_text()
    assert core.startswith("CAPI=2:\n")
    assert f"_{interface}:" in core


def test_verilog_behind_a_uart(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("verilog --target t.toml --interface uart --divisor 25 -o u --json")
    assert status == 0, err
    assert {Path(name).name for name in json.loads(out)["files"]} == {
        "secateur.v", "secateur.core",
    }  # fmt: skip
    ports = ",\n  ".join(("clk", "rst", "rx", "tx", "running", "error"))
    assert f"module secateur(\n  {ports}\n);" in (folder / "u/secateur.v").read_text()
    assert "_uart:" in (folder / "u/secateur.core").read_text()


BAD = [
    ("verilog --target t.toml --interface uart -o u", "needs --divisor", "clock / baud"),
    ("verilog --target t.toml --interface axi --divisor 9 -o u", "uart, not axi", "omit it"),
    ("inspect none.sec", "none.sec", "No such file"),
    ("inspect text.sec", "text.sec", "not a Secateur image"),
    ("inspect cut.sec", "cut.sec", "cut short"),
    ("run flipped.sec --input x.npz", "flipped.sec", "CRC-32"),
    ("run m.sec --input none.npz", "none.npz", "No such file"),
    ("run m.sec --input text.sec", "text.sec", "npz"),
    ("run m.sec --input key.npz", "key.npz", "no array 'x'; it has y"),
    ("run m.sec --input shape.npz", "shape.npz: input 'x'", "(batch, 3, 9, 11)"),
    ("compile none.pt2 --calibrate x.npz --target 8x8 -o o.sec", "none.pt2", "no such file"),
    ("compile text.sec --calibrate x.npz --target 8x8 -o o.sec", "text.sec", "archive"),
    ("compile m.pt2 --target 8x8 -o o.sec", "float", "calibration"),
    ("compile m.pt2 --calibrate x.npz --target 9x9 -o o.sec", "'9x9'", "preset"),
    ("compile m.pt2 --calibrate x.npz --target broken.toml -o o.sec", "broken.toml", "bank_words"),
    ("compile m.pt2 --calibrate x.npz --target float.toml -o o.sec", "float.toml", "p must be an"),
    (
        "compile m.pt2 --calibrate x.npz --target large.toml -o o.sec",
        "large.toml",
        "0 to 28, not 29",
    ),
    (
        "compile m.pt2 --calibrate shape.npz --target 8x8 -o o.sec",
        "shape.npz: samples",
        "(3, 9, 11)",
    ),
    ("compile m.pt2 --calibrate x.npz --target 8x8 -o no/o.sec", "no/o.sec", "cannot be written"),
    (
        "compile unsupported.pt2 --calibrate x.npz --target 8x8 -o o.sec",
        "conv_transpose2d",
        "use dilation 1",
    ),
    ("verilog --target 8x8 --image m.sec -o v2", "m.sec", "compiled for 4x3"),
    ("verilog --target 8x8 --family lattice -o v2", "'lattice'", "ecp5"),
    ("verilog --target 8x8 --interface ahb -o v2", "'ahb'", "wishbone"),
    ("verilog --target asic --image m.sec -o v2", "m.sec", "holds nothing at power-up"),
    ("verilog --target up5k --image m.sec -o v2", "m.sec", "holds nothing at power-up"),
    ("verilog --target 8x8 --family ice40 -o v2", "target '8x8'", "p 1 or 2"),
    ("verilog --target deep.toml --family ecp5 -o v2", "target 'deep.toml'", "16384, not 32768"),
    ("verilog --target deep_ecp5.toml -o v2", "deep_ecp5.toml", "16384, not 32768"),
    ("compile m.pt2 --calibrate x.npz --target wide.toml -o o.sec", "wide.toml", "16384, not 8"),
    ("compile m.pt2 --calibrate x.npz --target modes.toml -o o.sec", "modes.toml", "not 1"),
    ("compile max.pt2 --calibrate x.npz --target up5k -o o.sec", "max pooling", "extended"),
    ("verilog --target family.toml -o v2", "family.toml: family 'lattice'", "asic"),
    ("inspect metadata.sec", "metadata.sec", "CRC-32 of its metadata"),
    ("inspect shorter.sec", "shorter.sec", "CRC-32 of its metadata"),
    ("run m.sec --input x.npy", "x.npy", "np.savez"),
    ("run m.sec --input x.npz -o once", "once: cannot be written", "irectory"),
    ("simulate m.sec --input x.npz --waves no/w.fst", "no/w.fst", "folder does not exist"),
    ("simulate m.sec --input x.npz --waves .", ".: a folder", "give the name of a file"),
    ("compile damaged.pt2 --calibrate x.npz --target 8x8 -o o.sec", "damaged.pt2", "CRC-32"),
    ("compile os:getcwd --calibrate x.npz --target 8x8 -o o.sec", "os:getcwd", "seed"),
    (f"prune {RECIPE} -o once", "once", "--resume"),
    ("run m.sec --input wide.npz --max-megabytes 1", "wide.npz", "--max-megabytes"),
    ("simulate m.sec --input wide.npz --max-megabytes 1", "wide.npz", "--max-megabytes"),
    ("device run m.sec --port no --input wide.npz --max-megabytes 1", "wide.npz", "at most 1 MB"),
]


@pytest.mark.parametrize(("line", "names", "says"), BAD)
def test_bad_input_is_one_line(  # type: ignore[no-untyped-def]
    line: str, names: str, says: str, image: Path, secateur, folder: Path
) -> None:
    data = bytearray(image.read_bytes())
    (folder / "cut.sec").write_bytes(data[:200])
    data[60] ^= 4
    (folder / "flipped.sec").write_bytes(data)
    whole = image.read_bytes()
    (folder / "metadata.sec").write_bytes(whole.replace(b'"cycles":', b'"cicles":', 1))
    (folder / "shorter.sec").write_bytes(whole[:-1])
    before = set(folder.iterdir())
    status, out, err = secateur(line)
    assert status == 1
    assert out == ""
    assert err.startswith("secateur: ")
    assert err.count("\n") == 1
    assert names in err
    assert says in err
    assert set(folder.iterdir()) == before


WRONG: list[tuple[dict[str, object], str]] = [
    ({"layers": []}, "layers is empty"),
    ({"layers.0.blocks": None}, "layers[0].blocks is missing"),
    ({"layers.0.fill": -1}, "layers[0].fill is -1, expected"),
    ({"layers.1.certificate.accumulator": 1.5}, "layers[1].certificate.accumulator is 1.5"),
    ({"layers.0.output": "no"}, "'no' is not in tensors"),
    ({"layers.0.label": 3}, "layers[0].label is 3, expected a text"),
    ({"weight_words": "512"}, "weight_words is '512', expected an integer"),
    ({"weight_words": 64}, "weight_words is 64, the header needs"),
    ({"weight_words": (1 << 20) + 1}, "weight_words must be 64 to 1048576"),
    ({"bank_words": 17}, "bank_words must be a power of two"),
    ({"tables": True}, "tables is True"),
    ({"outputs": None}, "outputs is missing"),
    ({"outputs.0.shape": [3]}, "outputs[0].shape is [3], not of the tensor's size"),
    ({"inputs": {}}, "inputs is {}, expected a list"),
    ({"inputs": []}, "inputs has 0 entries"),
    ({"inputs.0.name": "no"}, "inputs has 'no', which is not in arguments"),
    ({"arguments": ["x", "x"]}, "arguments have the same name"),
    ({"returns": "no"}, "returns is not a form"),
    ({"returns": {"kind": "named", "keys": ["a b"], "items": [None]}}, "no named tuple can have"),
    ({"inputs.0.fill": 256}, "inputs[0].fill is 256, expected an integer from 0 to 255"),
    ({"inputs.0.exponent": 5000}, "inputs[0].exponent is 5000"),
    ({"inputs.0.position": [0, 1, 1]}, "inputs[0]: position"),
    ({"outputs.0.shape": [1] * 17}, "outputs[0].shape has 17 entries, expected 0 to 16"),
    ({"layers.0.sources.0.dilation": [1]}, "dilation has 1 entries, expected 2"),
    ({"layers.0.bound_cycles": 1e300}, "layers[0].bound_cycles is 1e+300, expected a number"),
    ({"inputs.0.words": 4}, "inputs[0]: pixels of"),
    ({"inputs.0.pitch": 1}, "inputs[0]: pixels of"),
    ({"cycles": 7}, "cycles is 7, the header has"),
    ({"memory.0.clear": 1}, "memory[0].clear is 1, expected true or false"),
]
#: Only what reads the program, too, sees these.
WRONG_FOR_THE_PROGRAM: list[tuple[dict[str, object], str]] = [
    ({"inputs.0.words": 1000}, "inputs.words is not the program's (1000, expected"),
    ({"outputs.0.m": [0, 0]}, "outputs.m is not the program's (2, expected"),
    ({"layers.0.rows": 9}, "layers.rows is not the program's"),
]
READERS = [
    "inspect c.sec", "run c.sec --input x.npz", "simulate c.sec --input x.npz", "energy c.sec",
    "compare c.sec --tflite no", "delta c.sec m.sec -o d.secd", "delta m.sec c.sec -o d.secd",
    "verilog --target t.toml --image c.sec -o v2", "device load c.sec --port no",
    "device run c.sec --port no --input x.npz", "device serve --image c.sec",
    "build --board ulx3s-25f --image c.sec -o b2",
]  # fmt: skip


def check_refused(secateur, line: str, says: str) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur(line)
    assert (status, out) == (1, "")
    assert err.startswith("secateur: c.sec: ")
    assert says in err
    assert err.endswith("; compile the model again\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("changes", "says"), WRONG)
def test_wrong_metadata_is_one_line(  # type: ignore[no-untyped-def]
    changes: dict[str, object], says: str, image: Path, secateur, folder: Path
) -> None:
    (folder / "c.sec").write_bytes(altered(image.read_bytes(), changes))
    for line in READERS[:2]:
        check_refused(secateur, line, says)


@pytest.mark.parametrize("line", READERS)
def test_every_reader_refuses_wrong_metadata(
    line: str, image: Path, secateur, folder: Path
) -> None:  # type: ignore[no-untyped-def]
    (folder / "c.sec").write_bytes(altered(image.read_bytes(), {"layers.0.blocks": None}))
    check_refused(secateur, line, "layers[0].blocks is missing")


@pytest.mark.parametrize(("changes", "says"), WRONG_FOR_THE_PROGRAM)
def test_metadata_of_another_program(  # type: ignore[no-untyped-def]
    changes: dict[str, object], says: str, image: Path, secateur, folder: Path
) -> None:
    (folder / "c.sec").write_bytes(altered(image.read_bytes(), changes))
    for line in [line for line in READERS if line.split()[0] in ("run", "simulate", "device")][:-1]:
        check_refused(secateur, line, says)


def test_metadata_with_more_in_it(image: Path, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    (folder / "c.sec").write_bytes(altered(image.read_bytes(), {"more": {"x": 1}}))
    for line in READERS[:2]:
        assert secateur(line)[0] == 0


def test_an_image_longer_than_any_memory(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    words = (1 << 20) + 1
    head = struct.pack("<4sBBBBIIII", b"SECT", 4, 2, 2, 0, words, 16, 1000, 0)
    data = head + bytes(3 * words - 24)
    crc = struct.pack("<I", zlib.crc32(data))
    (folder / "c.sec").write_bytes(data[:20] + crc + data[24:])
    status, _, err = secateur("run c.sec --input x.npz")
    assert (status, err.count("\n")) == (1, 1)
    assert "c.sec: weight_words must be 64 to 1048576, not 1048577" in err


def test_inputs_in_other_units_are_pointed_out(image: Path, secateur) -> None:  # type: ignore[no-untyped-def]
    status, _, err = secateur("run m.sec --input large.npz --json")
    assert status == 0
    assert "of the values are clipped to" in err
    assert err.count("\n") == 1
    assert secateur("run m.sec --input x.npz --json")[2] == ""


def test_files_are_readable_as_the_umask_says(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    before = os.umask(0o027)
    try:
        status, _, err = secateur("compile m.pt2 --calibrate x.npz --target 8x8 -o mode.sec --json")
    finally:
        os.umask(before)
    assert status == 0, err
    assert (folder / "mode.sec").stat().st_mode & 0o777 == 0o640


def test_interrupt_leaves_nothing(image: Path, secateur, folder: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(folder.iterdir())
    monkeypatch.setattr("os.replace", interrupted)
    status, _, err = secateur("run m.sec --input x.npz -o z.npz --json")
    assert status == 130
    assert err.strip().endswith("interrupted")
    assert set(folder.iterdir()) == before


def test_targets(secateur) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = secateur("targets --json")
    assert status == 0
    assert {t["name"]: t["n"] * t["p"] for t in json.loads(out)["targets"]} == {
        "8x1": 8, "8x3": 24, "8x8": 64, "4x16": 64, "8x16": 128,
        "8x8-25f": 64, "8x8-s8": 64, "8x16-45f": 128, "asic": 64, "up5k": 8,
        "8x3-flash": 24, "8x8-25f-flash": 64, "8x8-flash": 64, "8x16-flash": 128, "8x16-sdram": 128,
        "4x4-gw2a": 16,
    }  # fmt: skip
