"""What comes out on stdout and stderr, whatever stands in files and whatever users' code prints."""

from __future__ import annotations

import ctypes
import io
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateur import api
from secateur.cli.boards import show_build, show_sources
from secateur.cli.estimates import show_compare
from secateur.cli.main import main
from secateur.cli.tables import table
from secateur.cli.terminal import console, emit
from secateur.errors import SecateurError, SecateurWarning
from secateur.image import image as images
from secateur.report import compare
from secateur.sim import simulate as bench
from secateur.sim.verilator import SimulationError
from tests.sw.image.image_files import parts, trailed

TOML = "n = 2\np = 1\nweight_words = 512\nbank_words = 128\ntables = 0\n"
#: Markup, an escape sequence, a bell, lines, a mark of direction, half of a character; and long.
BAD = "[red]x[/]\x1b[1m\x07\r\n\u202e\ud800 [link=http://a]y[/link] [/] :smile:" + 100_000 * "n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small image, sound but for the names in it, and inputs."""
    where = tmp_path_factory.mktemp("terminal")
    (where / "t.toml").write_text(TOML)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3))
    x = torch.randn(3, 1, 4, 4)
    np.savez(where / "x.npz", x=x.numpy())
    api.compile(model.eval(), target=str(where / "t.toml"), calibration=x).save(where / "m.sec")
    stream, metadata = parts((where / "m.sec").read_bytes())
    data = stream + trailed(json.dumps(renamed(metadata)).encode())
    (where / "bad.sec").write_bytes(data)
    return where


def renamed(value: Any) -> Any:
    """Metadata with BAD before every text but those that are words of the format."""
    if isinstance(value, dict):
        return {k: v if k == "mode" else renamed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(inner) for inner in value]
    return BAD + value if isinstance(value, str) else value


def check(out: str) -> None:
    """Fit for a terminal."""
    assert all(c.isprintable() for c in out.replace("\n", ""))
    assert "\\x1b" in out
    assert len(out) < 20_000


@pytest.mark.parametrize("command", ["inspect bad.sec", "energy bad.sec"])
def test_names_in_an_image(command: str, secateur: Any, folder: Path) -> None:
    status, out, err = secateur(command)
    assert (status, err) == (0, "")
    check(out)
    assert "[red]x[/]" in out
    status, out, err = secateur(f"{command} --json")
    assert (status, err) == (0, "")
    assert BAD in json.loads(out)["layers"][0]["name"]


def test_a_long_name_leaves_room_for_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table("title", "name", "number")
    rows.add_row(BAD, "12345.67")
    console.print(rows)
    out = capsys.readouterr().out
    check(out)
    assert "12345.67" in out
    assert len(out) < 1000
    assert re.search(r"\[\.\.\. 99[0-9]{3}", out)


