"""The source in an SDRAM beside a memory of its own: every byte, its cycle, and every rule.

All sources are in one bench, each with an SDRAM (``sdr_sdram.v``), a copy with pauses and a sink
with pauses. One is a cycle too early in everything, and the memory must say so.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from amaranth.back import verilog

from secateur.hw.memory.sdram_source import SdramSource
from secateur.hw.sdram import SOURCE, Sdram
from secateur.hw.spec import HEADER, Geometry
from secateur.sim import verilator
from tests.hw.memory.passes import bench, check_passes

GEOMETRY = Geometry(n=2, p=1, weight_words=1024, bank_words=64, ring=64)
MODEL = Path(__file__).parents[2] / "support" / "sdr_sdram.v"
#: Eight rows, each of which is refreshed in 9.6 us; 1 us until power is there.
SMALL = {"rows": 8, "retention": 9600, "power_up": 1000}
#: Data come a cycle late, and stay as long.
LATE = {"HOLD": 2, "VALID": 2}


#: Bits of ``broken``.
RULES = (
    "BEGIN", "OPEN_ROW", "MODE", "T_RCD", "T_RP", "T_RC", "T_RAS", "T_WR", "T_MRD", "REFRESH",
    "LINES",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A source, the memory beside it (parameters of ``sdr_sdram``), and the words of an image.

    ``breaks``: the rules that the source does not keep.
    """

    sdram: Sdram
    words: int
    model: dict[str, int] = field(default_factory=dict)
    breaks: tuple[str, ...] = ()


#: 1,803 bytes are in two banks, and end with half a half-word; 69 bytes are a burst and a bit.
CASES = {
    "125-mhz": Case(Sdram(clock=125_000_000, **SMALL), 601, LATE),
    "143-mhz": Case(
        Sdram(clock=142_000_000, delay=0, **SMALL),
        600,
        {"RC": 10, "RP": 3, "WR": 3, "RETENTION": 1363, "POWER_UP": 142},
    ),
    "latency-2": Case(
        Sdram(clock=100_000_000, latency=2, **SMALL),
        23,
        LATE
        | {"LATENCY": 2, "RC": 7, "RAS": 5, "RETENTION": 960, "POWER_UP": 100},
    ),
    "hasty": Case(
        Sdram(
            clock=100_000_000, latency=2, trcd=20, trp=20, tras=30, trc=50, twr=10,
            rows=8, retention=19200, power_up=1000,
        ),
        400,
        {"STRICT": 0},
        ("BEGIN", "MODE", "T_RCD", "T_RP", "T_RC", "T_RAS", "T_WR", "REFRESH"),
    ),
}  # fmt: skip

#: Longer than rows keep what they hold.
_PAUSES = """
  wire pauses = stall != 0 && now >= 12000 && now < 16000;
"""
_PART = """
  wire [2:0] command_{i};
  wire [1:0] bank_{i};
  wire [12:0] address_{i};
  wire mask_{i}, drive_{i}, valid_{i}, takes_{i};
  wire [15:0] value_{i}, level_{i}, broken_{i};
  wire [7:0] payload_{i};
  reg ready_{i}, gives_{i};
  reg [7:0] image_{i} [0:{size}];
  integer log_{i}, given_{i} = 0, taken_{i} = 0;
  source{i} source_{i} (
    .clk(clk), .rst(rst), .input__valid(gives_{i}), .input__payload(image_{i}[given_{i}]),
    .input__ready(takes_{i}), .image__valid(valid_{i}), .image__payload(payload_{i}),
    .image__ready(ready_{i}), .command(command_{i}), .bank(bank_{i}), .address(address_{i}),
    .mask(mask_{i}), .drive(drive_{i}), .value(value_{i}), .level(level_{i}));
  sdr_sdram #({parameters}) sdram_{i} (
    .clk(clk), .command(command_{i}), .bank(bank_{i}), .address(address_{i}), .mask(mask_{i}),
    .drive(drive_{i}), .value(value_{i}), .level(level_{i}), .broken(broken_{i}));
  reg stalled_{i} = 0;
  reg [7:0] held_{i};
  initial begin
    log_{i} = $fopen("image{i}.bin", "rb");
    void'($fread(image_{i}, log_{i}));
    $fclose(log_{i});
    log_{i} = $fopen("{i}.txt", "w");
  end
  always @(posedge clk) begin
    ready_{i} <= ($urandom & 65535) >= stall && !pauses;
    if (!gives_{i} || takes_{i}) gives_{i} <= ($urandom & 65535) >= stall;
    stalled_{i} <= !rst && valid_{i} && !ready_{i};
    held_{i} <= payload_{i};
    if (stalled_{i} && (!valid_{i} || payload_{i} != held_{i}) && !rst) $fatal(1, "withdrawn");
    if (rst) begin
      if (taken_{i} != 0) $fwrite(log_{i}, "reset\\n");
      given_{i} <= 0;
      gives_{i} <= 0;
    end else begin
      if (gives_{i} && takes_{i}) given_{i} <= given_{i} + 1;
      if (given_{i} > {size}) $fatal(1, "the image is copied twice");
      if (valid_{i}) $fwrite(log_{i}, "%0d %0d %0d\\n", now, payload_{i}, ready_{i});
      if (valid_{i} && ready_{i}) taken_{i} <= taken_{i} + 1;
      if (valid_{i} && ready_{i} && taken_{i} == 4 * {size} - 1) begin
        ended[{i}] <= 1;
        $fwrite(log_{i}, "reset\\n%0d\\n", broken_{i});
        $fflush(log_{i});
        $fclose(log_{i});
        log_{i} = $fopen("rest.txt", "w");
      end
    end
  end
"""


