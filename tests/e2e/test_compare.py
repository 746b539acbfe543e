"""Vela's estimates beside an image: a stand-in for Vela writes what is read; then Vela itself."""

from __future__ import annotations

import importlib.metadata
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from secateur.cli.main import app
from secateur.errors import SecateurError, SecateurWarning
from secateur.image.image import Image
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.pruning import prune
from secateur.report import compare as comparison
from secateur.report.compare import MEMORY_MODE, SYSTEM_CONFIG, compare, estimate
from tests.support.pipeline import build, compile_for, target

MACS = 32 * 8 * 8 * 4
HEAD = """
import os, sys, time
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
def write(name, text):
    with open(os.path.join(options["--output-dir"], name), "w") as file:
        file.write(text)
"""
COLUMNS = "network,nn_macs,cycles_npu,cycles_sram_access,cycles_total"
GOOD = f"""
macs = int(options["--accelerator-config"].rsplit("-", 1)[1])
write("a_summary_b.csv", f"{COLUMNS}\\nnet,{MACS},{{64000 / macs}},5,{{64001 / macs}}\\n")
print("Network summary")
print("CPU operators = 0 (0.0%)")
"""


@pytest.fixture(scope="module")
def image() -> Image:
    """A pointwise convolution on 8 x 4 pixels at half of its blocks."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 8, 1))
    nn.init.uniform_(model[0].weight, 0.5, 1)
    prune(model, density=0.5, n=8)
    return compile_for(build(model, torch.rand(2, 32, 4, 8)), target(8, 8))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets up a package that goes for Vela 9.9 and runs the given code; returns a .tflite file."""

    def install(code: str) -> Path:
        package = tmp_path / "site/ethosu/vela"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (tmp_path / "site/ethosu/__init__.py").touch()
        (package / "__main__.py").write_text(HEAD + textwrap.dedent(code))
        info = tmp_path / "site/ethos_u_vela-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ethos-u-vela\nVersion: 9.9\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
        file = tmp_path / "net.tflite"
        file.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
        return file

    return install


def test_ratios_by_hand(image: Image, stand_in: Any) -> None:
    found = compare(image, stand_in(GOOD))
    ours = found["secateur"]
    assert (ours["multipliers"], ours["macs"], ours["label"]) == (64, MACS, "exact")
    assert ours["input_words"] == image.metadata["inputs"][0]["words"]
    assert ours["cycles"] == image.metadata["cycles"] < ours["cycles_dense"]
    rows = {row["accelerator"]: row for row in found["estimates"]}
    assert {name: row["cycles"] for name, row in rows.items()} == {
        "ethos-u55-32": 2000,
        "ethos-u55-64": 1000,
        "ethos-u55-128": 500,
    }
    assert {row["label"] for row in rows.values()} == {"estimate"}
    assert rows["ethos-u55-32"]["ratio"] is None
    assert rows["ethos-u55-128"]["ratio"] is None
    assert rows["ethos-u55-64"]["ratio"] == {
        "dense": 1000 / image.metadata["cycles_dense"],
        "pruned": 1000 / image.metadata["cycles"],
    }
    assert found["vela"] == {
        "version": "9.9",
        "system_config": SYSTEM_CONFIG,
        "memory_mode": MEMORY_MODE,
    }


