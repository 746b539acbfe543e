"""Random numbers for code that draws them from the generators of PyTorch, Python and NumPy."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class Randomness:
    """States of the global generators that are used inside of `own`, and kept between its uses.

    What draws inside neither sees nor changes what is drawn outside: a data set with random
    transforms gives the same samples for the same seed, whatever a model draws for its dropout.

    Parameters
    ----------
    seed : of all of them
    """

    def __init__(self, seed: int) -> None:
        self._states: tuple[Any, ...] = (
            torch.Generator().manual_seed(seed).get_state(),
            random.Random(seed).getstate(),
            np.random.RandomState(seed).get_state(),
        )

    @contextmanager
    def own(self) -> Iterator[None]:
        """Use these states."""
        outside = _states()
        _restore(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _restore(outside)


def _states() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _restore(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
