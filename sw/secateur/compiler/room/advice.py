"""What would have room for a network that does not fit its target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from secateur.compiler.body import Bodies, make_bodies
from secateur.compiler.room.weights import check_weights
from secateur.compiler.strips.search import Planner
from secateur.errors import SecateurError, TargetTooSmall
from secateur.hw.ring import memory_words
from secateur.hw.spec import MAX_TABLES, Geometry
from secateur.ir import Network
from secateur.target import PRESETS, Target

_BANK_BYTES, _WEIGHT_WORDS = 1 << 16, 1 << 20  # the largest that a geometry may have
_RING_WORDS = 1 << 16


@contextmanager
def advising(network: Network, target: Target) -> Iterator[None]:
    """Refusals of a target that is too small say what would do.

    Raises
    ------
    SecateurError : of what was refused inside, with a remedy
    """
    try:
        yield
    except TargetTooSmall as error:
        advisor, pruning = _Advisor(network), ""
        roomy = replace(target.geometry, weight_words=_WEIGHT_WORDS, ring=0)
        if error.pruning and advisor.words(roomy):
            pruning = f"{error.pruning}, or "
        raise SecateurError(f"{error}: {pruning}{advisor.remedy(target)}") from None


class _Advisor:
    """Plans of a network on other arrays."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.bodies: dict[int, Bodies] = {}

    def remedy(self, target: Target) -> str:
        """The smallest preset that takes the network, or the memories that this array needs."""
        presets = [other for other in PRESETS.values() if _family(other) == _family(target)]
        for other in sorted(presets, key=_size):
            if other.geometry != target.geometry and self.words(other.geometry):
                device = f" ({other.device})" if other.device else ""
                return f"choose target {other.name!r}{device}, the smallest preset with room"
        return self._enlarged(target.geometry)

    def words(self, geometry: Geometry) -> int:
        """Words of the image on an array; 0 if it does not fit."""
        if geometry.n not in self.bodies:
            self.bodies[geometry.n] = make_bodies(self.network, geometry.n)
        bodies = self.bodies[geometry.n]
        try:
            check_weights(bodies.layers, geometry)
            return len(Planner(self.network, geometry).plan(self.network, bodies)[1].words)
        except SecateurError:
            return 0

    def _enlarged(self, small: Geometry) -> str:
        depths = [small.bank_words << more for more in range(17)]
        for depth in [depth for depth in depths if depth * small.n <= _BANK_BYTES]:
            wide = replace(
                small,
                bank_words=depth,
                weight_words=_WEIGHT_WORDS,
                tables=MAX_TABLES,
                extended=True,
            )
            rings = [small.ring << more for more in range(17)] if small.ring else [0]
            rings = [ring for ring in rings if ring <= _RING_WORDS]
            ring, words = next(
                (
                    (ring, -(-found // small.s) * small.s)
                    for ring in rings
                    if (found := self.words(replace(wide, ring=ring)))
                ),
                (0, 0),
            )
            if words:
                wanted = [f"bank_words = {depth}"] if depth > small.bank_words else []
                wanted += [f"ring = {ring}"] if ring > small.ring else []
                wanted += [f"weight_words = {words}"] if words > small.weight_words else []
                wanted += [] if small.tables else [f"tables = {MAX_TABLES}"]
                wanted += [] if small.extended else ["extended = true"]
                return f"make a target with {' and '.join(wanted)}, as no preset has room"
        return f"make the model or its input smaller: no array of {small.n} x {small.p} has room"


def _family(target: Target) -> tuple[bool, bool]:
    """Whether a target is for FPGAs, and whether it has a ring."""
    return target.family != "asic", target.geometry.ring > 0


def _size(target: Target) -> tuple[int, int]:
    geometry = target.geometry
    words = geometry.p * geometry.bank_words * geometry.n
    return geometry.multipliers, words + memory_words(geometry) * geometry.word_bytes
