"""What the link costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur.boards.measure.link_size import measure
from secateur.hw.spec import Geometry


@pytest.mark.long
def test_the_link_is_small(tmp_path: Path) -> None:
    geometry = Geometry(n=8, p=8, weight_words=8192, bank_words=2048)
    found = measure(geometry, 50, tmp_path)
    assert found["luts"] <= 900
    assert found["cells"]["box"] == 1
    assert found["cells"]["TRELLIS_DPR16X4"] == 16  # 128 bytes: no block RAM
    assert "DP16KD" not in found["cells"]
