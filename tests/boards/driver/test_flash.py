"""Updates of an image in flash: the new one counts once it is whole, whenever the power goes."""

from __future__ import annotations

import random

import pytest

from secateur.boards.driver.device import Device, DeviceError
from secateur.boards.driver.flash import update
from secateur.boards.driver.link import Link
from tests.boards.driver import flash_model
from tests.boards.driver.flash_model import CHOICE, FIRST, SECOND, SECTOR, Board, Flash, PowerCut
from tests.boards.driver.model import WAITING, Model, make_image

IMAGES = [make_image(seed, words=470 + 10 * seed) for seed in range(4)]


def flash(image: bytes = IMAGES[0], choice: bytes = b"", seed: int = 0) -> Flash:
    """With an image that counts: the second where ``choice`` has an odd number of bytes."""
    found = Flash(b"", seed)
    found.memory[CHOICE : CHOICE + len(choice)] = choice
    at = SECOND if len(choice) % 2 else FIRST
    found.memory[at : at + len(image)] = image
    return found


def held(chip: Flash) -> bytes:
    """The image that counts after power-up."""
    chip.asleep, chip.busy, chip.left, chip.sent = True, 0, None, bytearray()
    board = Board(chip)
    return bytes(board.image)


class Registers:
    """A board's registers without a line between."""

    repeated = 0

    def __init__(self, board: Board) -> None:
        self.board = board

    def read(self, offset: int, count: int = 1) -> list[int]:
        found = [self.board.get(offset) for _ in range(count)]
        return [int.from_bytes(word, "little") for word in found if word is not None]

    def write(self, offset: int, words: list[int]) -> int:
        return sum(self.board.put(offset, word.to_bytes(4, "little")) for word in words)


def device(chip: Flash) -> Device:
    return Device(Registers(Board(chip)))  # type: ignore[arg-type]


def test_over_the_link() -> None:
    chip = flash()
    update(Device(Link(Board(chip), first=0)), IMAGES[1])
    assert held(chip) == IMAGES[1]


@pytest.mark.parametrize("written", [0, SECTOR - 4])
def test_images_take_turns(written: int) -> None:
    chip = flash(choice=bytes(written))
    assert held(chip) == IMAGES[0]
    for image in (*IMAGES[1:], IMAGES[0]):
        seen: list[tuple[str, int, int, str]] = []
        there, choice = bytes(chip.memory), chip.memory[CHOICE : CHOICE + SECTOR]
        old = SECOND if choice.index(0xFF) % 2 else FIRST
        update(device(chip), image, lambda *step, seen=seen: seen.append(step))
        assert held(chip) == image
        assert {what: done for what, done, *_ in seen} == dict.fromkeys(
            ("erase", "write", "compare"), len(image)
        )
        assert {whole for *_, whole, _ in seen} == {len(image)}
        # What counted before is still there.
        assert chip.memory[old : old + 2 * SECTOR] == there[old : old + 2 * SECTOR]


@pytest.mark.parametrize(("choice", "cuts"), [(b"", 50), (b"\0", 10), (bytes(SECTOR - 2), 10)])
def test_power_cut_at_any_point(choice: bytes, cuts: int) -> None:
    """Old or new, and then whole; and the next update succeeds."""
    whole = flash(choice=choice)
    assert held(whole) == IMAGES[0]
    update(device(whole), IMAGES[1])
    assert held(whole) == IMAGES[1]
    points = random.Random(len(choice))
    found = []
    for seed in range(cuts):
        chip = flash(choice=choice, seed=seed)
        chip.left = points.randrange(1, whole.changes + 1)
        with pytest.raises(PowerCut):
            update(device(chip), IMAGES[1])
        found.append(IMAGES.index(held(chip)))
        update(device(chip), IMAGES[2])
        assert held(chip) == IMAGES[2]
    assert set(found) <= {0, 1}
    assert found.count(0) > cuts / 2


@pytest.mark.parametrize("point", range(3))
def test_power_cut_while_it_is_decided(point: int) -> None:
    """The byte that says which image counts is written in part, or not at all."""
    whole = flash()
    update(device(whole), IMAGES[1])
    seen = set()
    for seed in range(8):
        chip = flash(seed=8 * point + seed)
        chip.left = whole.changes
        with pytest.raises(PowerCut):
            update(device(chip), IMAGES[1])
        seen.add(IMAGES.index(held(chip)))
    assert seen <= {0, 1}


@pytest.mark.parametrize("where", [FIRST + SECTOR - 9, SECOND + 77, CHOICE])
def test_a_flash_that_does_not_keep_what_is_written(where: int) -> None:
    """Then the old image counts; one that is written elsewhere is not concerned."""
    chip = flash()
    chip.stuck = {where}
    if where < SECOND and where != CHOICE:
        update(device(chip), IMAGES[1])
        assert held(chip) == IMAGES[1]
        return
    said = "which image counts" if where == CHOICE else "what was written, from byte 0 on"
    with pytest.raises(DeviceError, match=f"the flash does not (keep|hold) {said}"):
        update(device(chip), IMAGES[1])
    assert held(chip) == IMAGES[0]


def test_an_interrupted_update_gives_the_lines_back() -> None:
    chip = flash()
    board = Board(chip)

    def interrupt(what: str, done: int, whole: int, note: str) -> None:
        if what == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(Device(Link(board, first=0)), IMAGES[1], interrupt)
    assert not board.held
    assert held(chip) == IMAGES[0]


def test_an_update_that_is_interrupted_while_the_flash_is_busy() -> None:
    """The engine reads it again when it is ready, and has the image that counts."""
    chip = flash(seed=1)
    board = Board(chip)

    class Interrupted(Registers):
        def read(self, offset: int, count: int = 1) -> list[int]:
            if chip.changes == 3 and chip.busy and not self.over:
                self.over = True
                raise KeyboardInterrupt
            return super().read(offset, count)

        over = False

    link = Interrupted(board)
    with pytest.raises(KeyboardInterrupt):
        update(Device(link), IMAGES[1])  # type: ignore[arg-type]
    assert link.over
    assert (bytes(board.image), board.state) == (IMAGES[0], WAITING)


def test_a_large_flash() -> None:
    """Of 64 MiB, whose number does not follow those below."""
    chip = flash()
    chip.name = b"\xef\x40\x20"
    update(device(chip), IMAGES[1])
    assert held(chip) == IMAGES[1]


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"not in a flash with room for two; write flash.bin"):
        update(Device(Link(Model(), first=0)), IMAGES[1])
    chip = flash()
    with pytest.raises(DeviceError, match="the image does not fit: compiled for 4x3, the device"):
        update(device(chip), make_image(1, n=4))
    chip.name = b"\xff\xff\xff"
    with pytest.raises(DeviceError, match="no flash answers on the board's lines"):
        update(device(chip), IMAGES[1])
    chip.name = b"\xef\x40\x0f"
    with pytest.raises(
        DeviceError, match="flash has 32,768 bytes, and the second image begins at 32,768; write"
    ):
        update(device(chip), IMAGES[1])
    chip.name = b"\xef\x40\x10"
    monkeypatch.setattr(flash_model, "FIRST", SECOND - 1024)
    with pytest.raises(DeviceError, match=r"an image may have 1,024 bytes in this flash, not 4,2"):
        update(device(chip), IMAGES[0])
    assert chip.changes == 0
