"""Filters or pixels: what `inspect` says of the choice, and images that fit with pixels alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from secateur.cli.model import show_inspection
from secateur.compiler.compiler import compile_network
from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.report.summary import summary
from secateur.target import Target
from tests.support.pipeline import build, check_image, compile_for

BOTH = Target(name="any", geometry=Geometry(n=8, p=8, s=8, weight_words=4096, bank_words=1024))
PIXELS = replace(BOTH, geometry=replace(BOTH.geometry, s=1))
ROWS = ("headers", "body", "wait")


def network() -> nn.Module:
    """A map that fills pixel lanes, a maximum, and one pixel with few rows."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(8 * 49, 40), nn.ReLU(), nn.Linear(40, 24)),
    )


def built():
    return build(network(), torch.rand(2, 3, 16, 16))


def rows(layer: dict) -> int:
    return sum(layer["parts"][part] for part in ROWS)


def test_every_choice_is_beside_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    image, alone = compile_for(built(), BOTH), compile_for(built(), PIXELS)
    kinds = [layer["deal"] for layer in image.metadata["layers"]]
    assert kinds[0] == "tile"
    assert kinds[-2:] == ["filters", "filters"]
    for layer, with_pixels in zip(image.metadata["layers"], alone.metadata["layers"], strict=True):
        assert "other" not in with_pixels
        if layer["deal"] == "filters":  # what the same layer takes where no lane is a filter
            deal, cycles = with_pixels["deal"], rows(with_pixels)
            assert layer["other"] == {"deal": deal, "cycles": cycles}
            assert rows(layer) < cycles
    pooling = next(layer for layer in image.metadata["layers"] if layer["kind"] == "maxpool")
    assert "other" not in pooling
    assert image.metadata["layers"][0]["other"]["deal"] == "filters"
    show_inspection(summary(image))
    shown = capsys.readouterr().out
    assert "otherwise" in shown
    assert f"filters: {image.metadata['layers'][0]['other']['cycles']:,}" in shown
    show_inspection(summary(alone))
    assert "otherwise" not in capsys.readouterr().out


def test_pixels_alone_where_filters_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """One word too few for filters: the image has pixel lanes alone, and says so."""
    made = built()
    wide, narrow = (len(compile_for(made, target).words) for target in (BOTH, PIXELS))
    assert narrow < wide - 8

    def tight(words: int) -> Target:
        return replace(BOTH, geometry=replace(BOTH.geometry, weight_words=words // 8 * 8))

    fits, less = tight(wide + 7), tight(wide - 1)
    assert "filters" in [layer["deal"] for layer in compile_for(made, fits).metadata["layers"]]
    image = compile_for(made, less)
    assert len(image.words) == narrow
    assert image.metadata["pixels_only"]
    assert not compile_for(made, fits).metadata["pixels_only"]
    assert "filters" not in {layer["deal"] for layer in image.metadata["layers"]}
    assert check_image(made, image, less.geometry) > 0
    show_inspection(summary(image))
    assert "No filter lanes: with them the image would not fit" in capsys.readouterr().out
    with pytest.raises(SecateurError, match=f"takes {narrow} words"):
        compile_network(made.network, tight(narrow - 1))
