"""Models that move values in all ways: PyTorch = golden on every layer, and Verilator."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from secateur import api
from secateur.errors import SecateurError
from tests.support.move_models import Moves, models
from tests.support.pipeline import target

SEEN: Counter[str] = Counter()
NO_SHRINK = [Phase.explicit, Phase.reuse, Phase.generate]


def check(model: Moves) -> None:
    """Compile, which compares every layer; the cycles are those predicted."""
    x = torch.randn(4, *model.shape)  # type: ignore[misc]
    try:
        image = api.compile(
            model, target=target(4, 2, bank_words=8192, weight_words=1 << 17), calibration=x
        )
    except SecateurError as error:
        SEEN["refused"] += 1
        assert "fault of Secateur" not in str(error), model.names
        assert "copies" in str(error) or "do not fit" in str(error), (model.names, error)
        return
    outputs = api.run(image, x.numpy())
    assert outputs.cycles == image.metadata["cycles"]
    SEEN["exact"] += 1


@settings(max_examples=40, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_random_moves(model: Moves) -> None:
    check(model)


@pytest.mark.long
@settings(max_examples=1000, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_many_random_moves(model: Moves) -> None:
    check(model)
