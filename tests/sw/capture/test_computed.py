"""Weights that something computes before each call: named with the call that makes them plain."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import secateur
from secateur.errors import SecateurError
from secateur.fx.computed import copied
from secateur.pruning import remove_channels, reorder

KINDS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "old weight_norm": (weight_norm, "torch.nn.utils.remove_weight_norm(layer, 'weight')"),
    "new weight_norm": (
        parametrizations.weight_norm,
        "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
    "old spectral_norm": (spectral_norm, "torch.nn.utils.remove_spectral_norm(layer, 'weight')"),
    "new spectral_norm": (
        parametrizations.spectral_norm,
        "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
    "orthogonal": (
        parametrizations.orthogonal,
        "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')",
    ),
    "pruned": (
        lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5),
        "torch.nn.utils.prune.remove(layer, 'weight')",
    ),
    "pruned bias": (
        lambda layer: torch_prune.l1_unstructured(layer, "bias", 0.5),
        "torch.nn.utils.prune.remove(layer, 'bias')",
    ),
}
X = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    middle = wrap(nn.Conv2d(16, 16, 3))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), middle, nn.Flatten(), nn.Linear(64, 5))
    model(X)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_channels(kind: str) -> None:
    """The refusal names the layer and a call; what the call returns has channels to remove."""
    wrap, remedy = KINDS[kind]
    model = network(wrap)
    before = copy.copy(model.state_dict())
    for call in (
        lambda: remove_channels(model, X, density=0.5),
        lambda: remove_channels(model, X, density=0.5, skip=["2"]),
        lambda: reorder(model, X, {"0": list(range(16))}),
    ):
        with pytest.raises(SecateurError) as caught:
            call()
        message = str(caught.value)
        assert message.startswith("layer '2': the ")
        assert message.endswith(f"make it permanent: {remedy}")
    assert before.keys() == model.state_dict().keys()
    expected = model(X)
    eval(remedy, {"torch": torch, "layer": model[2]})
    assert torch.allclose(model(X), expected, atol=1e-5)
    report = remove_channels(model, X, density=0.5)
    assert [row.after for row in report.layers] == [8, 8, 5]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pruned bias"])
def test_masks(kind: str) -> None:
    wrap, remedy = KINDS[kind]
    with pytest.raises(SecateurError) as caught:
        secateur.prune(network(wrap), density=0.5)
    assert str(caught.value).startswith("layer '2': the weight is ")
    assert remedy in str(caught.value)
    report = secateur.prune(network(wrap), density=0.5, skip=["2"])
    assert [row.name for row in report.layers] == ["0", "4"]


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_and_compiled_as_they_are(kind: str) -> None:
    wrap, remedy = KINDS[kind]
    model = network(wrap)
    image = secateur.compile(model, target="8x1", calibration=X)
    eval(remedy, {"torch": torch, "layer": model[2]})
    assert secateur.compile(model, target="8x1", calibration=X).stream == image.stream


def test_recurrent_layers() -> None:
    class Spoken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = weight_norm(nn.GRU(4, 5, batch_first=True), "weight_hh_l0")

        def forward(self, x: torch.Tensor) -> Any:
            return self.gru(x)[0][:, -1]

    model, x = Spoken(), torch.rand(3, 4, 4)
    model(x)
    with pytest.raises(SecateurError, match=r"layer 'gru': the weight_hh_l0 .*remove_weight_norm"):
        secateur.quantize(model, x)


def test_other_things_that_cannot_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.extra = model[0].weight * 2  # type: ignore[assignment]
    with pytest.raises(SecateurError, match="PyTorch cannot copy the model: Only Tensors created"):
        copied(model)


META = r"is on the meta device, it has no values; load them: model.to_empty\(device='cpu'\)"


def test_tensors_without_values_or_of_other_types() -> None:
    def changed(change: Callable[[Any], object]) -> nn.Sequential:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        change(model)
        return model

    def double(model: Any) -> None:
        model[1].running_var = model[1].running_var.double()

    def half(model: Any) -> None:
        model[0].bias.data = model[0].bias.half()

    def without(model: Any) -> None:
        model[1].running_mean = model[1].running_mean.to("meta")

    for change, message in (
        (double, r"^buffer '1.running_var' is torch.float64; convert by model.float\(\)$"),
        (half, r"^parameter '0.bias' is torch.float16; convert by model.float\(\)$"),
        (without, f"^buffer '1.running_mean' {META}"),
        (lambda model: model.to("meta"), f"^parameter '0.weight' {META}"),
    ):
        with pytest.raises(SecateurError, match=message):
            secateur.quantize(changed(change), X)
    with pytest.raises(SecateurError, match=f"^layer '0': the weight {META}"):
        secateur.prune(changed(lambda model: model.to("meta")), density=0.5)
    program = torch.export.export(changed(lambda model: model.double()), (X.double(),))
    with pytest.raises(SecateurError, match=r"^parameter '0.weight' is torch.float64"):
        secateur.quantize(program, X)
    with pytest.raises(SecateurError, match=r"^parameter 'gru.weight_ih_l0' is torch.float64"):
        secateur.quantize(nn.ModuleDict({"gru": nn.GRU(4, 5).double()}), X)
