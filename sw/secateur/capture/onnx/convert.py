"""ONNX models as PyTorch modules: the forms that exporters write for networks of the array.

Convolutions, dense layers and batch norms become modules of their own, so that they can be pruned
and trained like any others. Tensors stay as the file has them, channels first; a Transpose is
refused, with a remedy for the export. Names of the file are labels: no module is called by them,
since torch.export writes the names of modules into code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context, context_of
from secateur.capture.onnx.file import read_onnx
from secateur.capture.onnx.fold import fold
from secateur.capture.onnx.layers import LAYERS, RECURRENT_LAYERS, REFUSED
from secateur.capture.onnx.node import OnnxNode, guarded, refuse, shown
from secateur.capture.onnx.quantised import RECHOSEN, moved
from secateur.capture.onnx.values import Array, Budget
from secateur.capture.onnx.windows import terms
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.text import name as quoted

__all__ = ["OnnxModel", "convert_onnx", "load_onnx", "read_onnx"]

#: Samples of which all tensors are to fit at once, a batch of calibration; bytes of a number.
_BATCH, _FLOAT = 64, 4


class _Function(nn.Module):
    """A function as a module: the names of modules are those that messages give."""

    def __init__(self, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)


@dataclass(frozen=True)
class _Step:
    """The layer of a node.

    Attributes
    ----------
    key : name of the module
    inputs : numbers of the tensors that it takes
    what : the node as messages name it
    terms : operations for each number that it makes
    """

    key: str
    inputs: tuple[int, ...]
    what: str
    terms: int


class OnnxModel(nn.Module):
    """A chain of steps over numbered tensors, with one output; the array needs one input.

    ``layers`` holds the modules by names of ours: ``conv_3`` for node 3 of the file, a Conv. The
    node's own name is the module's ``onnx_label``, escaped. ``notes`` lists differences from the
    file. ``shape`` is that of a sample, 0 where it is not fixed.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.notes = context.notes
        self.shape = tuple(context.shapes[context.sources[0]][1:])
        self._limits = context.budget.limits
        self._numbers = {name: number for number, name in enumerate(context.sources)}
        self._sources = len(context.sources)
        self._steps: list[_Step] = []
        self._result = 0
        self._last: dict[int, int] = {}

    @property
    def quantised(self) -> bool:
        """Whether the file quantises activations, and this module does not."""
        return RECHOSEN in self.notes

    def add(self, node: OnnxNode, run: Callable[..., Tensor], inputs: tuple[str, ...]) -> None:
        """Append a step that computes the first output of a node.

        Parameters
        ----------
        node : of a known operator
        run : computes the output of the inputs that are not constant
        inputs : names of these
        """
        module: Any = run if isinstance(run, nn.Module) else _Function(run)
        module.onnx_label = quoted(node.label)
        key = f"{node.op_type.lower()}_{node.index}"
        self.layers[key] = module
        numbers = tuple(self._numbers[name] for name in inputs)
        self._steps.append(_Step(key, numbers, shown(node), terms(module)))
        self._numbers[node.output[0]] = self._sources + len(self._steps) - 1

    def finish(self, result: str) -> None:
        """Take the tensor ``result`` as output; check weights, and with a fixed shape, all shapes.

        Raises
        ------
        SecateurError : a node's weights are not finite, or its inputs do not fit
        """
        if result not in self._numbers:
            raise SecateurError(f"output '{quoted(result)}' is constant; export a network")
        self._result = self._numbers[result]
        for index, step in enumerate(self._steps):
            self._last |= dict.fromkeys((*step.inputs, self._sources + index), index)
        self._last[self._result] = len(self._steps)
        # A sum of many tensors is as many operations.
        count = sum(max(len(step.inputs) - 1, 1) for step in self._steps)
        self._limits.check_steps(count, "the model")
        for step in self._steps:
            for value in self.layers[step.key].state_dict().values():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise SecateurError(
                        f"{step.what}: weights, or constants that they are multiplied by, that are "
                        f"infinite or NaN; train the model again"
                    )
        if self._sources == 1 and 0 not in self.shape:
            size = math.prod(self.shape) * _FLOAT * _BATCH
            self._limits.check_bytes(size, f"the input: {_BATCH} samples of {self.shape}")
            state = {name: value.to("meta") for name, value in self.state_dict().items()}
            sample = torch.empty(2, *self.shape, device="meta")
            torch.func.functional_call(self, state, (sample,))

    def forward(self, x: Tensor) -> Tensor:
        """The output for samples of ``shape``.

        Raises
        ------
        SecateurError : the samples have another shape
        """
        given = tuple(x.shape[1:])
        if len(given) != len(self.shape) or any(
            n not in (0, has) for n, has in zip(self.shape, given, strict=True)
        ):
            raise SecateurError(
                f"samples of shape {given}, the ONNX file has {self.shape} (0: any size)"
            )
        return self.evaluate(x)

    def evaluate(self, *inputs: Tensor) -> Tensor:
        """The output for one tensor or several."""
        tensors = dict(enumerate(inputs))
        alive, work = sum(map(_room, inputs)), 0
        for index, step in enumerate(self._steps):
            with guarded(step.what):
                made = self.layers[step.key](*(tensors[number] for number in step.inputs))
            alive += _room(made)
            work += step.terms * _fixed(made)
            self._limits.check_bytes(alive, f"{step.what}: all tensors of {_BATCH} samples")
            self._limits.check_work(work, step.what)
            tensors[self._sources + index] = made
            for number in {*step.inputs, self._sources + index}:
                if self._last[number] == index:
                    alive -= _room(tensors.pop(number))
        return tensors[self._result]