def test_no_number_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """At 80 columns, in a table that needs more."""
    numbers = [f"{number:,}" for number in range(123_456_789, 123_456_799)]
    rows = table("title", "name", *map(str, range(10)))
    rows.add_row("a_layer_with_a_name_of_30_chars", *numbers)
    console.print(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [cell for line in lines if line.startswith("│") for cell in line.split("│")[2:-1]]
    assert [cell.strip() for cell in cells] == numbers


def test_columns_that_do_not_fit_follow_in_further_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = [f"{number:,} ±{number % 97}" for number in range(111_111, 111_119)]
    rows = table("title", "name", *(f"number {at}" for at in range(8)))
    names = ["short", "a-name-" * 8]
    for name in names:
        rows.add_row(name, *numbers)
    console.print(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line for line in lines if "┃ name" in line]
    assert len(heads) > 1
    assert re.findall(r"number \d", " ".join(heads)) == [f"number {at}" for at in range(8)]
    for name in ("short", names[1][:20]):
        found = " ".join(line for line in lines if f"│ {name}" in line)
        assert re.findall(r"[\d,]+ ±\d+", found) == numbers
    assert sum("title" in line for line in lines) == 1


def test_inspect_needs_80_columns(
    secateur: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cell takes a second line, with cycles in the millions."""
    whole = images.load(folder / "m.sec")
    for layer in whole.metadata["layers"]:
        layer["name"] = "features_denselayer_3"
        layer["cycles"] = layer["cycles_dense"] = 1_234_567
        layer["blocks"] = layer["blocks_total"] = 123_456
    monkeypatch.setattr(images, "load", lambda file: whole)
    status, out, err = secateur("inspect m.sec")
    assert (status, err) == (0, "")
    measured = sum("sqnr" in layer for layer in whole.metadata["layers"])
    rows = 3 * len(whole.metadata["layers"]) + measured
    assert out.count("features_denselayer_3") == rows
    assert out.count(" 1,234,567 ") == 2 * len(whole.metadata["layers"])
    assert max(map(len, out.splitlines())) <= 80


def test_names_do_not_matter_to_a_run(secateur: Any, folder: Path) -> None:
    ran = [secateur(f"run {name}.sec --input x.npz --json") for name in ("m", "bad")]
    assert ran[0] == ran[1]
    assert ran[0][0] == 0


def test_names_in_a_comparison(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare.Estimate("ethos-u55-64", 64, 10, 20, 30, 1)
    about = {"version": "[b]", "system_config": "c", "memory_mode": "m"}
    data = compare.beside(images.load(folder / "bad.sec"), [found])
    show_compare(data | {"tflite": BAD, "image": BAD, "vela": about})
    out = capsys.readouterr().out
    check(out)
    assert "Vela [b]'s model" in out


def test_names_in_what_a_simulation_says(
    secateur: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise SimulationError("make failed", f"begin\n{BAD} error: \x1b\nend")

    monkeypatch.setattr(bench, "simulate", failing)
    status, out, err = secateur("simulate bad.sec --input x.npz --json")
    assert (status, out) == (1, "")
    begun, failed = err.splitlines()
    assert begun.startswith("Verilator: ")
    assert failed.startswith("secateur: make failed: ")
    check(err)


def test_no_name_gets_into_verilog(secateur: Any, folder: Path) -> None:
    (folder / "b]ad\x1b.toml").write_text(TOML)
    status, _, err = secateur("verilog --target b]ad\x1b.toml --image bad.sec -o v")
    assert status == 0, err
    for file in (folder / "v").iterdir():
        assert b"ad\x1b" not in file.read_bytes()
        assert b"[red]" not in file.read_bytes()


def test_reports_of_builds(capsys: pytest.CaptureFixture[str]) -> None:
    data: dict[str, Any] = {
        "title": "T", "geometry": {"n": 2, "p": 1, "weight_words": 1, "bank_words": 1, "tables": 0},
        "grade": None, "image": {"name": "[/]\x1b", "words": 1, "sha256": "0"}, "clock_mhz": 1.0,
        "fmax_mhz": 2.0, "die": "d", "seed": 1, "passed": True, "baud": 1, "program": "p",
        "tools": {}, "resources": {}, "slowest_path": [], "folder": "\x1b[31m",
        "bitstream": {"name": "b"}, "files": ["[/]\x1b"], "next": "cd \x1b",
    }  # fmt: skip
    show_build(data)
    show_sources(data)
    out = capsys.readouterr().out
    check(out)
    assert "image      [/]\\x1b, 1 words" in out
    assert "\n\\x1b[31m/b\n" in out


def test_a_terminal_that_has_not_all_characters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "\u00e9.sec").write_bytes((folder / "m.sec").read_bytes())
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["secateur", "compile", "m:make", "--target", "t.toml"])
    sys.argv += ["--calibrate", "x.npz", "-o", "\u00e9.sec"]
    (folder / "m.py").write_text("from torch import nn\nmake = lambda seed: nn.Conv2d(1, 2, 3)\n")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    out.flush()
    assert b"\\xe9.sec for t" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_messages_are_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = str(SecateurError(f"{BAD}: no {BAD}"))
    assert len(text) < 5000
    assert text.isprintable()
    assert text.startswith("[red]x[/]")
    assert text.endswith("n")
    escapes = str(SecateurError("\U000e0001" * 100_000))
    assert len(escapes) < 5000


def test_warnings_are_escaped(secateur: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object) -> None:
        warnings.warn(f"a\n{BAD}", SecateurWarning, stacklevel=1)
        raise SecateurError("no")

    monkeypatch.setattr("secateur.api.load", warn)
    _, _, err = secateur("run m.sec --input x.npz")
    assert err.startswith("secateur: a\\n[red]x")
    assert err.endswith("\nsecateur: no\n")
    assert err.count("\n") == 2
    check(err)


NOISY = """
import ctypes, os, subprocess, sys
from torch import nn

def noise(where):
    print(where, "print", flush=True)
    sys.__stdout__.write(where + " stream\\n")
    os.write(1, f"{where} descriptor\\n".encode())
    libc.puts(f"{where} C".encode())
    subprocess.run(["echo", where + " process"], check=True)

libc = ctypes.CDLL(None)
# What C prints is kept until it is flushed, in a buffer that is there to the end.
sys.buffer_of_c = ctypes.create_string_buffer(4096)
libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), sys.buffer_of_c, 0, 4096)
noise("import")

def model(seed):
    noise("call")
    return nn.Conv2d(1, 2, 3)

def failing(seed):
    noise("failure")
    raise ValueError("no")
"""
SOURCES = ("print", "stream", "descriptor", "C", "process")


@pytest.mark.parametrize("as_json", [True, False])
def test_stdout_is_json_alone(
    as_json: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    (folder / "noisy.py").write_text(NOISY)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "noisy", raising=False)

    def run(model: str) -> tuple[int, str, str]:
        line = f"secateur compile {model} --target t.toml --calibrate x.npz -o n.sec"
        monkeypatch.setattr(sys, "argv", [*line.split(), *["--json"] * as_json])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capfd.readouterr()

    status, out, err = run("noisy:model")
    assert status == 0
    if as_json:
        assert json.loads(out)["output"] == "n.sec"
    printed = err if as_json else out
    for when in ("import", "call"):
        for what in SOURCES if as_json else ("print", "descriptor", "process"):
            assert f"{when} {what}" in printed, (when, what)
    status, out, err = run("noisy:failing")
    assert status == 1
    assert "secateur: model = 'noisy:failing' fails" in err
    assert as_json == (out == "")
    ctypes.CDLL(None).fflush(None)  # here, not into another test
    assert f"{'failure'} print\n" in (err if as_json else out)


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Which has no NaN; what is emitted outside of a command is printed at once."""
    data = {"a": float("nan"), "b": [1.5, float("inf")], "c": (2, "\ud800"), "d": None}
    emit(data, True, lambda _: None)
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found == {"a": None, "b": [1.5, None], "c": [2, "\ud800"], "d": None}
    console.print("[b]1[/b]")
    assert capsys.readouterr().out == "[b]1[/b]\n"
