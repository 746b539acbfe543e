"""Signal to quantisation noise of layers: against PyTorch's own arithmetic, and in reports."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.testing.pt2e._xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)

from secateur import api
from secateur.cli.main import main
from secateur.errors import SecateurWarning
from secateur.image import image as images
from secateur.ir import Layer, Network
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import finalize, prepare, quantize
from secateur.quantisation.sqnr import Sqnr, Yardstick, warn_of_losses


def decibels(wanted: Tensor, found: Tensor) -> float:
    return float(10 * torch.log10(wanted.square().sum() / (wanted - found).square().sum()))


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


def sqnr_of(layer: Layer) -> Sqnr:
    assert layer.sqnr is not None
    return Sqnr(*layer.sqnr)


def last(network: Network) -> Sqnr:
    return sqnr_of(network.layers[-1])


@pytest.mark.parametrize("qat", [False, True])
def test_found_is_that_of_the_converted_graph(qat: bool) -> None:
    model, x = small(), torch.randn(48, 3, 12, 12)
    prepared = prepare(copy.deepcopy(model), x, qat=qat)
    graph = finalize(prepared)
    with torch.no_grad():
        wanted = decibels(model(x), graph(x))
    assert last(lower(graph)).found == pytest.approx(wanted, abs=0.05)


def test_training_changes_what_it_is_measured_by() -> None:
    """The float network is then the trained one."""
    model, x = small(), torch.randn(48, 3, 12, 12)
    prepared = prepare(model, x, qat=True)
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.mul_(1.5).add_(0.01)
    trained = copy.deepcopy(prepared)
    for module in trained.modules():
        if hasattr(module, "disable_fake_quant"):
            module.disable_fake_quant()
            module.disable_observer()
    graph = finalize(prepared)
    with torch.no_grad():
        wanted = decibels(trained(x), graph(x))
    assert last(lower(graph)).found == pytest.approx(wanted, abs=0.05)


def test_free_is_near_what_torchao_gives() -> None:
    """Its scales are those of the largest values, ours of least error: never far below."""
    model, x = small(), torch.randn(64, 3, 12, 12)
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (x[:2],), dynamic_shapes=batch).module()
    config = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(exported, XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        prepared(x)
        other = decibels(model(x), convert_pt2e(prepared)(x))
    assert last(lower(quantize(model, x))).free > other - 2


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gru(x)[0])  # type: ignore[no-any-return]


def test_of_sequences_every_network_keeps_its_own_states() -> None:
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(24, 9, 6)
    graph = quantize(model, x)
    with torch.no_grad():
        wanted = decibels(model(x), graph(x))
    assert last(lower(graph)).found == pytest.approx(wanted, abs=0.05)


class Bends(nn.Module):
    """Two functions of one argument, which is clipped where both are flat."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 2, 3)
        with torch.no_grad():
            self.first.weight.mul_(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([torch.tanh(x), torch.sigmoid(x)], 1))  # type: ignore[no-any-return]


def test_arguments_of_functions_are_not_measured() -> None:
    """The functions' results are."""
    torch.manual_seed(0)
    network = lower(quantize(Bends().eval(), torch.randn(32, 3, 8, 8)))
    first, *others = network.layers
    assert (first.kind, first.table, first.sqnr) == ("conv", None, None)
    assert [layer.table is not None for layer in others] == [True, True, False]
    for layer in others:
        found, free = sqnr_of(layer)
        assert free - found < 3


class Averages(nn.Module):
    """Two averages, each of a weight that no code is."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(torch.relu(x), 3)
        return nn.functional.avg_pool2d(x, (2, 3))


def test_the_weights_of_averages_are_codes() -> None:
    """1/9 and 1/6, rounded to 8 bits, would make both wrong by 0.4 %: 48 dB, and 42 behind both."""
    torch.manual_seed(0)
    x = torch.rand(16, 4, 12, 18)
    network = lower(quantize(Averages(), x))
    exact = 0
    for layer in network.layers:
        weights = {int(w) for source in layer.sources for w in source.weight.ravel()} - {0}
        exact += weights == {weight for weight in weights if weight % 4 == 0}
    assert exact == len(network.layers)
    assert last(network).found > 44


def chain(losses: list[float | None]) -> Network:
    """The layers of a network, one behind the other, with what each is said to lose."""
    model = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in losses)).eval()
    network = lower(quantize(model, torch.randn(8, 2, 4, 4)))
    assert len(network.layers) == len(losses)
    for layer, loss in zip(network.layers, losses, strict=True):
        layer.sqnr = None if loss is None else Sqnr(30.0, 30.0 + loss)
    return network


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ([0.0, 2.9, 1.0], []),
        ([0.0, 3.1, 5.0], [1]),
        ([4.0, None, 4.5], [0]),
        ([4.0, 1.0, 4.5], [2, 0]),
        ([4.0, 1.0, 4.5, 1.0, 4.2, 1.0, 6.0], [6, 2, 4]),
    ],
)
def test_warnings_name_where_it_is_lost(losses: list[float | None], named: list[int]) -> None:
    network = chain(losses)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_losses(network)
    found = [str(w.message) for w in caught if w.category is SecateurWarning]
    assert len(found) == bool(named)
    places = [found[0].index(f"'{network.layers[i].name}' ({losses[i]} of") for i in named]
    assert places == sorted(places)
    assert all(found[0].count(" dB)") == len(named) for _ in found)
    assert all(("and 1 more" in text) == (len(losses) == 7) for text in found)


def test_compile_warns(monkeypatch: Any) -> None:
    def measured(self: Yardstick, exact: Any, quantised: Any) -> dict[str, Sqnr]:
        return {
            key: Sqnr(s.found, s.found + 4) for key, s in measure(self, exact, quantised).items()
        }

    measure = Yardstick.measure
    monkeypatch.setattr(Yardstick, "measure", measured)
    with pytest.warns(SecateurWarning, match=r"signal to quantisation noise, .*'0' \(4.0 of"):
        api.compile(small(), target="8x8", calibration=torch.randn(16, 3, 12, 12))


def test_an_image_has_them(tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    x = torch.randn(16, 3, 12, 12)
    graph = quantize(small(), x)
    image = api.compile(graph, target="8x8")
    path = tmp_path / "model.sec"
    image.save(path)
    written = {layer["name"]: layer["sqnr"] for layer in images.load(path).metadata["layers"]}
    expected = {layer.name: sqnr_of(layer) for layer in lower(graph).layers}
    assert written.keys() == expected.keys()
    for key, sqnr in expected.items():
        np.testing.assert_allclose(
            [written[key]["found"], written[key]["free"]], [sqnr.found, sqnr.free], atol=0.0501
        )
    monkeypatch.setattr("sys.argv", ["secateur", "inspect", str(path), "--json"])
    with pytest.raises(SystemExit):
        main()
    shown = json.loads(capsys.readouterr().out)
    assert shown["sqnr"] == written[image.metadata["layers"][-1]["name"]]
