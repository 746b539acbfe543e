"""Where numbers of the stream run out: exact up to there, refused beyond."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.files import check_fit
from secateur.hw.spec import Geometry
from secateur.target import Target


def target(n: int, p: int, weight_words: int, bank_words: int, **options: int) -> Target:
    geometry = Geometry(n=n, p=p, weight_words=weight_words, bank_words=bank_words, **options)
    return Target(name="made", geometry=geometry)


def pooled(channels: int, pool: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 1), pool).eval()


MADE = {
    # The columns of a window are ceil(channels / N) * dilation words apart, 127 at most.
    "maximum": (
        (2, 2, 2048, 2048), (3, 3),
        (pooled(254, nn.MaxPool2d(3)), pooled(256, nn.MaxPool2d(3))),
        "layer '1': the columns of its window lie 128 words of 2 channels apart",
    ),
    "dilated maximum": (
        (2, 2, 2048, 2048), (3, 3),
        (pooled(126, nn.MaxPool2d(2, 1, dilation=2)), pooled(128, nn.MaxPool2d(2, 1, dilation=2))),
        "layer '1': the columns of its window lie 128 words",
    ),
    # 4 words a pixel; 124 x 124 of them, and the padding of two, are fewer than 65,536.
    "map": (
        (4, 16, 1024, 16384), (124, 124),
        (nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 2, 5, 4, 2)).eval(),) * 2,
        r"\(16 x 127 x 127\) takes [0-9]+ words with its padding, a map has at most 65536",
    ),
    "pixels": (
        (4, 16, 1024, 2048), (128, 128),
        (nn.Conv2d(1, 16, 3, padding=1).eval(), nn.Conv2d(1, 20, 3, padding=1).eval()),
        r"\(20 x 128 x 128\) takes 81920 words .* or the layer's channels into several layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_exact_or_refused(name: str) -> None:
    size, shape, (fits, does_not), message = MADE[name]
    torch.manual_seed(1)
    x = torch.randn(2, 1, *shape)
    graph = secateur.quantize(fits, x)
    with torch.no_grad():
        expected = graph(x).numpy()
    image = secateur.compile(graph, target=target(*size))
    np.testing.assert_array_equal(secateur.run(image, x.numpy()).values, expected)
    x = torch.randn(2, 1, 127, 127) if name == "map" else x
    with pytest.raises(SecateurError, match=message):
        secateur.compile(does_not, target=target(*size), calibration=x)


def test_a_dense_model_is_not_counted_as_pruned() -> None:
    """An average over a whole map passes over one body ten times: its blocks are those of one."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    image = secateur.compile(model, target="8x8", calibration=torch.randn(8, 3, 12, 12))
    conv, average = image.metadata["layers"]
    assert (conv["blocks"], conv["blocks_total"]) == (2 * 27, 2 * 27)
    assert average["passes"] > 1
    assert average["blocks"] == average["blocks_total"]


def test_engines_without_tables_or_modes() -> None:
    size = (2, 2, 2048, 256)
    x = torch.randn(4, 1, 6, 6)
    plain, large = target(*size, tables=0, extended=False), target(*size)
    for model, message in (
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh()), "needs 1 activation tables, .* has 0"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)), r"max pooling .*extended = false"),
    ):
        image = secateur.compile(model.eval(), target=large, calibration=x)
        check_fit(image, large, "m.sec")
        with pytest.raises(SecateurError, match=f"^m.sec: .*{message}"):
            check_fit(image, plain, "m.sec")
    image = secateur.compile(nn.Conv2d(1, 4, 3), target=large, calibration=x)
    check_fit(image, plain, "m.sec")
