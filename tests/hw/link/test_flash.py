"""The engine of a board whose image is in flash: the host's driver, through the simulated line.

The flash has room for two images; nothing is loaded but what is written to it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import verilog

from secateur.boards.driver.device import Device, DeviceError, open_port
from secateur.boards.driver.flash import update
from secateur.hw.flash import SECTOR, WAKE, Flash, Slots
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.sdram import Sdram
from secateur.hw.soc.registers import BY_NAME
from secateur.hw.spec import Geometry
from secateur.sim import pty
from secateur.sim.golden import parse, run
from tests.hw.memory.flash_top import SDR_SDRAM
from tests.support.programs import Sample, random_program

GEOMETRY = Geometry(n=4, p=2, weight_words=2048, bank_words=128, ring=64)
MODELS = Path(__file__).parents[2] / "support"
SDRAM = Sdram(clock=125_000_000, rows=8, retention=9600, power_up=1000)
SLOTS = Slots(choice=0x300000, other=0x308000)
FLASH = Flash(address=0x301000, pause=60, setup=(*WAKE, b"\x50", b"\x31\x02"), slots=SLOTS)
_TOP = """
module secateur (
  input wire clk, input wire rst, input wire rx, output wire tx, output wire running
);
  wire cs_n, sck, error;
  wire [3:0] drive, value, level;
  engine engine (
    .clk, .rst, .rx, .tx, .running, .error, .cs_n, .sck, .drive, .value, .level{ports});
{memory}
  jedec_flash #(.BASE({base}), .FILE("{file}"), .ENABLED(0), .VALID(5), .HOLD(3){more}) flash (
    .cs_n, .sck, .drive, .value, .level, .reads());
endmodule
"""


_MEMORY = SDR_SDRAM.format(parameters=".HOLD(2), .VALID(2)")
_PORTS = """,
    .sdram_command(command), .sdram_bank(bank), .sdram_address(address), .sdram_mask(mask),
    .sdram_drive(drives), .sdram_value(to), .sdram_level(from)"""


def board(file: Path, more: str = "", *, sdram: Sdram | None = None) -> str:
    engine = UartEngine(GEOMETRY, divisor=pty.DIVISOR, flash=FLASH, sdram=sdram)
    text = verilog.convert(engine, name="engine", emit_src=False)
    beside = {"memory": _MEMORY, "ports": _PORTS} if sdram else {"memory": "", "ports": ""}
    text += _TOP.format(base=SLOTS.choice, file=file, more=more, **beside)
    return text + "".join(
        (MODELS / f"{name}.v").read_text() for name in ("jedec_flash", "sdr_sdram")
    )


def held(image: bytes) -> bytes:
    """The flash, from the sector of the choice on."""
    return b"\xff" * SECTOR + image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("sdram", [None, SDRAM])
def test_inferences_through_the_driver(secateur, sdram, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Another image than the flash's is refused; a reset reads again; an update changes it."""
    sample = random_program(3, replace(GEOMETRY, ring=0), layers=3)
    (tmp_path / "image.bin").write_bytes(held(bytes(sample.image)))
    other = random_program(5, replace(GEOMETRY, ring=0), layers=3)
    (tmp_path / "other.sec").write_bytes(other.image)
    text = board(tmp_path / "image.bin", sdram=sdram)
    with pty.serve(GEOMETRY, verilog=text) as served:
        check_what_it_holds(served.path, sample, other, waits=sdram is None)
        line = f"device load other.sec --flash --port {served.path} --baud 115200"
        status, out, err = secateur(line)
        assert status == 0, err
        assert "accepted" in out
        with open_port(served.path, 115_200) as link:
            device = Device(link)
            check_runs(device, other)
            update(device, bytes(sample.image))
            check_runs(device, sample)


def check_what_it_holds(path: str, sample: Sample, other: Sample, *, waits: bool) -> None:
    """The image of the flash, and no other. The SDRAM is as fast as this program."""
    with open_port(path, 115_200) as link:
        device = Device(link)
        assert device.identity.rom
        assert device.register("RING_WORDS") == GEOMETRY.ring
        assert not any(device.link.read(BY_NAME[name].offset) for name in ("SOURCE_BASE", "FLASH"))
        for _ in range(2):
            device.load(bytes(sample.image))
            check_runs(device, sample)
            assert (device.register("MEMORY_WAIT") > 0) == waits
        with pytest.raises(DeviceError, match=r"the device holds another image, .*; build the"):
            device.load(bytes(other.image))


def check_runs(device: Device, sample: Sample) -> None:
    """Results and cycles are golden's."""
    inputs = sample.inputs(2)
    golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
    device.restart()
    for row, want in zip(inputs, golden.results, strict=True):
        result, cycles = device.run(row.tobytes(), golden.results.shape[1])
        assert result == want.tobytes()
        assert cycles == golden.cycles


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", r"it does not begin as an image does \(MAGIC\)"),
        pytest.param(", .ERRORS(60000)", "stopped on the image", marks=pytest.mark.long),
    ],
)
def test_what_is_not_an_image(more: str, said: str, tmp_path: Path) -> None:
    """An empty flash; one that no bit comes from as it was."""
    sample = random_program(3, replace(GEOMETRY, ring=0), layers=3)
    (tmp_path / "image.bin").write_bytes(held(bytes(sample.image)) if more else b"")
    text = board(tmp_path / "image.bin", more)
    with pty.serve(GEOMETRY, verilog=text) as served, open_port(served.path, 115_200) as link:
        with pytest.raises(DeviceError, match=said):
            Device(link).load(bytes(sample.image))


def test_a_flash_fills_a_ring() -> None:
    with pytest.raises(ValueError, match="flash must be None without a ring, not Flash"):
        UartEngine(replace(GEOMETRY, ring=0), divisor=4, flash=FLASH)
    with pytest.raises(ValueError, match="sdram must be None without a flash, not Sdram"):
        UartEngine(GEOMETRY, divisor=4, sdram=SDRAM)
