"""What the array cannot run is refused in one line that names the node and a rewrite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from secateur.capture.export import export, is_converted
from secateur.errors import SecateurError
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import quantize
from tests.support.network_blocks import Call
from tests.support.networks import random_input

MAPS, VECTOR = (4, 8, 8), (12,)


def call(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A convolution, then ``function``."""
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Call(function))


with torch.no_grad():
    POSITIVE = nn.Conv2d(4, 4, 1)
    POSITIVE.weight.zero_()
    POSITIVE.bias.fill_(1.0)  # type: ignore[union-attr]


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x, x, x)[0]
        return result


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...], str, str]] = {
    "softmax": (call(lambda x: F.softmax(x.flatten(1), 1) + 0), MAPS, "softmax", "very end"),
    "size": (
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.LocalResponseNorm(4)),
        MAPS,
        "layer '1' (node avg_pool3d",
        "use Conv2d",
    ),
    "cast": (
        call(lambda x: x.double() + 1),
        MAPS,
        "computes in torch.float64",
        "float32",
    ),
    "attention": (Attends(), (7, 8), "layer 'inner' (MultiheadAttention)", "recurrent"),
    "attention of a layer": (
        nn.Sequential(nn.Conv1d(7, 7, 1), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        (7, 8),
        "layer '1' (TransformerEncoderLayer): attention",
        "use convolutions",
    ),
    "attention function": (
        Call(lambda x: F.scaled_dot_product_attention(x, x, x)),
        (7, 8),
        "attention is not supported",
        "use convolutions",
    ),
    "sort": (call(lambda x: x.sort(1)[0]), MAPS, "sort", "use Conv2d"),
    "no number": (
        nn.Sequential(POSITIVE, Call(lambda x: torch.sqrt(x * x - 0.25))),
        MAPS,
        "is not a number for some",
        "clamp(min=...) before it",
    ),
    "division by zero": (call(lambda x: x / 0), MAPS, "not a finite number", "its constants"),
    "matrix": (call(lambda x: x @ x), MAPS, "all depend on the input", "one of two a parameter"),
    "einsum": (
        call(lambda x: torch.einsum("nchh,oc->no", x, torch.ones(4, 4))),
        MAPS,
        "'nchh,oc->no'",
        "every label once",
    ),
    "one sample": (
        nn.Conv2d(4, 4, 3),
        MAPS[1:],
        "input of shape (N, 8, 8)",
        "samples first: x[None]",
    ),
    "one sample, to Linear": (
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 2)),
        MAPS[1:],
        "cannot capture Sequential for (4, 8, 8), samples first",
        "must take tensors",
    ),
    "one of two inputs": (TwoInputs(), MAPS, "takes 2 inputs, not one tensor", "in a tuple"),
    "branching": (call(lambda x: x if x.sum() > 0 else -x), MAPS, "cannot capture", "control flow"),
    "only padding": (nn.MaxPool2d(2, 1, 1, 9), MAPS, "padding alone", "less padding"),
    "layer norm": (call(lambda x: F.layer_norm(x, x.shape[1:])), MAPS, "layer_norm", "BatchNorm2d"),
    "batch view": (
        call(lambda x: x.reshape(-1, 2)),
        MAPS,
        "mixes the samples of a batch",
        "in the first dimension",
    ),
    "rank": (nn.Conv3d(4, 4, 3), (4, 8, 8, 8), "no such operation", "use Conv2d"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    model, shape, reason, remedy = REFUSED[name]
    with pytest.raises(SecateurError) as caught:
        lower(quantize(model.eval(), random_input(1, shape, 4)))
    message = str(caught.value)
    assert reason in message
    assert remedy in message
    assert "\n" not in message


def test_what_torch_prints_of_a_branch_is_kept_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SecateurError, match="control flow"):
        quantize(REFUSED["branching"][0], random_input(1, MAPS, 4))
    assert capfd.readouterr() == ("", "")


def test_training_mode_is_refused() -> None:
    x = random_input(1, MAPS, 4)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).train()
    with pytest.raises(SecateurError, match=r"BatchNorm in training mode; call model.eval\(\)"):
        quantize(torch.export.export(model, (x,)), x)
    dropout = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Dropout()).train()
    with pytest.raises(
        SecateurError, match=r"dropout in training mode; .*model.eval\(\).*training="
    ):
        quantize(torch.export.export(dropout, (x,)), x)


