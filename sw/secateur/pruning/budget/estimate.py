"""What a model would take on each board at several densities, before anything trains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from secateur.compiler.prepare import runnable
from secateur.compiler.strips.search import Planner
from secateur.errors import SecateurError, TargetTooSmall
from secateur.hw.spec import Geometry
from secateur.ir import Layer, Network
from secateur.lowering.lower import lower
from secateur.progress import Progress, silent
from secateur.quantisation.calibration import Calibration, Model
from secateur.quantisation.prepare import quantize

DENSITIES = (1.0, 0.5, 0.25, 0.125)
#: Kinds of layers whose blocks are pruned.
_PRUNED = ("conv", "depthwise", "linear")
#: Weight memory in which every network is planned; what the board has is compared afterwards.
_ROOM = 1 << 20


@dataclass(frozen=True)
class Engine:
    """An engine on a board.

    Attributes
    ----------
    name : of the board
    geometry : of the engine
    mhz : its clock
    """

    name: str
    geometry: Geometry
    mhz: float


@dataclass(frozen=True)
class Estimate:
    """A model on a board at a density.

    Attributes
    ----------
    engine : and the board that it is on
    density : share of the blocks of every layer that stays
    cycles : per inference, exact for these blocks; None if the banks are too small
    words : of the weight memory; None likewise
    problem : why it does not fit; None: it does
    """

    engine: Engine
    density: float
    cycles: int | None
    words: int | None
    problem: str | None

    @property
    def milliseconds(self) -> float | None:
        """Per inference; None if it does not fit."""
        if self.problem is not None or self.cycles is None:
            return None
        return self.cycles / (1000 * self.engine.mhz)


def estimate(
    model: Model,
    example: Calibration,
    engines: Iterable[Engine],
    *,
    densities: Sequence[float] = DENSITIES,
    progress: Progress = silent,
) -> list[Estimate]:
    """Cycles of a model on engines, with one share of the blocks of every layer, by magnitude.

    The model is quantised once, and planned and encoded for each array as ``compile`` does it.
    Which blocks training would keep is not known: a pruned network takes about as many cycles as
    another of the same densities.

    Parameters
    ----------
    model, example : as for `secateur.quantize`
    engines : to compare
    densities : shares of the blocks, above 0, to 1
    progress : called after every engine, with its board as the note

    Returns
    -------
    list : by engine, then by density

    Raises
    ------
    SecateurError : the array cannot run the model, or a density is out of range
    """
    for density in densities:
        if not 0 < density <= 1:
            raise SecateurError(f"density must be above 0 and at most 1, not {density!r}")
    network = lower(quantize(model, example))
    known: dict[tuple[Geometry, float], tuple[int, int] | str] = {}
    rows = []
    found = list(engines)
    for done, engine in enumerate(found):
        roomy = replace(engine.geometry, weight_words=_ROOM)
        for density in densities:
            if (roomy, density) not in known:
                known[roomy, density] = _planned(network, roomy, density)
            rows.append(_row(engine, density, known[roomy, density]))
        progress("estimate", done + 1, len(found), engine.name)
    return rows


def _row(engine: Engine, density: float, planned: tuple[int, int] | str) -> Estimate:
    if isinstance(planned, str):
        return Estimate(engine, density, None, None, planned)
    cycles, words = planned
    room = engine.geometry.weight_words
    problem = None if words <= room else f"the image takes {words:,} of {room:,} words"
    return Estimate(engine, density, cycles, words, problem)


def _planned(network: Network, geometry: Geometry, density: float) -> tuple[int, int] | str:
    """Cycles and words; or why the network does not fit the banks."""
    thinned = replace(network, layers=[_thinned(x, geometry.n, density) for x in network.layers])
    try:
        placed = runnable(thinned, geometry)
        _, encoded = Planner(placed, geometry).plan(placed, check_depth=False)
    except TargetTooSmall as error:
        return str(error)
    return encoded.cycles, len(encoded.words)


def _thinned(layer: Layer, n: int, density: float) -> Layer:
    if layer.kind not in _PRUNED or density == 1:
        return layer
    sources = [replace(s, weight=_strongest(s.weight, n, density)) for s in layer.sources]
    return replace(layer, sources=sources)


def _strongest(weight: npt.NDArray[np.int64], n: int, density: float) -> npt.NDArray[np.int64]:
    """The weights of the blocks of the largest L2 norms; zero elsewhere.

    Parameters
    ----------
    weight : (output channels, ...)
    n : output channels of a block
    density : share of the blocks
    """
    flat = weight.reshape(len(weight), -1)
    padded = np.pad(flat, ((0, -len(flat) % n), (0, 0)))
    norms = (padded.reshape(-1, n, flat.shape[1]).astype(np.float64) ** 2).sum(axis=1)
    kept = np.zeros(norms.size, bool)
    kept[np.argsort(-norms, axis=None, kind="stable")[: max(1, round(density * norms.size))]] = True
    mask = kept.reshape(norms.shape).repeat(n, axis=0)[: len(flat)]
    return np.where(mask, flat, 0).reshape(weight.shape)
