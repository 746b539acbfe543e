"""The driver against a device in software: sessions on a bad line, cut cables, refusals."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from secateur.boards.driver.device import Device, DeviceError
from secateur.boards.driver.link import Decoder, Link, LinkError, encode
from tests.boards.driver.model import (
    BEATS,
    INPUT_WORDS,
    TABLES,
    WEIGHT_WORDS,
    Model,
    N,
    Noise,
    expected,
    make_image,
)

#: Answers without progress: more than the model ever pauses for in a row.
PATIENCE = 50
NOISES = [
    Noise(flip=0.003),
    Noise(lose=0.003),
    Noise(double=0.003),
    Noise(flip=0.002, lose=0.002, double=0.002, cut=0.001),
    Noise(flip=0.02, double=0.02),
]


def session(seed: int, noise: Noise, **faults: bool) -> tuple[str, int]:
    """Loads an image and runs two inferences: right, wrong, or an error that says so; and how many
    requests were repeated."""
    rng = random.Random(seed)
    image = make_image(seed % 5)
    inputs = [rng.randbytes(INPUT_WORDS * N) for _ in range(2)]
    link = Link(Model(noise, seed, **faults), first=seed % 256)
    try:
        device = Device(link, patience=PATIENCE)
        device.load(image)
        device.restart()
        outputs = [device.run(each, BEATS) for each in inputs]
    except (DeviceError, LinkError):
        return "error", link.repeated
    right = outputs == [expected(image, each) for each in inputs]
    return "right" if right else "wrong", link.repeated


def sessions(seeds: range, noise: Noise | None = None, **faults: bool) -> Counter:
    found: Counter = Counter()
    for seed in seeds:
        outcome, repeated = session(seed, noise or NOISES[seed % len(NOISES)], **faults)
        found[outcome] += 1
        found["damaged"] += repeated > 0
    return found


def test_without_noise_nothing_is_repeated() -> None:
    assert sessions(range(5), Noise()) == {"right": 5, "damaged": 0}


def test_a_thousand_noisy_sessions_are_never_wrong() -> None:
    found = sessions(range(1000))
    assert found["wrong"] == 0
    assert found["right"] > 700
    assert found["damaged"] > 930


@pytest.mark.parametrize("fault", ["checks", "remembers"])
def test_a_faulty_device_is_noticed_by_these_sessions(fault: str) -> None:
    """Without its CRC, or its memory of requests, some sessions are not right."""
    found = sessions(range(30), Noise(flip=0.004), **{fault: False})
    right = sessions(range(30), Noise(flip=0.004))
    assert right == {"right": 30, "damaged": 30}
    assert found["wrong"] + found["error"] > 5


def test_a_slow_machine_is_no_dead_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an hour passes between any two looks at the clock."""
    monkeypatch.setattr("time.monotonic", itertools.count(0, 3600).__next__)
    assert sessions(range(20), Noise()) == {"right": 20, "damaged": 0}


def test_a_cable_that_is_cut_in_the_middle_of_a_frame() -> None:
    """The same link goes on when the cable is back, wherever it was cut, on either way."""
    image = make_image(1)
    for at in range(0, 90, 7):
        model = Model()
        link = Link(model, tries=2, first=at)
        device = Device(link, patience=PATIENCE)
        device.load(image)
        device.restart()
        sent = 0
        whole = model.noisy

        def cut(data: bytes) -> bytes:
            nonlocal sent
            kept = data[: max(0, at - sent)]  # noqa: B023
            sent += len(data)
            return kept

        model.noisy = cut
        with pytest.raises(LinkError, match="no answer from the device; check the cable"):
            device.run(bytes(INPUT_WORDS * N), BEATS)
        model.noisy = whole
        with pytest.raises(DeviceError, match=r"does not (take the in|give the res|end the)"):
            # what is left of the interrupted inference is not taken for a result
            device.run(b"\1" * (INPUT_WORDS * N + 4), BEATS)
        device.restart()
        inputs = random.Random(at).randbytes(INPUT_WORDS * N)
        assert device.run(inputs, BEATS) == expected(image, inputs)


