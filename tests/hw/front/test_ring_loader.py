"""The loader of a ring: what it refuses, what it keeps of which pass, and what it finds changed."""

from __future__ import annotations

import random
import zlib

import pytest
from amaranth.sim import Simulator

from secateur.hw import ring, spec
from secateur.hw.front.ring.loader import RingLoader
from secateur.hw.spec import Error, Geometry
from tests.hw.front.test_loader import image_of

GEOMETRY = Geometry(n=8, p=3, weight_words=256, bank_words=16, ring=64)
SIZE = GEOMETRY.word_bytes
HEAD = GEOMETRY.header_words


class Bench:
    """A loader whose ring is freed at once, or a group every ``pace`` cycles."""

    def __init__(self, geometry: Geometry, passes, *, scrub: bool = True, pace: int = 0) -> None:
        """``passes``: images, one after the other; None is a flush of 70 cycles."""
        self.geometry, self.passes, self.pace = geometry, passes, pace
        self.dut = RingLoader(geometry=geometry, scrub=scrub)
        self.writes: list[tuple[int, int]] = []
        self.filled = self.taken = 0
        self.gap: list[int] = []  # cycles without a byte taken behind each pass
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        for process in (self._watch, self._free):
            simulator.add_testbench(process, background=True)
        simulator.add_testbench(self._send)
        simulator.run()

    async def _send(self, ctx) -> None:
        dut, rng = self.dut, random.Random(0)
        for image in self.passes:
            if image is None:
                ctx.set(dut.flush, 1)
                await ctx.tick().repeat(70)
                ctx.set(dut.flush, 0)
                continue
            for at, byte in enumerate(image):
                if self.pace and rng.random() < 0.2:
                    ctx.set(dut.image.valid, 0)
                    await ctx.tick()
                ctx.set(dut.image.payload, byte)
                ctx.set(dut.image.valid, 1)
                ready, waited = False, -1
                while not ready and waited < 4000:
                    _, _, ready = await ctx.tick().sample(dut.image.ready)
                    waited += 1
                if not ready:
                    break
                self.taken += 1
                if at == 0:
                    self.gap.append(waited)
        ctx.set(dut.image.valid, 0)
        await ctx.tick().repeat(12)
        self.error = Error(ctx.get(dut.error))
        names = ("accepted", "loading", "upset", "scrubs", "last", "first", "limit", "full")
        self.end = {name: ctx.get(getattr(dut, name)) for name in names}

    async def _watch(self, ctx) -> None:
        dut = self.dut
        async for _, _, en, at, word, filled in ctx.tick().sample(
            dut.write_en, dut.write_addr, dut.write_data, dut.filled
        ):
            if en:
                self.writes.append((at, word))
            self.filled += filled

    async def _free(self, ctx) -> None:
        free = HEAD // self.geometry.s
        ctx.set(self.dut.free, free)
        while self.pace:
            for _ in range(self.pace):
                await ctx.tick()
            if free < HEAD // self.geometry.s + self.filled:
                free += 1
                ctx.set(self.dut.free, free % (2 * self.geometry.ring))


def words(image: bytes, begin: int = HEAD) -> list[int]:
    data = spec.words_of(bytes(image), SIZE)
    return data[begin:]


def with_mark(at: int = 3) -> bytearray:
    """An image whose program has a LOOP mark in word ``at``, and later what looks like one."""
    image = image_of(GEOMETRY, 12)
    commons = {word: 0 for word in range(12)} | {at: spec.INDEX_LOOP, at + 2: spec.COMMON_LOAD | 1}
    commons |= {at + 4: spec.INDEX_LOOP}
    for word, common in commons.items():
        image[(HEAD + word) * SIZE + SIZE - 1] = common
    return with_right_crc(image)


def with_right_crc(image: bytearray) -> bytearray:
    image[spec.HEADER_CRC_OFFSET : spec.HEADER.size] = bytes(4)
    crc = zlib.crc32(image).to_bytes(4, "little")
    image[spec.HEADER_CRC_OFFSET : spec.HEADER.size] = crc
    return image


@pytest.mark.parametrize("scrub", [True, False])
def test_keeps_every_pass_but_the_first(scrub: bool) -> None:
    """The pass that is checked writes nothing; the second one begins behind the header, all others
    behind the mark."""
    image = with_mark()
    found = Bench(GEOMETRY, [image] * 4, scrub=scrub)
    assert (found.error, found.end["accepted"], found.end["loading"]) == (Error.NONE, 1, 0)
    assert (found.end["upset"], found.end["scrubs"]) == (0, 3)
    assert (found.end["first"], found.end["limit"]) == (HEAD + 4, 0xDEADBEEF)
    assert found.end["last"] == HEAD + 11
    whole, later = words(image), words(image, HEAD + 4)
    expected = whole + later + later
    assert [word for _, word in found.writes] == expected
    assert [at for at, _ in found.writes] == [(HEAD + i) % 64 for i in range(len(expected))]
    assert found.filled == len(expected)
    assert found.gap[1:] == [ring.PASS_CYCLES] * 3


