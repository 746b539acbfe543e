# amaranth: UnusedElaboratable=no
"""The link between a line and a register file of the test: every frame once, or not at all."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from amaranth.sim import Simulator

from secateur.hw.link.link import Link
from secateur.hw.link.stuffing import Stuffer, Unstuffer
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.spec import Geometry
from secateur.hw.verilog import to_verilog
from tests.hw.link.line import CYCLE, Listener, frames, request, send_byte, stuffed

DIVISOR = 4


class Session:
    """Sends bytes and waits for answers; behind the link are 64 registers, of which some refuse.

    Register 0x48 (RESULT) gives 1000, 1001, ...: each value once. 0x44 refuses writes beyond
    ``room``. ``log`` has all accesses as (write, offset, data).
    """

    def __init__(self, seed: int = 0, *, room: int = 1 << 30) -> None:
        self.dut = Link(divisor=DIVISOR)
        self.rng = random.Random(seed)
        self.room = room
        self.log: list[tuple[int, int, int]] = []
        self.given = 1000
        self.listener = Listener(self.dut.tx, DIVISOR)

    async def registers(self, ctx) -> None:
        port = self.dut
        while True:
            await ctx.posedge(port.request.valid)
            await ctx.delay(self.rng.randint(1, 9) * CYCLE)
            ctx.set(port.request.ready, 1)
            _, _, valid, payload = await ctx.tick().sample(port.request.valid, port.request.payload)
            ctx.set(port.request.ready, 0)
            assert valid
            offset, error, data = payload.address << 2, 0, 0xDB00C0 | payload.address
            if payload.write:
                error = offset == 0x44 and self.room <= 0
                self.room -= offset == 0x44
                assert payload.strobe == 0b1111
            elif offset == 0x48:
                error, data = self.given >= 1020, self.given
            if not error:
                self.given += offset == 0x48
                self.log.append((payload.write, offset, payload.data if payload.write else data))
            await ctx.delay(self.rng.randint(1, 9) * CYCLE)
            ctx.set(port.response.payload, {"data": data, "error": error})
            ctx.set(port.response.valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(port.response.ready)
            ctx.set(port.response.valid, 0)

    async def send(self, ctx, line: bytes) -> None:
        for byte in line:
            await send_byte(ctx, self.dut.rx, byte, DIVISOR)

    async def exchange(self, ctx, line: bytes, bits: int = 150) -> list[bytes]:
        """The answers after ``line``, when the link has been silent for ``bits`` bit times."""
        self.listener.got.clear()
        await self.send(ctx, line)
        seen = -1
        while seen != len(self.listener.got):
            seen = len(self.listener.got)
            await ctx.delay(bits * DIVISOR * CYCLE)
        return frames(bytes(self.listener.got))

    def run(self, bench) -> None:
        async def whole(ctx) -> None:
            ctx.set(self.dut.rx, 1)
            await ctx.tick().repeat(20)
            await bench(ctx)

        simulator = Simulator(self.dut)
        simulator.add_clock(CYCLE)
        simulator.add_testbench(whole)
        simulator.add_testbench(self.listener.run, background=True)
        simulator.add_testbench(self.registers, background=True)
        simulator.run()


def words(values) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def test_accesses_and_answers() -> None:
    session = Session(room=2)
    data = [0xC0DBC0DB, 0x00DCDDC0, *range(14)]

    async def bench(ctx) -> None:
        ask = session.exchange
        assert await ask(ctx, request(7, 0, 1, first=True)) == [b"\x07\x40\x81" + words([0xDB00C0])]
        assert await ask(ctx, request(8, 0x40, 16, data)) == [b"\x08\x90\x90"]
        assert session.log[1:] == [(1, 0x40, word) for word in data]
        # as many as there is room for, then a refusal; nothing after it is tried
        assert await ask(ctx, request(9, 0x44, 3, [1, 2, 3])) == [b"\x09\x91\xc2"]
        assert session.log[17:] == [(1, 0x44, 1), (1, 0x44, 2)]
        assert await ask(ctx, request(10, 0x48, 16)) == [b"\x0a\x12\x90" + words(range(1000, 1016))]
        assert await ask(ctx, request(11, 0x48, 16)) == [b"\x0b\x12\xc4" + words(range(1016, 1020))]
        assert await ask(ctx, request(12, 0x48, 1)) == [b"\x0c\x12\xc0"]
        assert await ask(ctx, request(13, 0x14, 0, [])) == [b"\x0d\x85\x80"]

    session.run(bench)


def test_a_repeated_frame_is_obeyed_once_and_answered_again() -> None:
    """The stored answer outlives damaged frames that come between."""
    session = Session()
    reading, writing = request(3, 0x48, 16), request(4, 0x40, 2, [5, 6])
    broken = bytearray(request(5, 0x40, 16, list(range(100, 116))))
    broken[9] ^= 1

    async def bench(ctx) -> None:
        answer = [b"\x03\x12\x90" + words(range(1000, 1016))]
        for line in (reading, reading, broken + reading, reading[:20] + reading):
            assert await session.exchange(ctx, line) == answer
        assert len(session.log) == 16
        for _ in range(3):
            assert await session.exchange(ctx, writing) == [b"\x04\x90\x82"]
        assert session.log[16:] == [(1, 0x40, 5), (1, 0x40, 6)]
        # a first frame is obeyed whatever its number
        for count in (1, 2):
            assert len(await session.exchange(ctx, request(4, 0, 1, first=True))) == 1
            assert len(session.log) == 18 + count
        # the frame with number 0 after a reset is a new one: see the first test of all
        assert await session.exchange(ctx, request(5, 0x48, 1)) == [b"\x05\x12\x81" + words([1016])]

    session.run(bench)


def test_number_zero_is_obeyed_after_reset() -> None:
    session = Session()

    async def bench(ctx) -> None:
        assert await session.exchange(ctx, request(0, 0x40, 1, [9])) == [b"\x00\x90\x81"]
        assert session.log == [(1, 0x40, 9)]

    session.run(bench)


def damaged(line: bytes, rng: random.Random):
    """``line`` with each of its bytes flipped, lost, doubled, or with another before it."""
    for at in range(len(line)):
        flipped = line[at] ^ rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
        yield line[:at] + bytes([flipped]) + line[at + 1 :]
        yield line[:at] + line[at + 1 :]
        yield line[:at] + line[at : at + 1] + line[at:]
        yield line[:at] + rng.randbytes(1) + line[at:]


def test_damage_at_every_byte() -> None:
    """The frame is obeyed as it was meant or not at all; the next is, at the latest repeated."""
    session = Session(1)
    rng = random.Random(2)
    line = request(200, 0x40, 2, [0xC0, 0x123456DB])

    async def bench(ctx) -> None:
        obeyed = late = 0
        for number, bad in enumerate(damaged(line, rng)):
            session.log.clear()
            await session.exchange(ctx, bad, bits=30)
            assert session.log in ([], [(1, 0x40, 0xC0), (1, 0x40, 0x123456DB)]), bad.hex()
            obeyed += bool(session.log)
            good = request(number % 100, 0x30, 1)
            answers = await session.exchange(ctx, good, bits=30)
            if answers == [b"\xc8\x90\x82"]:  # the END in front of this frame was missed there
                late += 1
                answers = await session.exchange(ctx, good, bits=30)
            assert [answer[:3] for answer in answers] == [bytes([number % 100, 0x0C, 0x81])]
        # An END in front that is lost or doubled, a byte before it, and a last END that is doubled
        # do no harm; a last one that is lost ends with the next frame.
        assert (obeyed, late) == (4, 1)

    session.run(bench)


def test_frames_that_are_whole_but_make_no_sense_are_not_answered() -> None:
    session = Session()
    bad = [
        bytes([1, 0, 0x81]),  # an answer
        bytes([1, 0, 0x41]),
        bytes([1, 0x90, 2]) + words([1]),  # a word is missing
        bytes([1, 0x90, 1]) + words([1, 2]),
        bytes([1, 0, 1]) + words([1]),
        bytes([1, 0, 17]),
        bytes([1, 0x90, 17]) + words(range(17)),
        bytes([1, 0x90, 16]) + words(range(40)),
        bytes([1, 0]),
        b"",
    ]

    async def bench(ctx) -> None:
        for content in bad:
            assert await session.exchange(ctx, stuffed(content), bits=60) == [], content
        assert session.log == []
        assert len(await session.exchange(ctx, b"\xc0\xc0\xc0" + request(1, 0, 1))) == 1

    session.run(bench)


def test_a_cut_cable_in_the_middle_of_a_frame() -> None:
    """A line that goes low, or silent, anywhere; then a new host begins."""
    session = Session()
    line = request(9, 0x40, 2, [1, 2])

    async def bench(ctx) -> None:
        for at in range(0, len(line) - 1, 3):
            await session.send(ctx, line[:at])
            if at % 2:
                ctx.set(session.dut.rx, 0)
                await ctx.tick().repeat(333)
                ctx.set(session.dut.rx, 1)
                await ctx.tick().repeat(20)
            assert session.log == []
            (answer,) = await session.exchange(ctx, request(at, 0, 1, first=True), bits=60)
            assert answer[:3] == bytes([at, 0x40, 0x81])
            session.log.clear()

    session.run(bench)


def test_frames_that_come_too_early_are_lost_and_harm_nothing() -> None:
    session = Session()
    first, second = list(range(20, 36)), list(range(50, 66))

    async def bench(ctx) -> None:
        line = request(1, 0x48, 16) + request(2, 0x40, 16, second)
        assert await session.exchange(ctx, line) == [b"\x01\x12\x90" + words(range(1000, 1016))]
        # the words of a frame that is being obeyed are not those of the next
        session.log.clear()
        line = request(3, 0x40, 16, first) + request(4, 0x40, 16, second)
        assert await session.exchange(ctx, line) == [b"\x03\x90\x90"]
        assert session.log == [(1, 0x40, word) for word in first]
        assert await session.exchange(ctx, request(5, 0x40, 1, [7])) == [b"\x05\x90\x81"]
        assert session.log[16:] == [(1, 0x40, 7)]

    session.run(bench)


def test_an_escape_alone_and_a_missing_stop_bit_spoil_a_frame() -> None:
    session = Session()
    line = request(1, 0x40, 1, [7])

    async def bench(ctx) -> None:
        for bad in (line[:-1] + b"\xdb\xc0", b"\xc0\xdb\x01" + line[2:]):
            assert await session.exchange(ctx, bad, bits=60) == []
            assert session.log == []
            assert len(await session.exchange(ctx, request(2, 0, 1, first=True), bits=60)) == 1
            session.log.clear()
        # as does a byte without a stop bit, even one too many
        await session.send(ctx, line[:5])
        await send_byte(ctx, session.dut.rx, 0, DIVISOR, stop=0)
        await ctx.delay(9 * DIVISOR * CYCLE)
        assert await session.exchange(ctx, line[5:], bits=60) == []
        assert session.log == []

    session.run(bench)


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_stuffing_with_back_pressure(stall: float) -> None:
    """Against ``bytes.replace``; a stalled byte stays; the unstuffer gives the items back."""
    rng = random.Random(3)
    dut, back = Stuffer(), Unstuffer()
    contents = [
        bytes(rng.choices([0xC0, 0xDB, 0xDC, 0xDD, 1], k=rng.randrange(9))) for _ in "x" * 40
    ]
    items = []
    for content in contents:
        items += [{"data": byte, "end": 0} for byte in content]
        items.append({"data": rng.randrange(256), "end": 1})
    expected = b"".join(
        c.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0" for c in contents
    )
    line = bytearray()

    async def send(ctx) -> None:
        for item in items:
            if rng.random() < stall:
                await ctx.tick().repeat(rng.randint(1, 4))
            ctx.set(dut.items.payload, item)
            ctx.set(dut.items.valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.items.ready)
            ctx.set(dut.items.valid, 0)

    async def take(ctx) -> None:
        held = None
        while len(line) < len(expected):
            ctx.set(dut.bytes.ready, rng.random() >= stall)
            _, _, valid, ready, byte = await ctx.tick().sample(
                dut.bytes.valid, dut.bytes.ready, dut.bytes.payload
            )
            assert held in (None, byte if valid else -1)
            held = byte if valid and not ready else None
            if valid and ready:
                line.append(byte)

    simulator = Simulator(dut)
    simulator.add_clock(CYCLE)
    simulator.add_testbench(send, background=True)
    simulator.add_testbench(take)
    simulator.run()
    assert line == expected

    got: list[bytearray] = [bytearray()]

    async def decode(ctx) -> None:
        ctx.set(back.valid, 1)
        for byte in line:
            ctx.set(back.data, byte)
            await ctx.delay(1e-7)
            assert not ctx.get(back.broken)
            if ctx.get(back.byte_valid):
                got[-1].append(ctx.get(back.byte))
            if ctx.get(back.end):
                got.append(bytearray())
            await ctx.tick()

    simulator = Simulator(back)
    simulator.add_clock(CYCLE)
    simulator.add_testbench(decode)
    simulator.run()
    assert got == [*contents, b""]


def test_the_frames_of_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "link.md").read_text()
    for name, content in (("request", b"\x07\x48\x01"), ("answer", b"\x07\x48\x81" + bytes(4))):
        (shown,) = re.findall(rf"^{name} +((?:[0-9A-F]{{2}} *)+)$", page, re.MULTILINE)
        assert bytes.fromhex(shown) == stuffed(content)


def test_refusals() -> None:
    geometry = Geometry(n=2, p=1, weight_words=256, bank_words=64)
    with pytest.raises(ValueError, match="divisor must be at least 4 cycles, not 3"):
        UartEngine(geometry, divisor=3)
    with pytest.raises(ValueError, match=r"family must be one of generic, .*, not 'ice'"):
        Link(divisor=4, family="ice")
    with pytest.raises(ValueError, match="divisor must be given for interface 'uart' alone, not 8"):
        to_verilog(geometry, interface="axi", divisor=8)
    with pytest.raises(ValueError, match=r"divisor must be given for .* not None"):
        to_verilog(geometry, interface="uart")
