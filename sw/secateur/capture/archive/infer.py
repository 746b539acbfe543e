"""Shapes and types in a graph from a file, inferred by running its operators on shapes alone."""

from __future__ import annotations

import math
import operator
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.canonical.supported import check_layers, unsupported
from secateur.capture.export import quiet
from secateur.disk.limits import Limits
from secateur.fx.graph import name_of, refuse
from secateur.text import first_line

#: Operators of aten that a file may use, in place or not: those of layers, of arithmetic and of
#: shapes, on values or on weights. None reads files, and all check their arguments.
_ATEN = """
_assert_tensor_metadata _native_batch_norm_legit_no_training _pad_circular _pad_enum _reshape_alias
_to_copy _unsafe_view _upsample_nearest_exact1d _upsample_nearest_exact2d _weight_norm
_weight_norm_interface abs acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
adaptive_max_pool1d adaptive_max_pool2d add addmm addmv adjoint alias amax amin arange argmax argmin
asin atan atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bmm
broadcast_to cat ceil celu channel_shuffle chunk clamp clamp_max clamp_min clip clone column_stack
concat concatenate conj conj_physical constant_pad_nd contiguous conv1d conv2d conv3d
conv_transpose1d conv_transpose2d convolution copy cos cosh cumsum detach diag diag_embed diagonal
div dot dropout dsplit dstack einsum elu embedding eq erf erfc exp expand expand_as expm1 eye
feature_dropout flatten flip fliplr flipud floor fmod frobenius_norm full full_like ge gelu ger glu
group_norm gt hardshrink hardsigmoid hardswish hardtanh hsplit hstack im2col index_select
instance_norm layer_norm le leaky_relu lift_fresh_copy linalg_cross linalg_householder_product
linalg_matrix_exp linalg_norm linalg_vector_norm linear log log10 log1p log2 log_sigmoid log_softmax
logical_and logical_not logical_or logsumexp lt mH mT masked_fill matmul matrix_exp max max_pool1d
max_pool2d max_pool2d_with_indices max_pool3d maximum mean min minimum mish mm moveaxis movedim mul
mv narrow native_batch_norm native_channel_shuffle native_group_norm native_layer_norm ne neg
new_full new_ones new_zeros norm ones ones_like outer pad permute pixel_shuffle pixel_unshuffle pow
prelu prod ravel reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder
repeat replication_pad1d replication_pad2d replication_pad3d reshape reshape_as resolve_conj
resolve_neg rms_norm roll rot90 round row_stack rrelu rsqrt rsub scalar_tensor select selu sgn
sigmoid sign silu sin sinh slice softmax softplus softshrink split split_with_sizes sqrt square
squeeze stack std std_mean sub sum swapaxes swapdims sym_size t tan tanh tensor_split threshold tile
to transpose tril triu trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d var
var_mean vdot view view_as vsplit vstack where zeros zeros_like
"""
_QUANTISED = """
quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel
"""
_READ = {
    "aten": frozenset(_ATEN.split()),
    "quantized_decomposed": frozenset(_QUANTISED.split()),
}
#: Arithmetic of sizes that are symbols; and how far it goes, for torch multiplies sums out.
_OF_SIZES = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
_OPERATIONS = 32
#: Tensors that one operator may return.
_PARTS = 1 << 16
_OF_WEIGHTS = (
    "an operation on weights that is not supported in files",
    "make them plain tensors before the export, by torch.nn.utils.parametrize."
    "remove_parametrizations",
)


def infer(program: ExportedProgram, limits: Limits) -> None:
    """Give each node of a program the shape and type that its operator computes.

    Parameters
    ----------
    program : changed in place: the file's shapes and types of computed values are replaced
    limits : on the bytes of each value

    Raises
    ------
    SecateurError : an operator is not supported in files, refuses its arguments, or makes a value
        that is too large
    """
    check_layers(program.graph_module)
    nodes = list(program.graph.nodes)
    mode = next(n.meta["val"].fake_mode for n in nodes if n.op == "placeholder")
    given = set(program.graph_signature.user_inputs)
    active = {node for node in nodes if node.name in given}
    with quiet():
        for node in nodes:
            if any(n in active for n in node.all_input_nodes):
                active.add(node)
            if node.op == "call_function":
                if not _is_read(node.target):
                    raise unsupported(node) if node in active else refuse(node, *_OF_WEIGHTS)
                node.meta["val"] = _run(node, mode)
            elif node.op == "output":
                node.meta["val"] = map_arg(node.args[0], lambda n: n.meta["val"])
            _check_size(node, limits)


def _is_read(target: object) -> bool:
    if not isinstance(target, OpOverload):
        return target is operator.getitem or target in _OF_SIZES
    known = target._opname.removesuffix("_") in _READ.get(target.namespace, ())
    tensors = all(str(r.type) in ("Tensor", "List[Tensor]") for r in target._schema.returns)
    usual = target is torch.ops.aten.sym_size.int or tensors
    return known and usual and not target._overloadname.endswith("out")


def _run(node: Node, mode: Any) -> Any:
    args: Any = map_arg(node.args, lambda n: n.meta["val"])
    kwargs: Any = map_arg(node.kwargs, lambda n: n.meta["val"])
    target = cast(Any, node.target)
    try:
        if target in _OF_SIZES and not all(isinstance(a, int | torch.SymInt) for a in args):
            raise TypeError("arithmetic of values that are not sizes")
        if isinstance(target, OpOverload) and _parts(target, args) > _PARTS:
            raise ValueError(f"more than {_PARTS:,} parts of a tensor")
        with mode, torch.no_grad():
            return target(*args, **kwargs)
    except Exception as error:  # operators raise all kinds on arguments that do not fit
        reason = f"torch refuses its arguments: {first_line(error)}"
        raise refuse(node, reason, "export it again") from None


def _parts(target: OpOverload, args: tuple[Any, ...]) -> int:
    """A bound on the tensors that an operator returns."""
    several = any(str(r.type) == "List[Tensor]" for r in target._schema.returns)
    whole = args[0] if several and args and isinstance(args[0], torch.Tensor) else None
    return max((_hint(size) for size in whole.shape), default=1) if whole is not None else 1


def _check_size(node: Node, limits: Limits) -> None:
    value = node.meta.get("val")
    for part in value if isinstance(value, list | tuple) else [value]:
        if isinstance(part, torch.Tensor):
            size = math.prod(_hint(n) for n in part.shape) * part.element_size()
            limits.check_bytes(size, name_of(node))
        large = isinstance(part, int) and abs(part) >= 2**63
        if large or (isinstance(part, torch.SymInt) and _operations(part) > _OPERATIONS):
            raise refuse(node, "a size out of range", "export it again")


def _hint(size: int | torch.SymInt) -> int:
    """A size; of a symbol, its value in the example."""
    return size if isinstance(size, int) else int(size.node.hint or 1)


def _operations(size: torch.SymInt) -> int:
    return int(size.node.expr.count_ops())
