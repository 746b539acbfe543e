"""Layers that an identity replaces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning import replace_by_identity
from tests.support.pipeline import build, check_image, compile_for, target


class Net(nn.Module):
    """A block, a residual branch, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.unused = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(torch.relu(self.first(x)))
        return torch.relu(x + self.branch(x))


def test_a_block_goes_and_the_rest_computes_on() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(4, 3, 6, 6)
    assert replace_by_identity(model, x, ["middle"]) == 8 * 8 * 9 + 8
    y = torch.relu(model.first(x))
    assert torch.equal(model(x), torch.relu(y + model.branch(y)))
    built = build(model, x)
    to = target(8, 2)
    assert check_image(built, compile_for(built, to), to.geometry) > 0
    assert len(built.network.layers) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first"], r"'first' turns torch.Size\(\[2, 3, 6, 6\]\) into .* keeps its shape"),
        (["middle", "unused"], "'unused' does not run"),
        (["none"], "no submodule 'none'"),
        (["" ], "no submodule ''"),
        ("middle", "must be a list"),
    ],
)  # fmt: skip
def test_refused(names: list[str], message: str) -> None:
    model = Net()
    before = str(model)
    with pytest.raises(SecateurError, match=message):
        replace_by_identity(model, torch.rand(2, 3, 6, 6), names)
    assert str(model) == before
    assert not any(module._forward_hooks for module in model.modules())
