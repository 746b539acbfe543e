"""Builds and swaps: what is in the memories, in the reports, and what is refused.

Most run on tools that only carry the memories' contents through; the long one on the real ones.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from secateur.boards.catalogue.board import BoardError
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow import ecp5
from secateur.boards.flow.build import build, swap
from secateur.boards.flow.contents import find_blocks, placeholder, read_blocks, replace_blocks
from secateur.boards.flow.design import Design, place
from secateur.hw.spec import Geometry
from tests.boards.flow import fake_tools
from tests.support.commands import listed
from tests.sw.image.image_files import image_file, random_words

# Slices of 2,048 words in columns of 9 bits, and of 256 words in columns of 18.
GEOMETRY = Geometry(n=2, p=1, weight_words=2304, bank_words=16, tables=0)
TOML = "n = 2\np = 1\nweight_words = 2304\nbank_words = 16\ntables = 0\n"
DESIGN = Design(board=BOARDS["ulx3s-25f"], geometry=GEOMETRY)


def image(seed: int, words: int = 2200, n: int = 2) -> bytes:
    return image_file(random_words(words, n, seed), None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images and a target in the current folder, and fake tools."""
    fake_tools.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")  # not the fake one
    monkeypatch.setenv("FAKE_FMAX", "151.2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.sec").write_bytes(image(1))
    (tmp_path / "b.sec").write_bytes(image(2, words=300))
    (tmp_path / "t.toml").write_text(TOML)
    return tmp_path


def weights(config: str, blocks: dict[str, list[int]]) -> np.ndarray:
    """The words of the weight memory in a configuration, bit by bit; ``blocks`` as noted."""
    numbers = read_blocks(config)
    bits = np.zeros((2304, 24), dtype=np.uint8)
    for wid, (index, column) in blocks.items():
        nine = np.array(numbers[int(wid)])[:, None] >> np.arange(9) & 1
        part = nine if index == 0 else nine.reshape(1024, 18)[:256]
        end = min(24, column + part.shape[1])
        bits[2048 * index : 2048 * index + len(part), column:end] = part[:, : end - column]
        assert not part[:, end - column :].any()
    return np.packbits(bits, axis=1, bitorder="little")


