"""The side of a bus that faces the register file: one request at a time, and its response."""

from __future__ import annotations

from typing import NamedTuple

from amaranth.hdl import Module, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.soc.registers import ADDRESS_BITS

#: An access: a word ``address`` (byte address / 4), and the data and bytes of a write.
REQUEST = data.StructLayout({"write": 1, "address": ADDRESS_BITS - 2, "data": 32, "strobe": 4})
#: Its end: the data of a read, or ``error``: it was refused.
RESPONSE = data.StructLayout({"data": 32, "error": 1})


class Phase(enum.Enum):
    """States of a bridge."""

    IDLE = 0
    REQUEST = 1
    RESPONSE = 2


class Exchange(NamedTuple):
    """Times of an access: none is on its way; and strobes: it begins, its request has been taken,
    its response has come."""

    idle: Signal
    begins: Signal
    taken: Signal
    answered: Signal


class Bridge(wiring.Component):
    """A slave of a bus that turns accesses into requests.

    Parameters
    ----------
    ports : of the bus, with the directions of a slave, without a prefix

    Members
    -------
    request : Out(stream of REQUEST)  accesses
    response : In(stream of RESPONSE)  one for each request; always taken
    """

    def __init__(self, ports: dict[str, wiring.Member]):
        super().__init__(
            {
                **ports,
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(RESPONSE)),
            }
        )

    def _exchange(self, m: Module, waits) -> Exchange:
        """Make the handshakes of an access that begins while ``waits``, if none is on its way."""
        phase = Signal(Phase)
        found = Exchange(*(Signal(name=name) for name in Exchange._fields))
        m.d.comb += [
            self.request.valid.eq(phase == Phase.REQUEST),
            self.response.ready.eq(1),
            found.idle.eq(phase == Phase.IDLE),
            found.begins.eq(found.idle & waits),
            found.taken.eq(self.request.valid & self.request.ready),
            found.answered.eq((phase == Phase.RESPONSE) & self.response.valid),
        ]
        with m.If(found.begins):
            m.d.sync += phase.eq(Phase.REQUEST)
        with m.If(found.taken):
            m.d.sync += phase.eq(Phase.RESPONSE)
        with m.If(found.answered):
            m.d.sync += phase.eq(Phase.IDLE)
        return found
