"""Registers in memory: which ports are meant, and how they are mapped.

What is read and written there is tested on a simulated bus, in ``tests/hw/soc``.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from secateur.boards.driver.device import DeviceError, connect
from secateur.boards.driver.link import LinkError
from secateur.boards.driver.mapped import MEMORY, MappedLink, find_memory, open_memory
from secateur.hw.soc.registers import BY_NAME
from secateur.hw.spec import Status

AT = {name: register.offset for name, register in BY_NAME.items()}


@pytest.mark.parametrize(
    ("port", "found"),
    [
        ("0x43c00000", (MEMORY, 0x43C00000)),
        ("0xA0000040", (MEMORY, 0xA0000040)),
        ("/dev/uio3", ("/dev/uio3", 0)),
        ("/dev/ttyUSB0", None),
        ("COM3", None),
        ("0x", None),
        ("/dev/uio", None),
    ],
)
def test_ports(port: str, found: tuple[str, int] | None) -> None:
    assert find_memory(port) == found


@pytest.mark.parametrize("address", [0, 0x40, mmap.PAGESIZE, mmap.PAGESIZE + 0x100])
def test_a_register_is_a_word_at_its_address(address: int, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_bytes(bytes(2 * mmap.PAGESIZE + 0x300))
    with open_memory(str(file), address) as link:
        link.words[AT["STATUS"] >> 2] = Status.WAITING
        assert link.write(AT["RESULT_BEATS"], [0x01020304]) == 1
        assert link.write(AT["CONTROL"], [1, 2]) == 2
    whole = bytearray(file.read_bytes())
    for name, value in (("RESULT_BEATS", 0x01020304), ("CONTROL", 2), ("STATUS", Status.WAITING)):
        at = address + AT[name]
        assert int.from_bytes(whole[at : at + 4], "little") == value
        whole[at : at + 4] = bytes(4)
    assert not any(whole)


@pytest.mark.parametrize("ring", [False, True])
def test_registers_of_a_ring(ring: bool) -> None:
    """Only the one who builds the engine knows whether they are there."""
    words = dict.fromkeys(range(64), 7)
    link = MappedLink(words, ring=ring)  # type: ignore[arg-type]
    assert link.read(AT["RING_WORDS"]) == ([7] if ring else [])
    assert link.write(AT["SOURCE_BASE"], [64]) == ring
    assert link.write(AT["IMAGE"], [0]) == (not ring)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"none cannot be mapped at 0x0: No such file.*; run this"):
        with open_memory(str(tmp_path / "none"), 0):
            pass
    (tmp_path / "uio0").write_bytes(b"")
    with pytest.raises(DeviceError, match="uio0 cannot be mapped at 0x0"):
        with connect(str(tmp_path / "uio0"), 1):
            pass