def test_old_answers_are_not_taken_for_new_ones() -> None:
    model = Model()
    link = Link(model, first=9)
    model.answer(bytes([9, 0x40, 0x81]) + b"old!")  # before the session: thrown away
    model.out += bytes(10_000)
    model.dead = len(encode(bytes([9, 0x40, 1])))  # what begins the session is lost
    assert link.read(0) == [int.from_bytes(b"SECT", "little")]
    assert link.repeated == 1
    for content in (
        bytes([10, 0x03, 0x81]) + b"old!",  # the number before
        bytes([11, 0x02, 0x81]) + b"old!",  # another register
        bytes([11, 0x03, 0x01]) + b"old!",  # a request
        bytes([11, 0x03, 0x82]) + b"old!old!",  # more than was asked for
        bytes([11, 0x03, 0x81]) + b"old",
        bytes([11, 0x03, 0x80]),  # fewer, and no refusal
        bytes([11, 0x03]),
    ):
        model.answer(content)
    assert link.read(0x0C) == [WEIGHT_WORDS]


def test_a_line_that_never_falls_silent_is_given_up() -> None:
    class Babble(Model):
        in_waiting = 1

        def read(self, size: int) -> bytes:
            return self.rng.randbytes(size)

    with pytest.raises(LinkError, match="no answer from the device"):
        Link(Babble(), tries=2).read(0)


def test_a_loop_is_no_device() -> None:
    class Loop(Model):
        def write(self, data: bytes) -> int:
            self.out += data
            return len(data)

    for write in (False, True):
        link = Link(Loop(), tries=2)
        link._begun = write
        with pytest.raises(LinkError, match="no answer"):
            link.write(0x18, [1]) if write else link.read(0)


def test_frames_that_the_line_has_damaged_are_not_decoded() -> None:
    content = bytes([0xC0, 0xDB, 0xDC, 0xDD, 0x00])
    line = encode(content)
    assert line.count(b"\xc0") == 2
    assert Decoder().feed(line + line) == [content, content]
    for at in range(1, len(line) - 1):
        for bad in (line[:at] + line[at + 1 :], line[:at] + b"\xdb" + line[at:]):
            if bad != line:
                assert Decoder().feed(bad + line[1:]) in ([content], [])
                assert Decoder().feed(bad + line)[-1:] == [content]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 4}, "compiled for 4x3, the device is 8x3; compile the model for it"),
        ({"p": 2}, "compiled for 8x2, the device is 8x3"),
        ({"words": WEIGHT_WORDS + 1}, "513 words of weight memory, the device has 512"),
        ({"bank_words": 512}, "512 words per bank, the device has 256"),
        ({"tables": TABLES + 1}, "5 activation tables, the device has 4"),
    ],
)
def test_an_image_that_does_not_fit_is_not_sent(fields: dict, message: str) -> None:
    model = Model()
    device = Device(Link(model))
    requests = model.requests
    with pytest.raises(DeviceError, match=message):
        device.load(make_image(0, **fields))
    assert model.requests == requests


def test_refusals_of_the_engine_have_reasons() -> None:
    image = bytearray(make_image(0))
    model = Model()
    device = Device(Link(model), patience=PATIENCE)
    with pytest.raises(DeviceError, match="the device holds no image; load one first"):
        device.run(bytes(INPUT_WORDS * N), BEATS)
    with pytest.raises(DeviceError, match="not an image: 10 bytes, a header alone has 24"):
        device.load(image[:10])
    with pytest.raises(DeviceError, match=r"version is not the engine's \(VERSION\)"):
        device.load(make_image(0, version=9))
    image[100] ^= 1
    with pytest.raises(DeviceError, match=r"its CRC-32 is wrong: it was altered \(CRC\)"):
        device.load(bytes(image))
    with pytest.raises(DeviceError, match=r"stopped on the image"):
        device.run(bytes(INPUT_WORDS * N), BEATS)
    image[100] ^= 1
    with pytest.raises(
        DeviceError, match="does not check the image: nothing has changed in 50 answers"
    ):
        device.load(bytes(image[:-8]))
    device.load(bytes(image))
    device.restart()
    with pytest.raises(DeviceError, match=r"does not give the result but waits for more input"):
        device.run(bytes(INPUT_WORDS * N - 4), BEATS)
    device.restart()
    with pytest.raises(
        DeviceError, match="does not end the inference: nothing has changed in 50 answers"
    ):
        device.run(bytes(INPUT_WORDS * N), BEATS - 1)
    device.restart()
    assert device.run(bytes(INPUT_WORDS * N), BEATS) == expected(bytes(image), bytes(160))
    model.upset = 1
    with pytest.raises(DeviceError, match="weight memory has changed since the image"):
        device.run(bytes(INPUT_WORDS * N), BEATS)


