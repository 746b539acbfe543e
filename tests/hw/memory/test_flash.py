"""The reader of a flash beside a flash of its own: every byte, and the cycle in which it comes.

All readers are in one bench, each with a flash (``jedec_flash.v``) and a sink with pauses.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from amaranth.back import verilog

from secateur.hw.flash import SECTOR, WAKE, Flash, Slots
from secateur.hw.memory.flash_reader import FlashReader
from secateur.hw.memory.pacer import Pacer
from secateur.hw.ring import Source
from secateur.hw.spec import HEADER, Geometry
from secateur.sim import verilator
from tests.hw.memory.passes import bench, check_passes
from tests.support.long import long

GEOMETRY = Geometry(n=2, p=1, weight_words=1024, bank_words=64, ring=64)
WORDS = 23
MODEL = Path(__file__).parents[2] / "support" / "jedec_flash.v"


@dataclass(frozen=True)
class Case:
    """A reader, and the flash beside it: parameters of ``jedec_flash``.

    ``choice`` are bytes that say which of two images counts.
    """

    flash: Flash
    model: dict[str, int] = field(default_factory=dict)
    block: bool = False
    choice: bytes = b""


#: Bits come late, and stay as long into the next clock: what a delay of one cycle is for.
LATE = {"VALID": 5, "HOLD": 3}
#: No delay, at the clock of the reader.
FAST = {"divider": 1, "delay": 0, "pause": 60}
#: The choice, the first image and the second are in sectors one after another.
SLOTS = {"address": 0x301000, "slots": Slots(choice=0x300000, other=0x302000)}
CASES = {
    "quad": Case(Flash(pause=60), LATE),
    "quad-no-delay": Case(Flash(pause=60, delay=0), {"VALID": 3}),
    "quad-fast": Case(Flash(**FAST)),
    "quad-fast-late": Case(Flash(**FAST | {"delay": 2}), {"VALID": 5, "HOLD": 5}),
    "quad-slow": Case(
        Flash(pause=60, divider=6, delay=0, dummies=6, address=0xABCDEF),
        {"DUMMIES_QUAD": 6, "VALID": 11},
    ),
    "continuous": Case(Flash(pause=60, continuous=True, address=0x123456), LATE),
    "continuous-fast": Case(Flash(**FAST, continuous=True)),
    "was-continuous": Case(Flash(pause=60), LATE | {"CONTINUES": 1, "ASLEEP": 0}),
    "single": Case(Flash(pause=60, quad=False, address=0x100000), LATE | {"ENABLED": 0}),
    "single-fast": Case(Flash(**FAST, quad=False), {"ENABLED": 0}, block=True),
    "status-2": Case(Flash(pause=60, setup=(*WAKE, b"\x50", b"\x31\x02")), LATE | {"ENABLED": 0}),
    "first-of-two": Case(Flash(pause=60, **SLOTS), LATE),
    "second-of-two": Case(Flash(pause=60, **SLOTS), LATE, choice=b"\0"),
    "first-again": Case(Flash(**FAST, **SLOTS, continuous=True), choice=b"\0\x81"),
    "second-again": Case(Flash(**FAST, **SLOTS, continuous=True), choice=bytes(7)),
    "second-single": Case(
        Flash(pause=60, quad=False, **SLOTS), LATE | {"ENABLED": 0}, choice=bytes(1)
    ),
    "status-1": Case(Flash(pause=60, setup=(*WAKE, b"\x06", b"\x01\x40")), LATE | {"ENABLED": 0}),
}

_PART = """
  wire cs_n_{i}, sck_{i}, valid_{i};
  wire [3:0] drive_{i}, value_{i}, level_{i};
  wire [7:0] payload_{i};
  wire [31:0] reads_{i};
  reg ready_{i};
  {name} reader_{i} (
    .clk(clk), .rst(rst), .image__valid(valid_{i}), .image__payload(payload_{i}),
    .image__ready(ready_{i}), .cs_n(cs_n_{i}), .sck(sck_{i}), .drive(drive_{i}),
    .value(value_{i}), .level(level_{i}));
  jedec_flash #(.SIZE({size}), {parameters}) flash_{i} (
    .cs_n(cs_n_{i}), .sck(sck_{i}), .drive(drive_{i}), .value(value_{i}), .level(level_{i}),
    .reads(reads_{i}));
  integer log_{i}, taken_{i} = 0;
  reg stalled_{i} = 0;
  reg [7:0] held_{i};
  initial log_{i} = $fopen("{i}.txt", "w");
  always @(posedge clk) begin
    ready_{i} <= ($urandom & 65535) >= stall;
    stalled_{i} <= !rst && valid_{i} && !ready_{i};
    held_{i} <= payload_{i};
    if (stalled_{i} && (!valid_{i} || payload_{i} != held_{i}) && !rst) $fatal(1, "withdrawn");
    if (rst) begin
      if (taken_{i} != 0) $fwrite(log_{i}, "reset\\n");
    end else if (valid_{i}) begin
      $fwrite(log_{i}, "%0d %0d %0d\\n", now, payload_{i}, ready_{i});
      if (ready_{i}) taken_{i} <= taken_{i} + 1;
      if (ready_{i} && taken_{i} == {count} - 1) ended[{i}] <= 1;
    end
  end
