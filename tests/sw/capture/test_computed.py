"""Weights that something computes before each call: named with the call that makes them plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import secateur
from secateur.errors import SecateurError, SecateurWarning
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
    """The tensor becomes a parameter, as by PyTorch's own call; then channels can be removed."""
    wrap, remedy = KINDS[kind]
    plain = network(wrap)
    eval(remedy, {"torch": torch, "layer": plain[2]})
    remove_channels(plain, X, density=0.5)
    for change in (
        lambda model: remove_channels(model, X, density=0.5),
        lambda model: reorder(model, X, {"0": list(range(16))}),
    ):
        model = network(wrap)
        expected = model(X)
        with pytest.warns(SecateurWarning, match="layer '2': its .* is a plain parameter now"):
            report = change(model)
        if report is None:
            assert torch.allclose(model(X), expected, atol=1e-5)
        else:
            assert [row.after for row in report.layers] == [8, 8, 5]
            assert torch.equal(model(X), plain(X))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pruned bias"])
def test_masks(kind: str) -> None:
    wrap, remedy = KINDS[kind]
    plain, model = network(wrap), network(wrap)
    eval(remedy, {"torch": torch, "layer": plain[2]})
    with pytest.warns(SecateurWarning, match="layer '2': its weight, computed by"):
        report = secateur.prune(model, density=0.5)
    assert [row.name for row in report.layers] == ["0", "2", "4"]
    secateur.prune(plain, density=0.5)
    assert torch.equal(model(X), plain(X))
    untouched = network(wrap)
    before = untouched.state_dict().keys()
    report = secateur.prune(untouched, density=0.5, skip=["2"])
    assert [row.name for row in report.layers] == ["0", "4"]
    assert {name for name in before if name.startswith("2.")} <= untouched.state_dict().keys()


def test_a_mask_of_torch_holds_in_training() -> None:
    model = network(KINDS["pruned"][0])
    zeros = model[2].weight == 0
    with pytest.warns(SecateurWarning, match="L1Unstructured"):
        secateur.prune(model, density=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(X).square().sum().backward()
    optimizer.step()
    assert zeros.any()
    assert not model[2].weight[zeros].any()
    assert model[2].weight[~zeros].any()


def test_our_mask_outlives_another_parametrisation() -> None:
    model = network(lambda layer: layer)
    secateur.prune(model, density=0.5)
    gone = model[2].weight == 0
    parametrizations.spectral_norm(model[2])
    with pytest.warns(SecateurWarning, match="SpectralNorm"):
        secateur.prune(model, density=0.4)
    assert not model[2].weight[gone].any()


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
    graph = secateur.quantize(model, x)
    torch.nn.utils.remove_weight_norm(model.gru, "weight_hh_l0")
    assert torch.equal(graph(x), secateur.quantize(model, x)(x))


def test_results_that_lie_about_in_modules_are_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.extra = model[0].weight * 2  # type: ignore[assignment]
    other = copied(model)
    assert torch.equal(other.extra, model.extra)
    assert other[0].weight is not model[0].weight


def test_what_cannot_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.extra = {"weight": model[0].weight * 2}  # type: ignore[assignment]
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

    for change, name in ((double, "buffer '1.running_var' is torch.float64"), (half, "16")):
        torch.manual_seed(0)
        with pytest.warns(SecateurWarning, match=f"{name}: a copy of the model in float32"):
            graph = secateur.quantize(changed(change), X.double())
        torch.manual_seed(0)
        other = changed(change).float()
        assert torch.equal(graph(X), secateur.quantize(other, X)(X))
    for change, message in (
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


def test_lazy_layers_get_their_shapes_from_the_calibration() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).eval()
    image = secateur.compile(model, target="8x1", calibration=X)
    assert image.metadata["cycles"] > 0
    assert isinstance(model[0], nn.LazyConv2d)
    with pytest.raises(SecateurError, match="a layer is lazy and has no shape; run the model once"):
        secateur.streaming(nn.Sequential(nn.LazyConv1d(4, 3)), torch.rand(1, 3, 8))
