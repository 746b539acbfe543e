"""The module that an ONNX file becomes: a chain of steps over numbered tensors."""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context
from secateur.capture.onnx.node import OnnxNode, guarded, refuse, shown
from secateur.capture.onnx.operators.quantised import RECHOSEN
from secateur.capture.onnx.operators.windows import terms
from secateur.errors import SecateurError
from secateur.text import name as quoted

#: Samples of which all tensors are to fit at once, a batch of calibration; bytes of a number.
_BATCH, _FLOAT = 64, 4


class _Function(nn.Module):
    """A function as a module: the names of modules are those that messages give."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Any) -> Any:
        return self.run(*inputs)


@dataclass(frozen=True)
class _Step:
    """The layer of a node.

    Attributes
    ----------
    key : name of the module
    inputs, outputs : numbers of the tensors that it takes and makes
    what : the node as messages name it
    terms : operations for each number that it makes
    """

    key: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    what: str
    terms: int


class OnnxModel(nn.Module):
    """A chain of steps over numbered tensors.

    ``layers`` holds the modules by names of ours: ``conv_3`` for node 3 of the file, a Conv. The
    node's own name is the module's ``onnx_label``, escaped. ``notes`` lists differences from the
    file. ``shape`` is that of a sample, 0 where it is not fixed.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.notes = context.notes
        self.shapes = tuple(tuple(context.shapes[name][1:]) for name in context.sources)
        self._limits = context.budget.limits
        self._numbers = {name: number for number, name in enumerate(context.sources)}
        self._count = self._sources = len(context.sources)
        self._steps: list[_Step] = []
        self._results: dict[str, int] = {}
        self._last: dict[int, int] = {}
        #: Tensors without values, to learn the shapes of all others.
        self._tried: dict[int, Any] = dict(enumerate(_tried(context, self.shapes)))
        for shape in self.shapes if self._tried else ():
            size = math.prod(shape) * _FLOAT * _BATCH
            self._limits.check_bytes(size, f"the input: {_BATCH} samples of {shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample of the first input."""
        return self.shapes[0]

    @property
    def quantised(self) -> bool:
        """Whether the file quantises activations, and this module does not."""
        return RECHOSEN in self.notes

    def add(
        self, node: OnnxNode, run: Callable[..., Any], inputs: tuple[str, ...], context: Context
    ) -> None:
        """Append a step that computes the outputs of a node.

        Parameters
        ----------
        node : of a known operator
        run : computes the output, or a tuple of several, of the inputs that are not constant
        inputs : names of these
        context : takes the shapes of the outputs
        """
        module: Any = run if isinstance(run, nn.Module) else _Function(run)
        module.onnx_label = quoted(node.label)
        key = f"{node.op_type.lower()}_{node.index}"
        self.layers[key] = module
        numbers = tuple(self._numbers[name] for name in inputs)
        made = tuple(range(self._count, self._count + len(node.output)))
        self._count += len(made)
        self._steps.append(_Step(key, numbers, made, shown(node), terms(module)))
        self._numbers |= {name: n for name, n in zip(node.output, made, strict=True) if name}
        if all(number in self._tried for number in numbers):
            state = {name: value.to("meta") for name, value in module.state_dict().items()}
            tensors = tuple(self._tried[number] for number in numbers)
            found = _tuple(torch.func.functional_call(module, state, tensors))
            for name, number, tensor in zip(node.output, made, found, strict=False):
                self._tried[number] = tensor
                context.shapes[name] = [int(size) for size in tensor.shape]
                context.measured.add(name)
                if 0 in context.shapes[name] and isinstance(tensor, Tensor):
                    raise refuse(node, "makes a tensor without values", "export the model again")

    def finish(self, context: Context) -> None:
        """Take the outputs of the file; check weights, and with fixed shapes, memory.

        Raises
        ------
        SecateurError : a node's weights are not finite, or its tensors are too large
        """
        for name in context.results:
            if name not in self._numbers or name in context.sizes:
                raise SecateurError(f"output '{quoted(name)}' is constant; export a network")
        for name in context.results:
            key, count = quoted(name), 1
            while key in self._results:  # cut names may be the same
                key, count = f"{quoted(name)}#{count}", count + 1
            self._results[key] = self._numbers[name]
        self._drop_unread()
        for index, step in enumerate(self._steps):
            self._last |= dict.fromkeys((*step.inputs, *step.outputs), index)
        self._last |= dict.fromkeys(self._results.values(), len(self._steps))
        # A sum of many tensors is as many operations.
        count = sum(max(len(step.inputs) - 1, 1) for step in self._steps)
        self._limits.check_steps(count, "the model")
        for step in self._steps:
            for value in self.layers[step.key].state_dict().values():
                bad = value.isnan() if step.key.startswith("where_") else ~value.isfinite()
                if value.is_floating_point() and bool(bad.any()):
                    raise SecateurError(
                        f"{step.what}: weights, or constants that they are multiplied by, that are "
                        f"infinite or NaN; train the model again"
                    )
        self._tried.clear()
        samples = _tried(context, self.shapes)
        if samples:
            state = {name: value.to("meta") for name, value in self.state_dict().items()}
            with torch.no_grad():
                torch.func.functional_call(self, state, samples)
        if any(isinstance(module, nn.RNNBase) for module in self.modules()):
            self.shapes = tuple((0, *shape[1:]) for shape in self.shapes)  # of any length

    def _drop_unread(self) -> None:
        """Drop steps that no output needs."""
        needed, kept = set(self._results.values()), []
        for step in reversed(self._steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                kept.append(step)
            else:
                del self.layers[step.key]
        self._steps = kept[::-1]

    def forward(self, x: Tensor) -> Any:
        """The outputs for samples of ``shape``: a tensor, or several by their names in the file.

        Raises
        ------
        SecateurError : the samples have another shape
        """
        return self.checked(x)

    def checked(self, *inputs: Tensor) -> Any:
        """The outputs for samples of ``shapes``.

        Raises
        ------
        SecateurError : the samples have another shape
        """
        for x, shape in zip(inputs, self.shapes, strict=True):
            given = tuple(x.shape[1:])
            if len(given) != len(shape) or any(
                n not in (0, has) for n, has in zip(shape, given, strict=True)
            ):
                raise SecateurError(
                    f"samples of shape {given}, the ONNX file has {shape} (0: any size)"
                )
        return self.evaluate(*inputs)

    def evaluate(self, *inputs: Tensor) -> Any:
        """The outputs for one tensor or several."""
        tensors: dict[int, Any] = dict(enumerate(inputs))
        alive, work = sum(map(_room, inputs)), 0
        for index, step in enumerate(self._steps):
            with guarded(step.what):
                made = _tuple(self.layers[step.key](*(tensors[number] for number in step.inputs)))
            alive += sum(map(_room, made))
            work += step.terms * sum(map(_fixed, made))
            self._limits.check_bytes(alive, f"{step.what}: all tensors of {_BATCH} samples")
            self._limits.check_work(work, step.what)
            tensors |= zip(step.outputs, made, strict=False)
            for number in {*step.inputs, *step.outputs}:
                if self._last[number] == index and number in tensors:
                    alive -= _room(tensors.pop(number))
        results = {name: tensors[number] for name, number in self._results.items()}
        return results if len(results) > 1 else next(iter(results.values()))


def _tuple(made: Any) -> tuple[Any, ...]:
    return made if isinstance(made, tuple) else (made,)


def _tried(context: Context, shapes: tuple[tuple[int, ...], ...]) -> tuple[Tensor, ...]:
    """Inputs without values: as many samples as the file fixes, two if it has one or any number.

    Inputs that differ in their number of samples are of the shapes in the file. There are none if
    a size is not fixed.
    """
    counts = [context.written[name][:1] for name in context.sources]
    if any(0 in shape for shape in shapes) or [] in counts:
        return ()
    same = all(count == counts[0] for count in counts)
    if not same and [0] in counts:
        return ()
    samples = [max(count[0], 2) if same else count[0] for count in counts]
    types = [torch.int64 if name in context.indices else None for name in context.sources]
    return tuple(
        torch.empty(n, *shape, dtype=dtype, device="meta")
        for n, shape, dtype in zip(samples, shapes, types, strict=True)
    )


def _fixed(tensor: Any) -> int:
    """Numbers of a sample; sizes that are not fixed count as one, and so do numbers of Python."""
    shape = tensor.shape[1:] if isinstance(tensor, Tensor) else ()
    return math.prod(size for size in shape if isinstance(size, int))


def _room(tensor: Any) -> int:
    """Bytes of a tensor in a batch."""
    if isinstance(tensor, np.ndarray):
        return 0
    return _fixed(tensor) * int(tensor.element_size()) * _BATCH


def model_for(context: Context) -> OnnxModel:
    """An empty model whose ``forward`` takes the inputs of a file.

    One is called x. Several have the names of the file, if these can be names of arguments.
    """
    if len(context.sources) == 1:
        return OnnxModel(context)
    names: list[str] = []
    for index, name in enumerate(context.sources):
        plain = re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,39}", name) and not keyword.iskeyword(name)
        names.append(name if plain and name != "self" else f"input{index}")
    if len(set(names)) < len(names):
        names = [f"input{index}" for index in range(len(names))]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])

    def forward(self: OnnxModel, *args: Tensor, **kwargs: Tensor) -> Any:
        return self.checked(*signature.bind(self, *args, **kwargs).args[1:])

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return type("OnnxModel", (OnnxModel,), {"forward": forward})(context)  # type: ignore[no-any-return]