def expected(stream: bytes) -> np.ndarray:
    words = np.zeros((2304, 3), dtype=np.uint8)
    words[: len(stream) // 3] = np.frombuffer(stream, np.uint8).reshape(-1, 3)
    return words


def holds(where: Path, stream: bytes) -> bool:
    blocks = json.loads((where / "design.json").read_text())["blocks"]
    return np.array_equal(weights((where / "secateur.bit").read_text(), blocks), expected(stream))


def test_build_then_swap_holds_the_image(folder: Path) -> None:
    seen: list[tuple[str, str]] = []
    report = build(DESIGN, image(1), "a.sec", folder, progress=lambda *step: seen.append(step))
    assert holds(folder, image(1))
    assert report == json.loads((folder / "report.json").read_text())
    assert dict(seen) == {
        "synthesis": "opt",
        "placement": "iteration 1",
        "routing": "5,555 connections left",
        "packing": "",
    }
    routed = (folder / "routed.config").read_bytes()
    # shorter: what the longer one left behind is gone
    again = swap(folder, image(2, words=300), "b.sec")
    assert holds(folder, image(2, words=300))
    assert (folder / "routed.config").read_bytes() == routed
    assert again["image"]["name"] == "b.sec"
    assert again["fmax_mhz"] == report["fmax_mhz"]
    assert "b.sec, 308 words" in (folder / "report.txt").read_text()


def test_swap_is_a_full_rebuild(folder: Path) -> None:
    """All block RAMs hold what they hold if the image is in the Verilog from the start."""
    design = Design(board=DESIGN.board, geometry=GEOMETRY, seed=2)
    build(design, image(1), "a.sec", folder / "swapped")
    swap(folder / "swapped", image(2), "b.sec")
    stream = image(2)
    words = [int.from_bytes(stream[at : at + 3], "little") for at in range(0, len(stream), 3)]
    rebuilt = place(design, words, folder / "rebuilt").config.read_text()
    assert rebuilt == (folder / "swapped" / "secateur.bit").read_text()


@pytest.mark.long
def test_replaced_blocks_of_banks_side_by_side_are_those_of_a_rebuild(folder: Path) -> None:
    geometry = Geometry(n=2, p=5, s=4, weight_words=8448, bank_words=16, tables=0)
    design = Design(board=DESIGN.board, geometry=geometry)
    words = [int.from_bytes(bytes(word), "little") for word in random_words(8448, 2, 1)]
    placed = place(design, placeholder(geometry), folder / "placed").config.read_text()
    rebuilt = place(design, words, folder / "rebuilt").config.read_text()
    where = find_blocks(geometry, placed)
    assert replace_blocks(placed, geometry, where, words) == rebuilt
    assert replace_blocks(placed, geometry, where, words[:-1]) != rebuilt


def test_the_part_is_that_of_the_board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FMAX", "200.1")
    for name, switch, grade in (("ulx3s-25f", "--25k", "6"), ("ecpix5-45f", "--um5g-45k", "8")):
        build(Design(board=BOARDS[name], geometry=GEOMETRY), image(1), "a.sec", folder / name)
        options = (folder / name / "nextpnr-1.log").read_text().splitlines()[0].split()
        assert options[0] == switch
        assert options[options.index("--speed") + 1] == grade


def test_reports(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    line = "build --board ulx3s-25f --target t.toml --image a.sec -o out"
    status, out, err = secateur(line)
    assert status == 0, err
    assert err.split() == ["synthesis", "placement", "routing", "packing"]
    assert "151.2 MHz after routing (LFE5U-25F, speed grade 6, seed 1): met" in out
    assert "program    openFPGALoader --board ulx3s secateur.bit\n" in out
    assert "yosys 9.1, nextpnr-ecp5 9.2, ecppack 9.3" in out
    assert out.startswith((folder / "out" / "report.txt").read_text())
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["resources"]["DP16KD"] == {"used": 6, "available": 56}
    assert "ALU54B" not in report["resources"]
    assert report["passed"] is True
    assert report["slowest_path"] == [{"type": "routing", "ns": 6.0, "from": "a", "to": "b"}]
    assert not list(folder.rglob("*.part"))
    assert listed("build", folder / "out")
    status, out, err = secateur("swap --image b.sec -o out --json")
    assert status == 0, err
    assert json.loads(out)["image"]["words"] == 308


def test_without_an_image_there_is_a_ram(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("build --board ulx3s-25f --target t.toml -o out")
    assert status == 0, err
    assert "image      none: `secateur device load` loads one over the UART\n" in out
    blocks = read_blocks((folder / "out" / "secateur.bit").read_text())
    assert len(blocks) == 6
    assert not any(number for numbers in blocks.values() for number in numbers)
    assert json.loads((folder / "out" / "report.json").read_text())["image"] is None
    status, out, err = secateur("swap --image a.sec -o out")
    assert (status, out) == (1, "")
    assert "out: was built without an image; load a.sec with `secateur device load`" in err
    assert secateur("build --board arty-a7-100t --target t.toml -o arty")[0] == 0


def test_a_missed_clock_is_no_bitstream(  # type: ignore[no-untyped-def]
    secateur, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "build --board ulx3s-25f --target t.toml --image a.sec -o out"
    assert secateur(line)[0] == 0
    monkeypatch.setenv("FAKE_FMAX", "149.9 149.8 149.7 150.0")
    for option, fmax, seed in ((" --seed 1", 149.9, 1), ("", 149.7, 3)):
        status, out, err = secateur(line + option)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1] == (
            f"secateur: ulx3s-25f: {fmax} MHz after routing with seed {seed}, the clock is 150 "
            "MHz; try another --seed or a lower --clock"
        )
    assert not (folder / "out" / "secateur.bit").exists()
    assert json.loads((folder / "out" / "report.json").read_text())["passed"] is False
    assert secateur(f"{line} --clock 125")[0] == 0
    assert (folder / "out" / "secateur.bit").exists()


@pytest.mark.long
def test_without_a_seed_the_first_that_meets_the_clock(  # type: ignore[no-untyped-def]
    secateur, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "build --board ulx3s-25f --target t.toml --image a.sec -o out"
    monkeypatch.setenv("FAKE_FMAX", "none 149.9 150.0 170.0")
    status, out, err = secateur(line)
    assert status == 0
    assert "150.0 MHz after routing (LFE5U-25F, speed grade 6, seed 3): met" in out
    said = [text for text in err.splitlines() if "seed" in text]
    assert said == ["no placement with seed 1", "149.9 MHz with seed 2"]
    assert json.loads((folder / "out" / "report.json").read_text())["seed"] == 3
    assert not (folder / "out" / "report-4.json").exists()
    status, out, err = secateur(f"{line} --seed 1")
    assert (status, out) == (1, "")
    assert "try another --seed; see " in err
    assert not (folder / "out" / "secateur.bit").exists()


BUILD = "build --board ulx3s-25f --target t.toml -o new --image"
BAD = [
    ("build --board ulx3 --image a.sec -o new", "board 'ulx3' is not one of ulx3s-25f, "),
    ("build --board ulx3s-25f --image a.sec -o new", "a.sec: compiled for 2x1, the engine is 8x3"),
    (f"{BUILD} long.sec", "long.sec: needs 2408 words of weight memory, the engine has 2304"),
    (f"{BUILD} t.toml", "t.toml: not a Secateur image"),
    (f"{BUILD} a.sec --clock 151", "ulx3s-25f: a PLL cannot make 151 MHz"),
    (f"{BUILD} a.sec --clock nan", "--clock must be a number above 0, not nan"),
    (f"{BUILD} a.sec --clock -1", "--clock must be a number above 0, not -1"),
    (f"{BUILD} a.sec --key k.pem.pub", "a.sec: unsigned (no a.sec.sig)"),
    ("swap --image a.sec -o old --key k.pem.pub", "a.sec: unsigned (no a.sec.sig)"),
    (f"{BUILD} a.sec --target none", "target 'none' is neither a preset"),
    ("build --board arty-a7-100t --image a.sec -o new", "a.sec: compiled for 2x1, the engine is"),
    ("swap --image wide.sec -o old", "wide.sec: compiled for 4x1, the engine is 2x1"),
    ("swap --image long.sec -o old", "long.sec: needs 2408 words of weight memory, the engine has"),
    ("swap --image a.sec -o .", "no finished build (design.json: No such file or directory)"),
    ("swap --image a.sec -o changed", "changed: routed.config is not the one that was built"),
    ("swap --image a.sec -o cut", "cut: design.json or report.json is damaged; build again"),
]


@pytest.mark.parametrize(("line", "says"), BAD)
def test_bad_input_is_one_line(line: str, says: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    (folder / "long.sec").write_bytes(image(1, words=2400))
    (folder / "wide.sec").write_bytes(image(1, n=4))
    for name in {"old", "changed", "cut"} & set(line.split()):
        build(DESIGN, image(1), "a.sec", folder / name)
    if "changed" in line:
        with (folder / "changed" / "routed.config").open("a") as file:
            file.write("\n")
    if "cut" in line:
        text = (folder / "cut" / "design.json").read_text()
        (folder / "cut" / "design.json").write_text(text[:-20])
    secateur("keygen -o k.pem")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    status, out, err = secateur(line)
    assert (status, out) == (1, "")
    assert err.startswith("secateur: ")
    assert err.count("\n") == 1
    assert says in err
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert before == after


def test_banks_and_tables_must_suffice(folder: Path) -> None:
    stream = bytearray(image(1))
    stream[12:16] = (32).to_bytes(4, "little")
    with pytest.raises(BoardError, match=r"a: needs 32 words per bank, the engine has 16"):
        build(DESIGN, bytes(stream), "a", folder)
    stream = bytearray(image(1))
    stream[7] = 1
    with pytest.raises(BoardError, match=r"a: needs 1 activation tables, the engine has 0"):
        build(DESIGN, bytes(stream), "a", folder)


def test_arty(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    (folder / "t.toml").write_text(TOML)
    status, out, err = secateur("build --board arty-a7-100t --target t.toml --image a.sec -o out")
    assert status == 0, err
    assert "No bitstream: this board needs the vendor's tools." in out
    assert listed("build", folder / "out")
    names = ["build.tcl", "top.v", "top.xdc"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == names
    script = (folder / "out" / "build.tcl").read_text()
    assert "set part xc7a100tcsg324-1\n" in script
    assert {name for name in names[1:] if name in script} == set(names[1:])


def test_boards_are_listed(secateur) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = secateur("boards --json")
    assert status == 0
    listed = json.loads(out)["boards"]
    assert [board["name"] for board in listed] == list(BOARDS)
    assert [board["name"] for board in listed if not board["built_here"]] == ["arty-a7-100t"]
    presets = {board["name"]: board["preset"] for board in listed}
    assert presets["ulx3s-25f"] == "8x3"  # not 8x1, which is for the same part
    assert presets["icebreaker"] == "up5k"
    assert presets["arty-a7-100t"] is None  # 8 x 16, with fewer words than the preset
    status, out, _ = secateur("boards")
    assert status == 0
    assert all(name in out for name in BOARDS)


def test_a_configuration_without_the_placeholder_is_refused() -> None:
    words = placeholder(GEOMETRY)
    assert len(set(words)) > 2290
    with pytest.raises(ValueError, match="config must hold each of the weight memory's 5 block"):
        find_blocks(GEOMETRY, ".device LFE5U-25F\n")


@pytest.mark.long
def test_real_tools(tmp_path: Path) -> None:
    """In bitstreams: a swap is a full rebuild, in seconds. Unpacked by Project Trellis."""
    stream = image(2)
    design = Design(board=DESIGN.board, geometry=GEOMETRY, clock=100_000_000)
    build(design, image(1), "a.sec", tmp_path / "swapped", timeout=900)
    begin = sum(os.times()[:4])
    swap(tmp_path / "swapped", stream, "b.sec")
    assert sum(os.times()[:4]) - begin < 20  # of the processor, its tools among them
    words = [int.from_bytes(stream[at : at + 3], "little") for at in range(0, len(stream), 3)]
    config = place(design, words, tmp_path / "rebuilt", timeout=900).config
    ecp5.TOOLS.run(["ecppack", config.name, "secateur.bit"], tmp_path / "rebuilt")
    found = []
    for name in ("swapped", "rebuilt"):
        unpack = [ecp5.TOOLS.locate("ecpunpack"), "secateur.bit", "unpacked.config"]
        subprocess.run(unpack, cwd=tmp_path / name, check=True, env=dict(os.environ))
        found.append(read_blocks((tmp_path / name / "unpacked.config").read_text()))
    assert found[0] == found[1]
    blocks = json.loads((tmp_path / "swapped" / "design.json").read_text())["blocks"]
    text = (tmp_path / "swapped" / "unpacked.config").read_text()
    assert np.array_equal(weights(text, blocks), expected(stream))
