"""Models that move values in all ways: PyTorch = golden on every layer, and Verilator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from secateur import api
from secateur.errors import SecateurError
from tests.support.move_models import Moves, models
from tests.support.pipeline import target

NO_SHRINK = [Phase.explicit, Phase.reuse, Phase.generate]


def outcome(model: Moves) -> str:
    """Compile, which compares every layer with PyTorch, and run: "" or why it is refused."""
    x = torch.randn(4, *model.shape)
    large = target(4, 2, bank_words=8192, weight_words=1 << 17)
    try:
        image = api.compile(model, target=large, calibration=x)
    except SecateurError as error:
        return str(error)
    assert api.run(image, x.numpy()).cycles == image.metadata["cycles"]
    return ""


def check(model: Moves) -> None:
    found = outcome(model)
    assert not found or "copies" in found or "do not fit" in found, (model.names, found)


@settings(max_examples=40, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_random_moves(model: Moves) -> None:
    check(model)


@pytest.mark.long
@settings(max_examples=1000, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_many_random_moves(model: Moves) -> None:
    check(model)
