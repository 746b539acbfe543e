"""Pruning without training, against PyTorch's own layers and least squares."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import (
    Magnitude,
    Reconstruction,
    prune,
    reconstruct,
)
from secateur.pruning.criteria import removal
from secateur.pruning.criteria.columns import columns, rows
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.methods import refit
from secateur.pruning.methods.norms import match_norms

LAYERS = [
    (nn.Linear(6, 4), (5, 6)),
    (nn.Linear(6, 4, bias=False), (5, 3, 6)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), (3, 4, 11)),
    (nn.Conv1d(4, 4, 3, padding="same", groups=4, padding_mode="reflect"), (3, 4, 7)),
    (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)), (2, 3, 9, 8)),
    (nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular"), (2, 3, 6, 5)),
    (nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (2, 6, 5, 4)),
    (nn.Conv2d(6, 4, 3, padding=1, groups=2), (2, 6, 5, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_columns_times_weights_are_what_the_layer_computes(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer, x = copy.deepcopy(layer).double(), torch.randn(shape, dtype=torch.float64)
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.flatten(1).unflatten(0, (groups, -1))
    found = columns(layer, x) @ weight.transpose(1, 2)
    if layer.bias is not None:
        found = found + layer.bias.unflatten(0, (groups, 1, -1))
    torch.testing.assert_close(found, rows(layer, layer(x)))


def cheapest(matrix: Tensor, weight: Tensor) -> list[float]:
    """Loss at each removal of one position, by trying each, with LAPACK's least squares."""
    wanted, left = matrix @ weight.T, list(range(matrix.shape[1]))
    losses = []
    while left:
        tried = {}
        for without in combinations(left, len(left) - 1):
            part = matrix[:, list(without)]
            fitted = torch.linalg.lstsq(part, wanted, driver="gelsd").solution
            (gone,) = set(left) - set(without)
            tried[gone] = float(((wanted - part @ fitted) ** 2).sum())
        gone = min(tried, key=lambda place: tried[place])
        left.remove(gone)
        losses.append(tried[gone])
    return losses


def test_a_block_is_worth_what_no_other_weight_makes_up_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(removal, "DAMPING", 1e-12)
    torch.manual_seed(3)
    layer = nn.Linear(7, 5, bias=False).double()
    x = torch.randn(40, 7, dtype=torch.float64) @ torch.randn(7, 7, dtype=torch.float64)
    saliency = block_saliency(layer, 4, Reconstruction([x[:30], (x[30:], x[30:])], n=4))[""]
    energy = float((layer(x) ** 2).sum())
    for group, filters in enumerate((slice(0, 4), slice(4, 5))):
        lost = sorted(saliency[group].tolist())
        total = torch.tensor(cheapest(x, layer.weight.detach()[filters])) / energy
        # What one more block costs; a later one never less than an earlier one.
        steps = torch.diff(total, prepend=torch.zeros(1)).cummax(0).values
        torch.testing.assert_close(torch.tensor(lost), steps, rtol=1e-6, atol=1e-9)


def test_depthwise_filters_have_inputs_of_their_own() -> None:
    """Channel 1 sees nothing but zeros: its filters cost nothing, and channel 0 decides alone."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 2, 3, groups=2, bias=False).double()
    alone = nn.Conv2d(1, 1, 3, bias=False).double()
    alone.weight.data = layer.weight.data[:1]
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    x[:, 1] = 0
    found = block_saliency(layer, 2, Reconstruction([x], n=2))[""]
    expected = block_saliency(alone, 2, Reconstruction([x[:, :1]], n=2))[""]
    torch.testing.assert_close(found, expected)


class Net(nn.Module):
    """A convolution whose two input channels are equal, a batch norm, and two layers more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(torch.cat([x, x], dim=1))).relu()
        return self.last(self.second(x).mean(dim=(2, 3)))


def test_what_stays_makes_up_for_what_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two equal inputs one is enough: the outputs are those of the dense model."""
    monkeypatch.setattr(refit, "PULLS", (1e-9,))
    torch.manual_seed(1)
    dense = Net().eval()
    x = torch.randn(32, 1, 8, 8)
    model = copy.deepcopy(dense)
    batches = [x[:16], (x[16:], torch.zeros(16))]
    prune(model, density=0.5, criterion=Reconstruction([x]), skip=("second", "last"))
    mask = model.first.parametrizations.weight[0].mask
    assert torch.equal(mask[:, :1], 1 - mask[:, 1:])
    before = float((model(x) - dense(x)).abs().max())
    reconstruct(model, dense, batches)
    assert float((model(x) - dense(x)).abs().max()) < 1e-3 * before
    assert not model.first.weight[mask == 0].any()
    assert not model.training


def test_layers_behind_make_up_for_what_cannot_be_kept() -> None:
    torch.manual_seed(2)
    dense = Net().eval()
    x = torch.randn(64, 1, 8, 8)
    model = copy.deepcopy(dense)
    prune(model, density=0.25, criterion=Magnitude())
    before = float(((model(x) - dense(x)) ** 2).sum())
    seen: list[str] = []
    reconstruct(model, dense, [x], progress=lambda stage, i, n, note: seen.append(note))
    assert seen == ["first", "second", "last"] * 2
    assert float(((model(x) - dense(x)) ** 2).sum()) < before / 4


def test_outputs_of_norms_keep_their_means_and_deviations() -> None:
    """The stored means and variances of the dense model are not those of the data."""
    torch.manual_seed(0)
    dense = Net().eval()
    dense.norm.running_mean.uniform_(-1, 1)
    dense.norm.running_var.uniform_(0.5, 2)
    model = copy.deepcopy(dense)
    prune(model, density=0.4)
    x = torch.randn(24, 1, 8, 8)
    match_norms(model, dense, list(x.split(7)))

    def moments(net: Net) -> Tensor:
        with torch.no_grad():
            y = net.norm(net.first(torch.cat([x, x], dim=1)))
        return torch.stack([y.mean(dim=(0, 2, 3)), y.std(dim=(0, 2, 3))])

    torch.testing.assert_close(moments(model), moments(dense), rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.norm.running_var, dense.norm.running_var)


def test_what_is_refused() -> None:
    model, x = Net(), torch.randn(2, 1, 8, 8)
    with pytest.raises(SecateurError, match="batches is empty"):
        reconstruct(model, model, [])
    with pytest.raises(SecateurError, match=r"'first' .* not in the dense one"):
        reconstruct(model, nn.Linear(2, 2), [x])
    grouped = nn.Conv2d(4, 4, 1, groups=2)
    with pytest.raises(SecateurError, match="groups"):
        Reconstruction([torch.randn(1, 4, 2, 2)])(grouped, {"": grouped})
    unused = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    unused.forward = lambda x: unused["used"](x)  # type: ignore[method-assign]
    with pytest.raises(SecateurError, match="'unused': the given inputs do not reach it"):
        block_saliency(unused, 8, Reconstruction([torch.randn(1, 2)]))