def test_the_command(
    image: Image, stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.cli.estimates.console", Console(width=200))
    code = (
        GOOD.replace("operators = 0", "operators = 3")
        + f"""
assert options["--system-config"] == "{SYSTEM_CONFIG}"
assert options["--memory-mode"] == "{MEMORY_MODE}"
"""
    )
    tflite = stand_in(code)
    image.save(tmp_path / "model.sec")
    command = ["compare", str(tmp_path / "model.sec"), "--tflite", str(tflite)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    for words in (
        "pruned, exact",
        "ethos-u55-128, estimate",
        "u55-32 leaves 3 operators",
        "Vela 9.9",
    ):
        assert words in " ".join(shown.output.split())
    assert "no ratio" not in shown.output
    one = CliRunner().invoke(app, [*command, "--json", "--accelerator", "ethos-u55-256"])
    (row,) = json.loads(one.stdout)["estimates"]
    assert (row["multipliers"], row["cycles"], row["cpu_operators"]) == (256, 250, 3)
    none = CliRunner().invoke(app, [*command, "--accelerator", "ethos-u55-32"])
    assert "None of them has 64 multipliers" in none.output


def test_another_network_is_told(image: Image, stand_in: Any) -> None:
    with pytest.warns(SecateurWarning, match=r"net\.tflite: 9,830 multiply.* has 8,192; are they"):
        compare(image, stand_in(GOOD.replace(str(MACS), "9830")))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "Vela wrote 0 summaries for ethos-u55-64, expected one"),
        (GOOD + "write('c_summary_d.csv', '')", "Vela wrote 2 summaries"),
        (
            GOOD.replace("cycles_npu", "cycles"),
            "no number cycles_npu in a single row",
        ),
        (GOOD.replace("cycles_total", "total"), "no number cycles_total"),
        (GOOD.replace("{64000 / macs}", "nan"), "no number cycles_npu"),
        (GOOD.replace("{64000 / macs}", "inf"), "no number cycles_npu"),
        (GOOD.replace(f"net,{MACS}", "net\\nnet"), "no number cycles_npu in a single row"),
        (GOOD.replace("CPU operators", "operators"), "lacks the number of CPU operators"),
        (GOOD.replace("64000 / macs", "0"), r"net\.tflite: Vela runs no operator of it on the NPU"),
        (
            "raise RuntimeError('no good\\nat all')",
            r"net\.tflite: Vela 9\.9 failed on it: RuntimeError: no good at all$",
        ),
        ("print('bad shape'); sys.exit(1)", "Vela 9.9 failed on it: bad shape$"),
        ("sys.exit(1)", "Vela 9.9 failed on it: no reason given"),
        ("os.kill(os.getpid(), 11)", "Vela 9.9 failed on it: it crashed, signal 11; is it damaged"),
    ],
)
def test_what_vela_may_do(stand_in: Any, code: str, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        estimate(stand_in(code), "ethos-u55-64")


def test_a_vela_that_hangs(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_SECONDS", 1)
    said = r"Vela 9\.9 failed on it: no result after 1 seconds of processor time$"
    with pytest.raises(SecateurError, match=said):
        estimate(stand_in("while True: pass"), "ethos-u55-64")


def test_bad_input(image: Image, stand_in: Any, tmp_path: Path) -> None:
    tflite = stand_in(GOOD)
    with pytest.raises(SecateurError, match="accelerator 'ethos-u65-256' is unknown; choose from"):
        estimate(tflite, "ethos-u65-256")
    with pytest.raises(SecateurError, match=r"none\.tflite: cannot be read: No such file"):
        estimate(tmp_path / "none.tflite", "ethos-u55-64")
    with pytest.raises(SecateurError, match="no metadata to compare"):
        compare(replace(image, metadata={}), tflite)
    with tflite.open("r+b") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(SecateurError, match=r"net\.tflite: more than 1,073,741,824 bytes"):
        estimate(tflite, "ethos-u55-64")
    tflite.write_bytes(b"TFL3")
    with pytest.raises(SecateurError, match=r"net\.tflite: not a \.tflite file"):
        estimate(tflite, "ethos-u55-64")
    image.save(tmp_path / "model.sec")
    command = ["compare", str(tmp_path / "model.sec"), "--tflite", str(tflite)]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, type(result.exception)) == (1, SecateurError)


def test_no_vela(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    tflite = stand_in(GOOD)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(SecateurError, match=r"not installed: pip install 'secateur\[compare\]'"):
        estimate(tflite, "ethos-u55-64")


@pytest.mark.parametrize(
    ("kind", "macs", "expected"),
    [
        (ResNet8, 12_501_632, 356_000),
        (DSCNN, 2_656_768, 138_000),
        (MobileNetV1, 7_489_664, 356_000),
        (Autoencoder, 264_192, 41_000),
    ],
)
def test_vela_itself(kind: type[nn.Module], macs: int, expected: int, tmp_path: Path) -> None:
    """Multiply-accumulates of networks.md; cycles as others have had them, roughly."""
    pytest.importorskip("ethosu.vela", reason="Vela is not installed")
    from tests.support.tflite_networks import WRITERS

    path = tmp_path / "network.tflite"
    WRITERS[kind](path)
    found = estimate(path, "ethos-u55-64")
    assert found.cpu_operators == 0
    assert macs <= found.macs < 1.07 * macs  # Vela counts the mean, 4.4.1 some more
    assert found.macs / 64 <= found.cycles <= found.cycles_total
    assert 0.8 < found.cycles / expected < 1.25


def test_vela_and_zero_weights(tmp_path: Path) -> None:
    """What compare.md says of them."""
    pytest.importorskip("ethosu.vela", reason="Vela is not installed")
    from tests.support.tflite_networks import write_autoencoder

    path, found = tmp_path / "network.tflite", []
    for density in (1.0, 0.25):
        write_autoencoder(path, density)
        found.append(estimate(path, "ethos-u55-64"))
    assert found[0].cycles == found[1].cycles
    assert found[0].cycles_total > found[1].cycles_total


def test_vela_on_a_damaged_file(tmp_path: Path) -> None:
    pytest.importorskip("ethosu.vela", reason="Vela is not installed")
    from tests.support.tflite_networks import write_resnet8

    path = tmp_path / "network.tflite"
    write_resnet8(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SecateurError, match=r"network\.tflite: Vela .* failed on it"):
        estimate(path, "ethos-u55-64")


def bars_hold(kind: type[nn.Module]) -> None:
    """Both ratios of compare.md reach their bars."""
    from docs.tables.vela import BARS, our_cycles, vela_cycles

    vela = vela_cycles(kind, "ethos-u55-64")
    for density, bar in zip((1.0, 0.25), BARS[kind], strict=True):
        assert vela / our_cycles(kind, density) >= bar


def test_fewer_cycles_than_vela() -> None:
    pytest.importorskip("ethosu.vela", reason="Vela is not installed")
    bars_hold(DSCNN)


@pytest.mark.long
@pytest.mark.parametrize("kind", [ResNet8, MobileNetV1, Autoencoder])
def test_fewer_cycles_than_vela_on_the_others(kind: type[nn.Module]) -> None:
    pytest.importorskip("ethosu.vela", reason="Vela is not installed")
    bars_hold(kind)
