"""Encoder and decoder: weights of any shape and sparsity come back from the image's stream."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.image.decode import decode
from tests.support.pipeline import build, compile_for, target


@settings(max_examples=25)
@given(
    inputs=st.integers(1, 19),
    outputs=st.integers(1, 21),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    kept=st.floats(0, 1),
    whole_blocks=st.booleans(),
    array=st.sampled_from([(2, 1), (4, 3), (8, 4), (16, 2)]),
    seed=st.integers(0, 2**16),
)
def test_weights_come_back(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    kept: float,
    whole_blocks: bool,
    array: tuple[int, int],
    seed: int,
) -> None:
    """Blocks or single weights are zero; some matrices are all zeros, some have none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, dilation=dilation)
        unit = array[0] if whole_blocks else 1
        mask = torch.rand(-(-outputs // unit), inputs, *kernel) < kept
        with torch.no_grad():
            conv.weight.mul_(mask.repeat_interleave(unit, 0)[:outputs])
        x = torch.rand(2, inputs, 9, 8)
    built = build(nn.Sequential(conv), x)
    (found,) = decode(compile_for(built, target(*array)))
    (source,) = built.network.layers[0].sources
    np.testing.assert_array_equal(found.dense(), source.weight)