def test_passes_begin_with_a_group_of_their_own() -> None:
    """With two banks a pass of an odd number of words leaves a slot out; its last group counts."""
    geometry = Geometry(n=8, p=3, s=2, weight_words=256, bank_words=16, ring=64)
    image = image_of(geometry, 4)
    assert (HEAD, len(words(image))) == (3, 4)
    found = Bench(geometry, [image] * 3)
    assert [at for at, _ in found.writes] == [3, 4, 5, 6, 9, 10, 11, 12]
    assert found.filled == 2 * len([3, 5, 6])


def test_waits_for_slots() -> None:
    """A ring that nobody frees takes its words and one word less a byte; it goes on at any pace."""
    image = image_of(GEOMETRY, 100)
    found = Bench(GEOMETRY, [image, image])
    assert [word for _, word in found.writes] == words(image)[: GEOMETRY.ring]
    assert found.end["full"] == 1
    assert found.taken == len(image) + (HEAD + GEOMETRY.ring + 1) * SIZE - 1
    for pace in (3, 30):
        slow = Bench(GEOMETRY, [image] * 3, pace=pace)
        assert [word for _, word in slow.writes] == words(image) * 2


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"version": 1}, Error.VERSION),
        ({"n": 4}, Error.GEOMETRY),
        ({"words": 257}, Error.LENGTH),
        ({"words": 3}, Error.LENGTH),
        ({"bank_words": 32}, Error.BANK),
    ],
)
@pytest.mark.parametrize("scrub", [True, False])
def test_refuses_a_header_while_it_arrives(fields: dict, error: Error, scrub: bool) -> None:
    found = Bench(GEOMETRY, [image_of(GEOMETRY, 4, **fields)], scrub=scrub)
    assert found.error == error
    assert (found.end["accepted"], found.writes) == (0, [])
    assert found.taken <= spec.HEADER.size + 3


@pytest.mark.parametrize("at", [7, 16, 20, 24, 40, 62])
def test_refuses_another_crc(at: int) -> None:
    image = image_of(GEOMETRY, 4)
    image[at] ^= 0x01
    found = Bench(GEOMETRY, [image, image])
    assert (found.error, found.writes, found.taken) == (Error.CRC, [], len(image))


@pytest.mark.parametrize("at", [0, 5, 9, 13, 17, 20, 26, 27, 40, 62])
@pytest.mark.parametrize("scrub", [True, False])
def test_finds_a_bit_of_a_later_pass(at: int, scrub: bool) -> None:
    """Also of the header, which changes nothing; passes that follow are kept, the upset stays."""
    image = image_of(GEOMETRY, 4)
    wrong = bytearray(image)
    wrong[at] ^= 1 << at % 8
    assert Bench(GEOMETRY, [image, image], scrub=scrub).end["upset"] == 0
    found = Bench(GEOMETRY, [image, wrong, image], scrub=scrub)
    assert (found.error, found.end["upset"], found.end["scrubs"]) == (Error.NONE, 1, 2)
    assert found.end["limit"] == 0xDEADBEEF
    assert [word for _, word in found.writes] == words(wrong) + words(image)


@pytest.mark.parametrize("cut", [0, 1, 20, 40, 80, 117])
def test_a_flush_drops_the_pass_that_is_under_way(cut: int) -> None:
    """The next one is again the first: it begins behind the header, at its slot."""
    image = with_mark()
    assert len(image) == 135
    found = Bench(GEOMETRY, [image, image, image[:cut], None, image[cut:], image])
    later = words(image, HEAD + 4)
    kept = later[: max(0, cut // SIZE - HEAD - 4)]
    fresh = [*words(image), *later] if cut == 0 else words(image)
    assert [word for _, word in found.writes] == words(image) + kept + fresh
    at = len(words(image)) + len(kept)
    assert found.writes[at][0] == HEAD
    assert (found.end["upset"], found.end["scrubs"]) == (0, 3)


def test_needs_a_ring() -> None:
    with pytest.raises(ValueError, match="geometry must have a ring, not Geometry"):
        RingLoader(geometry=Geometry(n=8, p=3, weight_words=64, bank_words=16))
