"""Operations that only move values: slices, permutations, views, concatenations, padding, ...

None of them has a rule of its own. Each is run by PyTorch on the numbers of the values instead of
the values, so what it does is known for every spelling, and chains of moves need no algebra.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from secateur.fx.graph import argument, constant, is_trained, known, refuse

Numbers = npt.NDArray[np.int64]

#: Number of the first value while a move is tried: no constant is as large.
_FIRST = 1 << 40
#: Of ``aten``, all overloads: the result holds values of the arguments, and constants.
_MOVES = frozenset(
    """
    slice select narrow split split_with_sizes chunk unbind unsafe_split unsafe_chunk tensor_split
    hsplit vsplit dsplit
    permute transpose t numpy_T mT adjoint swapaxes swapdims movedim moveaxis
    view reshape _unsafe_view _reshape_alias flatten unflatten unsqueeze squeeze ravel view_as
    reshape_as atleast_1d atleast_2d atleast_3d
    expand expand_as broadcast_to repeat repeat_interleave tile
    flip fliplr flipud roll rot90
    cat concat concatenate hstack vstack dstack stack column_stack row_stack
    pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d _pad_circular _pad_enum
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d
    index_select index unfold im2col diagonal select_scatter slice_scatter
    contiguous clone alias detach lift_fresh_copy
    """.split()  # noqa: SIM905
)


#: Moves that take a shape, and nothing else, of their second argument.
_LIKE = frozenset(["expand_as", "view_as", "reshape_as"])


def is_move(node: object) -> bool:
    """Whether a node only moves values."""
    if not isinstance(node, Node) or node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return is_move(node.args[0])
    return isinstance(node.target, OpOverload) and node.target._opname in _MOVES


def is_size(node: object) -> bool:
    """Whether a node is a size, or computed of sizes."""
    return isinstance(node, Node) and isinstance(node.meta.get("val"), int | torch.SymInt)


def sources_of(node: Node) -> list[Node]:
    """The tensors that a move takes values of."""
    if node.target is operator.getitem:
        return sources_of(cast(Node, node.args[0]))
    if _is_like(node):
        return [cast(Node, node.args[0])]
    return [source for source in node.all_input_nodes if not is_size(source)]


def samples_of(node: Node) -> int | None:
    """The dimension of the samples; None if the batch is fixed, or has no dimension of its own."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    dims = [i for i, size in enumerate(value.shape) if known(size) is None]
    return dims[0] if len(dims) == 1 else None


def with_samples_first(node: Node) -> tuple[Node, int]:
    """Of a tensor with samples in a later dimension, the one that is permuted to it, and the
    dimension; any other tensor itself.
    """
    at, x = samples_of(node) or 0, node.args[0] if node.args else None
    permutes = node.target is torch.ops.aten.permute.default and isinstance(x, Node)
    return (cast(Node, x), at) if at and permutes and samples_of(cast(Node, x)) == 0 else (node, 0)


