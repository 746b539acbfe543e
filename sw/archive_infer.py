"""What a graph from a file computes: found by running its operators on shapes alone."""

from __future__ import annotations

import math
import operator
from typing import Any, cast

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from secateur.errors import SecateurError
from secateur.graph import name_of
from secateur.limits import Limits
from secateur.support import unsupported
from secateur.text import printable

#: Operators of aten that a file may use, in place or not: those of layers, of arithmetic and of
#: shapes. None reads files, and all check their arguments.
_ATEN = """
_assert_tensor_metadata _native_batch_norm_legit_no_training _to_copy _unsafe_view _weight_norm
_weight_norm_interface abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d
adaptive_max_pool2d add addmm alias amax amin atan avg_pool1d avg_pool2d batch_norm bmm cat ceil
celu chunk clamp clamp_max clamp_min clone concat concatenate constant_pad_nd contiguous conv1d
conv2d conv3d conv_transpose1d conv_transpose2d convolution copy cos cumsum detach div dot dropout
einsum elu eq erf exp expand feature_dropout flatten flip floor full full_like ge gelu group_norm
gru gru_cell gt hardshrink hardsigmoid hardswish hardtanh index_select instance_norm layer_norm le
leaky_relu lift_fresh_copy linalg_vector_norm linear log log_sigmoid log_softmax logsumexp lstm
lstm_cell lt masked_fill matmul max max_pool1d max_pool2d max_pool2d_with_indices maximum mean min
minimum mish mm mul mv narrow ne neg norm ones ones_like pad permute pixel_shuffle pixel_unshuffle
pow prelu reciprocal reflection_pad1d reflection_pad2d relu relu6 repeat replication_pad1d
replication_pad2d reshape rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll round rrelu
rsqrt rsub scaled_dot_product_attention select selu sigmoid silu sin slice softmax softplus
softshrink split split_with_sizes sqrt square squeeze stack std std_mean sub sum sym_size t tanh
threshold to transpose type_as unbind unflatten unsqueeze upsample_bicubic2d upsample_bilinear2d
upsample_linear1d upsample_nearest1d upsample_nearest2d var var_mean view where zeros zeros_like
"""
_QUANTISED = """
quantize_per_tensor dequantize_per_tensor quantize_per_channel dequantize_per_channel
"""
_READ = {
    "aten": frozenset(_ATEN.split()),
    "quantized_decomposed": frozenset(_QUANTISED.split()),
}


def infer(program: ExportedProgram, limits: Limits) -> None:
    """Give each node of a program the shape and type that its operator computes.

    Parameters
    ----------
    program : changed in place: what it says of values that are computed is replaced
    limits : on the bytes of each value

    Raises
    ------
    SecateurError : an operator that is not read, one that refuses its arguments, or a value that
        is too large
    """
    nodes = list(program.graph.nodes)
    mode = next(n.meta["val"].fake_mode for n in nodes if n.op == "placeholder")
    for node in nodes:
        if node.op == "call_function":
            if not _is_read(node.target):
                raise unsupported(node)
            node.meta["val"] = _run(node, mode)
        elif node.op == "output":
            node.meta["val"] = map_arg(node.args[0], lambda n: n.meta["val"])
        _check_size(node, limits)


def _is_read(target: object) -> bool:
    if not isinstance(target, OpOverload):
        return target is operator.getitem
    known = target._opname.removesuffix("_") in _READ.get(target.namespace, ())
    return known and not target._overloadname.endswith("out")


def _run(node: Node, mode: Any) -> Any:
    values = [map_arg(a, lambda n: n.meta["val"]) for a in (node.args, node.kwargs)]
    try:
        with mode, torch.no_grad():
            return cast(Any, node.target)(*values[0], **values[1])
    except Exception as error:  # whatever an operator says of arguments that do not fit
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SecateurError(
            f"{name_of(node)}: torch refuses its arguments: {printable(lines[0], 300)}; export the "
            f"model again"
        ) from None


def _check_size(node: Node, limits: Limits) -> None:
    value = node.meta.get("val")
    for tensor in value if isinstance(value, list | tuple) else [value]:
        if isinstance(tensor, torch.Tensor):
            sizes = [n if isinstance(n, int) else n.node.hint or 1 for n in tensor.shape]
            limits.check_bytes(math.prod(sizes) * tensor.element_size(), name_of(node))