"""


def image() -> bytes:
    size = WORDS * GEOMETRY.word_bytes
    data = bytearray(random.Random(0).randbytes(size))
    HEADER.pack_into(data, 0, b"SECT", 4, 2, 1, 0, WORDS, 64, 1000, 0)
    return bytes(data)


def contents(case: Case) -> bytes:
    """What is in the flash of a case: another image, too, where there are two."""
    if case.flash.slots is None:
        return image()
    other = bytearray(image()[::-1])
    HEADER.pack_into(other, 0, b"SECT", 4, 2, 1, 0, WORDS - 1, 64, 1000, 0)
    sectors = [case.choice, image(), bytes(other)]
    if len(case.choice) % 2:
        sectors[1:] = sectors[:0:-1]
    return b"".join(sector.ljust(SECTOR, b"\xff") for sector in sectors)


def contents_name(case: Case) -> str:
    return f"{hashlib.sha256(contents(case)).hexdigest()[:8]}.bin"


def build(cases: list[Case], count: int) -> Path:
    """The simulator of a bench with a reader of each case, all of which give ``count`` bytes."""
    texts, parts = [MODEL.read_text()], []
    for i, case in enumerate(cases):
        reader = FlashReader(geometry=GEOMETRY, flash=case.flash, block=case.block)
        texts.append(verilog.convert(reader, name=f"reader{i}", emit_src=False))
        slots = case.flash.slots
        base, size = (case.flash.address, 256) if slots is None else (slots.choice, 4 * SECTOR)
        given = {"BASE": base, "FILE": f'"{contents_name(case)}"'} | case.model
        parameters = ", ".join(f".{name}({value})" for name, value in given.items())
        parts.append(
            _PART.format(i=i, name=f"reader{i}", parameters=parameters, size=size, count=count)
        )
    texts.append(bench(parts, cases=len(cases)))
    public = "".join(
        f'public_flat_rw -module "bench" -var "{name}"\n' for name in ("rst", "stall", "done")
    )
    return verilator.build("\n".join(texts), f"`verilator_config\n{public}")


def run(cases: list[Case], folder: Path, *, stall: float, again: int = 0) -> list[list[list[int]]]:
    """For each case: cycle, byte and whether it was taken, of all cycles with a byte."""
    for case in cases:
        (folder / contents_name(case)).write_bytes(contents(case))
    program = build(cases, 4 * len(image()))
    settings = {"SECATEUR_STALL": str(round(stall * 65536)), "SECATEUR_AGAIN": str(again)}
    verilator.execute(program, folder, "tests.hw.memory.flash_bench", settings)
    texts = [(folder / f"{i}.txt").read_text().split("reset\n")[-1] for i in range(len(cases))]
    return [[[int(part) for part in line.split()] for line in text.splitlines()] for text in texts]


@pytest.mark.parametrize("stall", [long(0.0), 0.4, long(0.9)])
def test_bytes_of_pass_after_pass_at_their_rate(stall: float, tmp_path: Path) -> None:
    cases = list(CASES.values())
    for name, found, case in zip(CASES, run(cases, tmp_path, stall=stall), cases, strict=True):
        try:
            check_passes(found, case.flash.source, image())
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.long
def test_begins_anew_at_any_time(tmp_path: Path) -> None:
    """After a reset in the middle of anything the next byte is the first one."""
    cases = list(CASES.values())
    for again in (701, 1204):
        folder = tmp_path / str(again)
        folder.mkdir()
        for found, case in zip(run(cases, folder, stall=0.3, again=again), cases, strict=True):
            check_passes(found, case.flash.source, image())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": 1 << 24}, "address must be 0 to 16777215, not 16777216"),
        ({"dummies": 0}, "dummies must be 1 to 31, not 0"),
        ({"delay": 8}, "delay must be 0 to 7, not 8"),
        ({"pause": 0}, "pause must be 1 to 16777216, not 0"),
        ({"divider": 3}, "divider must be 1 or an even number to 16, not 3"),
        ({"quad": False, "continuous": True}, "continuous must be False with one line, not True"),
        (
            {"slots": Slots(choice=4096, other=8000)},
            r"address and slots must be three sectors of 4096 bytes, not \(0, 4096, 8000\)",
        ),
        ({"slots": Slots(choice=4096, other=4096)}, r"three sectors of 4096 bytes, not \(0, 4096,"),
        ({"setup": (b"",)}, "setup must be transfers of bytes, not .b"),
    ],
)
def test_what_no_flash_is_read_with(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Flash(**options)


def test_rates() -> None:
    """Two clocks a byte; eight of the command, six of the address, two of the mode, four dummies,
    four at rest, and one in which the last bit comes. With one line eight, 24, eight and four."""
    assert Flash().source == Source(interval=4, latency=2 * 25)
    assert Flash(delay=0, continuous=True, divider=1).source == Source(interval=2, latency=16)
    assert Flash(quad=False, delay=0).source == Source(interval=16, latency=2 * 44)


def test_a_pacer_has_a_latency() -> None:
    with pytest.raises(ValueError, match="latency must be at least 1, not 0"):
        Pacer(source=Source())