def _fixed(tensor: Tensor) -> int:
    """Numbers of a sample; sizes that are not fixed count as one."""
    return math.prod(size for size in tensor.shape[1:] if isinstance(size, int))


def _room(tensor: Tensor) -> int:
    """Bytes of a tensor in a batch."""
    return _fixed(tensor) * tensor.element_size() * _BATCH


def load_onnx(path: Path | str, *, limits: Limits = DEFAULT) -> OnnxModel:
    """Read an ONNX file as a module in float.

    Parameters
    ----------
    path : the file
    limits : bounds of the file, of its constants and of its tensors

    Raises
    ------
    SecateurError : the file is not an ONNX model, the package onnx is missing, or an operator, or
        a form of one, is not supported
    """
    model = read_onnx(path, limits=limits)
    try:
        return convert_onnx(model, limits=limits)
    except SecateurError as error:
        raise SecateurError(f"{path}: {error}") from None


def convert_onnx(
    model: Any,
    constants: dict[str, Array] | None = None,
    *,
    keep: bool = False,
    inputs: int = 1,
    limits: Limits = DEFAULT,
) -> OnnxModel:
    """An ``onnx.ModelProto`` as a module.

    Parameters
    ----------
    model : the model
    constants : binds further inputs of the graph
    keep : quantise activations where the model does; by default it is left to calibration
    inputs : how many the module takes; the array takes one
    limits : of nodes, of constants and of tensors

    Raises
    ------
    SecateurError : as `load_onnx`; with ``keep``, a scale is not a power of two
    """
    context = context_of(model, constants or {}, Budget(limits), inputs, keep)
    result = OnnxModel(context)
    # Recurrent layers first: exporters write other operators for their states before them.
    for node in sorted(context.nodes, key=lambda node: node.op_type not in RECURRENT_LAYERS):
        with guarded(shown(node)):
            _convert(node, context, result)
    result.finish(context.result)
    return result.eval()


def _convert(node: OnnxNode, context: Context, result: OnnxModel) -> None:
    dynamic = tuple(name for name in node.input if name and name not in context.known)
    if not dynamic:
        inputs = [context.known.get(name) for name in node.input]
        made = fold(node, inputs, context.version, context.budget)
        context.known |= zip(node.output, made, strict=True)
        return
    convert = None if node.domain else (LAYERS | REFUSED).get(node.op_type)
    if convert is None:
        raise refuse(node, "is not supported", f"supported are {', '.join(sorted(LAYERS))}")
    for name in node.output[1:]:
        if node.op_type in LAYERS and name in context.readers:
            what = f"has a second output, '{quoted(name)}', that is read"
            raise refuse(node, what, "export without it")
    run = convert(node, context)
    moved(node, context)
    result.add(node, run, dynamic)
