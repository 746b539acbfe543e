"""Factors of least error, of what the tensors hold on calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from secateur.quantisation.balance.ties import Ties, log_factor
from secateur.quantisation.fake_quantise import BINS, CANDIDATES, ActivationFakeQuantize

#: Factors are tried in steps of 2 ** (1 / STEPS).
STEPS = 16
_SWEEPS = 4
#: Noise by signal at steps that are finer than any that is considered.
_WORST = 1.0


class Histograms(Interpreter):
    """Runs a float graph and counts magnitudes of stored values.

    Parameters
    ----------
    gm : the graph
    signs : the stored nodes, and whether their codes are unsigned
    channels : nodes of which the largest magnitude of every channel is kept

    Attributes
    ----------
    of : statistics of the stored nodes
    peaks : (C,), of ``channels``
    """

    def __init__(self, gm: GraphModule, signs: dict[Node, bool], channels: Iterable[Node]) -> None:
        super().__init__(gm)
        self._channels, self.peaks = set(channels), dict[Node, Tensor]()
        self.of = {
            node: ActivationFakeQuantize(
                quant_min=0 if unsigned else -128, quant_max=255 if unsigned else 127
            )
            for node, unsigned in signs.items()
        }

    def run_node(self, n: Node) -> Any:
        """Also observe the value of a stored node."""
        value = super().run_node(n)
        if n in self.of:
            self.of[n].observe(value)
        if n in self._channels:
            peak = value.abs().movedim(1, 0).flatten(1).amax(1)
            self.peaks[n] = torch.maximum(peak, self.peaks.get(n, peak))
        return value


class Noise:
    """Noise by signal of a tensor's rounding and clipping, at steps of codes finer than octaves.

    Parameters
    ----------
    observed : with a histogram
    """

    def __init__(self, observed: ActivationFakeQuantize) -> None:
        counts = observed.histogram.double().cpu().numpy()
        top = int(observed.range_exponent)
        values = (np.arange(BINS) + 0.5) / BINS
        power = float((counts * values**2).sum())
        bits = 8 if observed.quant_min == 0 else 7
        #: Logarithm of the largest step, in parts of an octave.
        self.largest = (top - bits + 1) * STEPS
        count = (CANDIDATES + 2) * STEPS
        self._errors, self.least = np.zeros(count), [0.0] * STEPS
        self.dead = power == 0.0
        if self.dead:
            return
        for index in range(count):
            step = 2.0 ** ((self.largest - index) / STEPS - top)
            excess = np.maximum(values - observed.quant_max * step, 0.0)
            inside = excess < step / 2
            clipped = (counts * excess**2)[~inside].sum()
            self._errors[index] = (clipped + counts[inside].sum() * step**2 / 12) / power

        #: Of factors of the fractions of an octave, with the best scale for each.
        self.least = [
            min(self.at(exponent * STEPS - ahead) for exponent in self.exponents(ahead))
            for ahead in range(STEPS)
        ]

    def exponents(self, ahead: int) -> tuple[int, int]:
        """Those of the best scales behind a factor, of which this is the logarithm."""
        # A step of 2**e behind a factor is one of 2**(e - log factor) before it.
        highest = -(-(self.best() + ahead) // STEPS)
        return highest - 1, highest

    def at(self, step: int) -> float:
        """Noise by signal at a step, of which this is the logarithm."""
        index = self.largest - step
        if self.dead:
            return 0.0
        if index < 0:
            return float(self._errors[0] * 4.0 ** (-index / STEPS))
        return float(self._errors[index]) if index < len(self._errors) else _WORST

    def best(self) -> int:
        """The step of least noise."""
        return self.largest - int(np.argmin(self._errors))


def choose(ties: Ties, noises: dict[Node, Noise], groups: list[list[Node]]) -> dict[Node, float]:
    """Base-2 logarithms of the factors that are free.

    Parameters
    ----------
    ties : between them
    noises : of every stored tensor
    groups : tensors that share an exponent
    """
    free = ties.free()
    chosen = {node: 0 for node in free}
    sums = {node: ties.sum(node) for node in noises}
    touched = {
        node: [group for group in groups if any(node in sums[member] for member in group)]
        for node in free
    }

    def noise(group: list[Node]) -> float:
        at = [(noises[m], log_factor(sums[m], chosen)) for m in group if not noises[m].dead]
        if len(at) < 2:
            return sum(n.least[ahead % STEPS] for n, ahead in at)
        exponents = {exponent for n, ahead in at for exponent in n.exponents(ahead)}
        return min(sum(n.at(e * STEPS - ahead) for n, ahead in at) for e in exponents)

    def total(node: Node) -> float:
        return sum(noise(group) for group in touched[node])

    for group in (group for group in groups if len(group) > 1):
        live = [member for member in group if not noises[member].dead]
        fixed = [-(-noises[member].best() // STEPS) for member in live if not sums[member]]
        for member in (member for member in live if member in chosen):
            chosen[member] = max(fixed, default=0) * STEPS - noises[member].best()
    for _ in range(_SWEEPS):
        before = dict(chosen)
        for node in free:
            now, least = chosen[node], total(node) * (1 - 1e-9)
            best = now
            for change in _changes(STEPS):
                chosen[node] = now + change
                found = total(node)
                if found < least:
                    best, least = now + change, found
            chosen[node] = best
        if chosen == before:
            break
    return {node: log / STEPS for node, log in chosen.items()}


def _changes(most: int) -> list[int]:
    return [sign * size for size in range(1, most) for sign in (1, -1)]