def test_decomposed_program_is_refused() -> None:
    x = random_input(1, MAPS, 4)
    program = torch.export.export(nn.Conv2d(4, 4, 3).eval(), (x,)).run_decompositions()
    with pytest.raises(SecateurError, match=r"convolution\).*without run_decompositions"):
        quantize(program, x)


def _viewed(x: Tensor) -> Tensor:
    flat = x.view(x.shape[0], 4, 1, 64)
    x.relu_()
    return flat


def test_in_place_through_a_view_of_a_graph_is_refused() -> None:
    """Of a module, torch gives every write a result of its own when it is exported."""
    model = call(_viewed).requires_grad_(False)
    graph = torch.export.export(model, (random_input(1, MAPS, 4),)).module()
    with pytest.raises(SecateurError, match="in place a tensor that is also used through a view"):
        quantize(graph, random_input(1, MAPS, 4))


def quantised(model: nn.Module, shape: tuple[int, ...] = MAPS) -> GraphModule:
    return quantize(model.eval(), random_input(1, shape, 4))


def pair_of_layers() -> GraphModule:
    return quantised(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))


def nodes(graph: GraphModule, op: str) -> list[Node]:
    return [n for n in graph.graph.nodes if n.op == "call_function" and op in str(n.target)]


def test_float_model_is_not_lowered_and_quantised_one_not_quantised() -> None:
    x = random_input(1, MAPS, 4)
    graph = export(nn.Conv2d(4, 4, 3), x)
    assert not is_converted(graph)
    with pytest.raises(SecateurError, match=r"not quantised; quantise it with secateur\.quantize"):
        lower(graph)
    converted = pair_of_layers()
    assert is_converted(converted)
    assert is_converted(torch.export.export(converted, (x,)))
    with pytest.raises(SecateurError, match="quantised already; give the float model"):
        quantize(converted, x)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, 0.3, "scale 0.3 is not a power of two; requantise with secateur.quantize"),
        (2, 3, "zero point 3 instead of 0; requantise"),
        (4, 300, r"do not fit a byte; requantise"),
    ],
)
def test_foreign_activation_scales(index: int, value: float, message: str) -> None:
    graph = pair_of_layers()
    for node in nodes(graph, "quantize_per_tensor")[2:4]:
        args = list(node.args)
        args[index] = value
        node.args = tuple(args)
    with pytest.raises(SecateurError, match=message):
        lower(graph)


def tamper(change: Callable[[GraphModule], object], message: str) -> None:
    graph = pair_of_layers()
    change(graph)
    with pytest.raises(SecateurError, match=message):
        lower(graph)


def test_foreign_weights_and_biases() -> None:
    tamper(lambda g: g._scale_0.mul_(1.5), "not a power of two; requantise")
    tamper(lambda g: g._zero_point_0.add_(1), "weights with a zero point; requantise")
    tamper(lambda g: g._grid_bias_0.add_(1e-5), r"bias is not on the grid of 2\*\*-\d+ within 13")
    tamper(lambda g: g._grid_bias_0.add_(2.0**12), "bias is not on the grid")
    tamper(lambda g: g._scale_0.mul_(2.0**20), "shifts -.* the array has 0 to 31 and a span of 7")
    tamper(lambda g: g._scale_0[:1].mul_(2.0**-8), "the array has 0 to 31 and a span of 7")


def test_sums_beyond_the_accumulator() -> None:
    graph = quantised(nn.Linear(1200, 2), (1200,))
    graph._frozen_param0.fill_(127)
    with pytest.raises(SecateurError, match=r"can sum up to 19\d+, beyond the 24-bit accumulator"):
        lower(graph)


def test_computation_between_codes_is_refused() -> None:
    graph = pair_of_layers()
    node = nodes(graph, "dequantize_per_tensor")[1]
    node.replace_all_uses_with(node.args[0].args[0])  # type: ignore
    with pytest.raises(SecateurError, match="reads relu, which is not quantised; requantise"):
        lower(graph)
