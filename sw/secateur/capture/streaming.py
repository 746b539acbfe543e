"""A model of windows as a model of frames: each step takes one frame and keeps what it needs.

Every value of the graph of a window that has a time axis becomes its newest column. Layers that
look back, convolutions, pooling and whatever takes the window together, keep their last columns as
a state: the history moves by one column a step.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from secateur.canonical.rewrite import canonicalise
from secateur.capture.columns import (
    Column,
)
from secateur.capture.export import checked, export, in_float32
from secateur.capture.incremental import Incremental
from secateur.capture.outputs import output_nodes
from secateur.capture.ports import inputs_of
from secateur.capture.steps import TOLERANCE, Sequence
from secateur.errors import SecateurError
from secateur.fx.graph import (
    Editor,
)


def streaming(model: nn.Module, window: Tensor, time: int = -1) -> Sequence:
    """A model that takes one frame a step, and keeps on chip what it needs of those before.

    The results are those of the whole window, as soon as it is full. Zeros to the left of a window,
    with which a convolution is padded, are before the first frame of a sequence.

    Parameters
    ----------
    model : takes windows, (N, C, T) or (N, C, H, T), or with time in another dimension
    window : one example, samples first
    time : dimension of the frames

    Returns
    -------
    steps : takes sequences of frames (N, T, features), of any length, and returns the result of
        every step, (N, T, K); ``quantize`` takes it

    Raises
    ------
    SecateurError : the results of a step would need later frames
    """
    model = cast(nn.Module, in_float32(checked(model)))
    window = window.detach()
    time %= window.dim()
    if window.dim() < 3 or time == 0 or window.shape[time] < 2:
        raise SecateurError(
            f"a window of shape {tuple(window.shape)}, time in dimension {time}; give (N, C, T)"
        )
    gm = canonicalise(export(model, window))
    for what, count in (("inputs", len(inputs_of(gm))), ("outputs", len(output_nodes(gm)))):
        if count != 1:
            raise SecateurError(
                f"the model has {count} {what}; stream one with a window and a result"
            )
    found = Incremental(Editor(gm), time).run()
    steps = Sequence(gm, found.shapes, every_step=True)
    _check(model, steps, window, time, found.result)
    return steps


def frames_of(window: Tensor, time: int) -> Tensor:
    """The frames (N, T, features) of windows, whose time is in dimension ``time``."""
    return window.movedim(time, 1).flatten(2)


def _check(
    model: nn.Module, steps: Sequence, window: Tensor, time: int, result: Column | None
) -> None:
    """Compare the steps with the whole window."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        whole, last = model(window), steps(frames_of(window, time))
    model.train(was_training)
    if result is None:
        whole, last = whole.flatten(1), last[:, -1]
    else:
        whole, last = frames_of(whole, result.axis), last[:, result.offset :][:, : result.length]
    if float((whole - last).abs().max()) > TOLERANCE * (float(whole.abs().max()) + 1.0):
        raise SecateurError(
            "frame by frame the model gives another result than over the window: a fault of "
            "Secateur; please report it with the model"
        )