def test_other_devices() -> None:
    class Other(Model):
        wrong: dict[int, int]

        def get(self, offset: int) -> bytes | None:
            word = self.wrong.get(offset, -1)
            return super().get(offset) if word < 0 else word.to_bytes(4, "little")

    Other.wrong = {0: 7}
    with pytest.raises(DeviceError, match="the device answers, but is not a Secateur engine"):
        Device(Link(Other()))
    Other.wrong = {4: 1 | 99 << 8}
    with pytest.raises(DeviceError, match="the device has register map 99, this Secateur drives 2"):
        Device(Link(Other()))
    with pytest.raises(ValueError, match="tries must be at least 1, not 0"):
        Link(Model(), tries=0)
    with pytest.raises(ValueError, match="count must be 0 to 16, not 17"):
        Link(Model()).read(0, 17)


def test_an_inference_of_someone_else_is_noticed() -> None:
    model = Model()
    device = Device(Link(model))
    device.load(make_image(0))
    device.restart()
    model.cycles = model.inferences = 65535
    device.run(bytes(INPUT_WORDS * N), BEATS)

    class Twice(Model):
        def get(self, offset: int) -> bytes | None:
            return bytes([2 * self.inferences, 0, 0, 0]) if offset == 0x28 else super().get(offset)

    device = Device(Link(Twice()))
    device.load(make_image(0))
    device.restart()
    with pytest.raises(DeviceError, match="2 inferences have ended instead of one, or results"):
        device.run(bytes(INPUT_WORDS * N), BEATS)


@pytest.mark.parametrize("rom", [False, True])
def test_an_image_of_equal_cycles_is_another_image(rom: bool) -> None:
    """Twenty pairs: whatever the device holds, only the image that it accepted is said to be."""
    images = [make_image(seed, cycles=1000) for seed in range(21)]
    for held, other in itertools.pairwise(images):
        model = Model(rom=held if rom else b"")
        device = Device(Link(model))
        device.load(held)
        device.check_holds(held)
        with pytest.raises(DeviceError, match="the device holds another image, with CRC-32"):
            device.check_holds(other)
        if rom:
            with pytest.raises(DeviceError, match="build the board with this one"):
                device.load(other)
        device.restart()
        assert device.run(bytes(160), BEATS) == expected(held, bytes(160))


def test_a_device_without_an_image_holds_none() -> None:
    device = Device(Link(Model()))
    with pytest.raises(DeviceError, match="the device holds no image; load one first"):
        device.check_holds(make_image(0))
    assert "IMAGE_CRC" not in device.info()
    device.load(make_image(0))
    crc = int.from_bytes(make_image(0)[20:24], "little")
    assert device.info()["IMAGE_CRC"] == {"VALUE": crc}


def test_a_rom_needs_no_loading() -> None:
    image = make_image(3)
    model = Model(rom=image)
    device = Device(Link(model))
    requests = model.requests
    device.load(image)
    assert model.requests < requests + 5
    device.restart()
    assert device.run(bytes(160), BEATS) == expected(image, bytes(160))
    info = device.info()
    assert info["GEOMETRY"] == {"N": N, "P": 3, "TABLES": TABLES, "ROM": 1, "S": 1}
    assert info["STATUS"]["STATE"] == 2
    assert info["WEIGHT_WORDS"] == {"VALUE": WEIGHT_WORDS}
    assert "RESULT" not in info
    assert "SCRUBS" not in info  # the model is older
    assert "IMAGE" not in info