def _is_like(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._opname in _LIKE


def varying_nodes(graph: Graph) -> set[Node]:
    """Nodes of which the values, and not only the sizes, depend on the input."""
    found: set[Node] = set()
    for node in graph.nodes:
        reads = any(source in found for source in node.all_input_nodes)
        if node.op == "placeholder" or (reads and not is_size(node)):
            found.add(node)
    return found


def adds_constants(node: Node, varying: set[Node]) -> bool:
    """Whether a move brings constants among the values: parameters, or numbers that are not zero.

    Zeros have the code 0 at any scale. Infinities do not count: what reads them, max pooling, never
    takes them.
    """
    if not is_move(node) or node not in varying:
        return False
    fixed = [n for n in sources_of(node) if n not in varying and not _is_index(n)]
    if not all(_is_zero(source) for source in fixed):
        return True
    value = padding_value(node)
    return value is not None and value != 0 and math.isfinite(value)


def padding_value(node: Node) -> float | None:
    """The constant that a move pads with; None if it does not pad with one."""
    at = {torch.ops.aten.pad.default: 3, torch.ops.aten.constant_pad_nd.default: 2}
    index = at.get(node.target)  # type: ignore[call-overload]
    if index is None or (index == 3 and argument(node, 2, "constant") != "constant"):
        return None
    return float(argument(node, index, 0.0))


def _is_zero(node: Node) -> bool:
    gm = cast(GraphModule, node.graph.owning_module)
    return not is_trained(gm, node) and not bool(constant(gm, node).any())


def _is_index(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_floating_point()


@dataclass(frozen=True)
class Moved:
    """What a move results in, without samples.

    Attributes
    ----------
    numbers : of every value, the number of the value that it is, -1 for a constant
    constants : the constants, 0 elsewhere; of the same shape
    """

    numbers: Numbers
    constants: npt.NDArray[np.float64]


def moved(
    node: Node,
    given: Mapping[Node, Moved],
    constant: Callable[[Node], torch.Tensor],
    batch: int | None,
) -> Moved:
    """The numbers of the values that a move results in.

    Parameters
    ----------
    node : the move, or the ``getitem`` of one with several results
    given : the arguments that depend on the input
    constant : the value of an argument that does not
    batch : samples that the graph is fixed to, None for any number

    Raises
    ------
    SecateurError : the move mixes samples
    """
    count = 2 if batch is None else batch
    span = 1 + max((int(g.numbers.max(initial=0)) for g in given.values()), default=0)
    before, after = (
        _run(node, given, constant, count, span, first) for first in (_FIRST, 2 * _FIRST)
    )
    # What does not follow the numbers is a constant.
    if before.ndim == 0 or len(before) != count:
        raise refuse(node, "mixes the samples of a batch", "keep samples in the first dimension")
    follows = before != after
    samples = np.arange(count).reshape(-1, *[1] * (before.ndim - 1)) * span
    numbers = np.where(follows, before - _FIRST - samples, -1).astype(np.int64)
    constants = np.where(follows, 0.0, before)
    own = (numbers[0] == numbers).all() and (constants[0] == constants).all()
    if not own or numbers.max(initial=-1) >= span or numbers.min(initial=0) < -1:
        raise refuse(node, "mixes the samples of a batch", "keep samples in the first dimension")
    return Moved(numbers[0], constants[0])


def _run(
    node: Node, given: Mapping[Node, Moved], constant: Callable[[Node], torch.Tensor], count: int,
    span: int, first: int,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """The move of ``first`` + number + sample * span in place of the values."""

    def argument(source: Node) -> Any:
        if is_size(source):
            return size_of(source, count)
        if source not in given and source.op == "call_function":
            return call(source)
        if source not in given:
            return constant(source)
        numbers, constants = given[source].numbers, given[source].constants
        samples = np.arange(count).reshape(-1, *[1] * numbers.ndim) * span
        filled = np.where(numbers < 0, constants, numbers + samples + first)
        return torch.from_numpy(filled.astype(np.float64))

    def call(move: Node) -> Any:
        if move.target is operator.getitem:
            return call(cast(Node, move.args[0]))[move.args[1]]
        if _is_like(move):
            shape = cast(Node, move.args[1]).meta["val"].shape[1:]
            like = torch.zeros(1).expand(count, *(int(n) for n in shape))
            return cast(Callable[..., Any], move.target)(argument(cast(Node, move.args[0])), like)
        args, kwargs = map_arg(move.args, argument), map_arg(move.kwargs, argument)
        return cast(Callable[..., Any], move.target)(*args, **kwargs)

    result: npt.NDArray[np.float64] = call(node).double().numpy()
    return result


def size_of(node: Node, count: int) -> int:
    """The value of a size in a batch of ``count`` samples."""
    if node.target is torch.ops.aten.sym_size.int and known(node.meta["val"]) is None:
        return count  # no other dimension is of any size
    if (size := known(node.meta["val"])) is not None:
        return size
    args = map_arg(node.args, lambda part: size_of(part, count))
    return int(cast(Callable[..., Any], node.target)(*args))
