"""The state of the issue stage."""

from __future__ import annotations

from amaranth.hdl import Signal
from amaranth.lib import enum


class State(enum.Enum):
    """States of the issue stage."""

    IDLE = 0  # no image yet, or the banks are being wiped
    RUN = 1  # words issue
    SETUP = 2  # registers settle, the layer is checked; the layer before lands
    OFFSETS = 3  # a LOAD waits for the window offsets
    CLEAR = 4
    INPUT = 5  # takes words from the host
    LANDING = 6  # waits for writes to land, entries of tables among them
    ERROR = 7


#: Cycles of SETUP: the register file is written in the second, its checks are known in the fourth.
SETUP_CYCLES = 4


class Flow:
    """The state, and flip-flops beside it for conditions with a high fan-out.

    ``last`` is the last cycle of a state; ``left`` counts down to it.
    """

    def __init__(self):
        self.state = Signal(State)
        self.run = Signal()
        self.settles = Signal()
        self.takes = Signal()
        self.clears = Signal()
        self.fills = Signal()  # LANDING of entries of tables
        self.loading = Signal()  # SETUP of a LOAD
        self.opening = Signal()  # SETUP of a layer from which on words of the next input are taken
        self.ending = Signal()  # the layer gives the last results
        self.left = Signal(17)
        self.last = Signal()

    @property
    def ended(self):
        """The first cycle in which a word may issue behind the last layer."""
        return self.ending & self.run

    def go(self, state: State) -> list:
        """Assignments that enter ``state``; ``left`` and ``last`` are set elsewhere, if at all."""
        return [
            self.state.eq(state),
            self.run.eq(state is State.RUN),
            self.settles.eq(state is State.SETUP),
            self.takes.eq(state is State.INPUT),
            self.clears.eq(state is State.CLEAR),
        ]

    def enter(self, state: State, cycles, one) -> list:
        """Assignments that enter a state for some time.

        Parameters
        ----------
        state : the next state
        cycles : how long it lasts
        one : whether that is 1 cycle
        """
        return [*self.go(state), self.left.eq(cycles), self.last.eq(one)]