def image(words: int) -> bytes:
    data = bytearray(random.Random(0).randbytes(words * GEOMETRY.word_bytes))
    HEADER.pack_into(data, 0, b"SECT", 4, 2, 1, 0, words, 64, 1000, 0)
    return bytes(data)


@cache
def build() -> Path:
    """The simulator of a bench with a source of each case."""
    texts, parts = [MODEL.read_text()], []
    for i, case in enumerate(CASES.values()):
        source = SdramSource(geometry=GEOMETRY, sdram=case.sdram)
        texts.append(verilog.convert(source, name=f"source{i}", emit_src=False))
        parameters = ", ".join(f".{name}({value})" for name, value in case.model.items())
        size = len(image(case.words))
        parts.append(_PART.format(i=i, parameters=parameters, size=size))
    texts.append(bench([_PAUSES, *parts], cases=len(CASES)))
    public = "".join(
        f'public_flat_rw -module "bench" -var "{name}"\n' for name in ("rst", "stall", "done")
    )
    return verilator.build("\n".join(texts), f"`verilator_config\n{public}")


def run(folder: Path, *, stall: float, again: int = 0) -> list[tuple[int, list[list[int]]]]:
    """For each case: the rules that were broken; cycle, byte and whether it was taken."""
    for i, case in enumerate(CASES.values()):
        (folder / f"image{i}.bin").write_bytes(image(case.words))
    settings = {"SECATEUR_STALL": str(round(stall * 65536)), "SECATEUR_AGAIN": str(again)}
    verilator.execute(build(), folder, "tests.hw.memory.flash_bench", settings)
    found = []
    for i in range(len(CASES)):
        *_, passes, broken = (folder / f"{i}.txt").read_text().split("reset\n")
        lines = [[int(part) for part in line.split()] for line in passes.splitlines()]
        found.append((int(broken), lines))
    return found


@pytest.mark.parametrize(("stall", "again"), [(0.0, 0), (0.5, 0), (0.2, 3001)])
def test_bytes_of_pass_after_pass_at_their_rate(stall: float, again: int, tmp_path: Path) -> None:
    """Also where the sink pauses for longer than a row is kept, and behind a reset."""
    results = run(tmp_path, stall=stall, again=again)
    for (name, case), (broken, found) in zip(CASES.items(), results, strict=True):
        rules = [rule for bit, rule in enumerate(RULES) if broken >> bit & 1]
        assert rules == list(case.breaks), name
        if case.breaks:
            continue
        try:
            check_passes(found, SOURCE, image(case.words))
        except AssertionError as error:
            raise AssertionError(name) from error


def test_times_are_whole_cycles() -> None:
    """At 125 MHz: 21 ns are 3 cycles, 49 are 7, 70 are 9, 15 are 2; 64 ms are 8,192 rows, of which
    one may be an access late."""
    sdram = Sdram(clock=125_000_000)
    assert (sdram.open_cycles, sdram.close_cycles, sdram.shut_cycles) == (3, 4, 3)
    assert sdram.access_cycles(32) == 3 + 31 + 4 + 3
    assert sdram.refresh_cycles * 8192 + sdram.access_cycles(32) <= 8_000_000
    assert sdram.refresh_cycles == 976
    commands = [(step.command.name, step.address, step.cycles) for step in sdram.start]
    assert commands == [
        ("NOP", 0, 25_000), ("PRECHARGE", 1024, 3), *[("REFRESH", 0, 9)] * 8, ("MODE", 0x30, 2),
    ]  # fmt: skip
    slow = Sdram(clock=50_000_000, latency=2, trc=100)
    assert (slow.open_cycles, slow.close_cycles, slow.shut_cycles) == (2, 1, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"latency": 4}, "latency must be 2 or 3, not 4"),
        (
            {"clock": 143_000_000},
            "clock must be at most 142857142 Hz with latency 3, not 143000000",
        ),
        ({"latency": 2}, "clock must be at most 100000000 Hz with latency 2, not 125000000"),
        ({"clock": 0}, "clock must be at most 142857142 Hz with latency 3, not 0"),
        ({"trcd": 0}, "trcd must be 1 to 1000, not 0"),
        ({"delay": 8}, "delay must be 0 to 7, not 8"),
        ({"rows": 8193}, "rows must be 1 to 8192, not 8193"),
        ({"retention": 1.5}, "retention must be 1 to 1000000000, not 1.5"),
        (
            {"trc": 400},
            "times must be shorter: the ring may have to wait 1.. cycles for a row, and",
        ),
        ({"clock": 5_000_000}, "clock must be higher: a row is refreshed every 39 cycles, and one"),
    ],
)
def test_what_is_no_sdram(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sdram(**{"clock": 125_000_000} | options)
