"""The C driver against the device in software: which image does it hold?"""

from __future__ import annotations

import ctypes

import pytest

from tests.boards.driver.model import Model, make_image
from tests.support.c_driver import BAD_IMAGE, OK, OTHER_IMAGE, REFUSED, Device, compile_driver


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    file = tmp_path_factory.mktemp("driver") / "driver.so"
    compile_driver(file)
    return ctypes.CDLL(str(file))


class Opened:
    """A device that the driver has opened; ``lost`` is what a bus reads that hides refusals."""

    def __init__(self, driver: ctypes.CDLL, model: Model, lost: bytes | None = None) -> None:
        def read(_: object, offset: int, value) -> int:  # type: ignore[no-untyped-def]
            word = model.get(offset) or lost
            value[0] = int.from_bytes(word or b"", "little")
            return int(word is None)

        def write(_: object, offset: int, value: int) -> int:
            return int(not model.put(offset, value.to_bytes(4, "little")))

        self.driver, self.device = driver, Device()
        self.callbacks = Device.READ(read), Device.WRITE(write)
        polls = ctypes.c_uint32(1000)
        assert driver.secateur_open(self.at, None, *self.callbacks, polls) == OK

    @property
    def at(self):  # type: ignore[no-untyped-def]
        return ctypes.byref(self.device)

    def load(self, image: bytes | None) -> int:
        size = ctypes.c_size_t(len(image or b""))
        return int(self.driver.secateur_load(self.at, image, size))

    def check(self, image: bytes) -> int:
        size = ctypes.c_size_t(len(image))
        return int(self.driver.secateur_check_holds(self.at, image, size))


def test_a_rom_holds_the_image_or_another(driver: ctypes.CDLL) -> None:
    held, other = (make_image(seed, cycles=1000) for seed in (1, 2))
    model = Model(rom=held)
    opened = Opened(driver, model)
    assert opened.device.rom == 1
    assert opened.load(held) == OK
    assert opened.load(None) == OK
    assert opened.load(other) == OTHER_IMAGE
    assert opened.load(other[:23]) == BAD_IMAGE


def test_the_image_that_is_loaded_is_the_one_that_is_held(driver: ctypes.CDLL) -> None:
    one, other = (make_image(seed, cycles=1000) for seed in (1, 2))
    opened = Opened(driver, Model())
    assert opened.check(one) == REFUSED
    assert opened.load(one) == OK
    assert opened.check(one[:24]) == OK
    assert opened.check(one[:23]) == BAD_IMAGE
    assert opened.check(other) == OTHER_IMAGE


def test_no_image_is_held_where_the_bus_hides_refusals(driver: ctypes.CDLL) -> None:
    image = make_image(1, cycles=1000)
    opened = Opened(driver, Model(), lost=image[20:24])
    assert opened.check(image) == REFUSED
    assert opened.load(image) == OK
    assert opened.check(image) == OK
