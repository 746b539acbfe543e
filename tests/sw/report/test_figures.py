"""The figures: their numbers are those of the image, by definitions written down again here."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import combinations

import numpy as np
import plotly.io
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.image.image import Image
from secateur.report import figures
from secateur.report.figures.blocks import kept_blocks, weights_by_layer
from secateur.report.figures.network import graph
from secateur.report.figures.study import on_front
from secateur.sim.decode import parse
from tests.sw.report.made import GEOMETRIES, image_of

NETWORKS: list[int | str] = [0, 1, 2, 3, 7, "autoencoder", "resnet8"]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("which", NETWORKS)
def test_the_parts_are_the_exact_cycles(which: int | str, geometry: Geometry) -> None:
    image = image_of(which, geometry)
    cycles = parse(image.stream, geometry).cycles  # by the golden interpreter
    found = figures.parts(image)
    assert found.total == cycles * geometry.multipliers
    dense = figures.parts(image, dense=True)
    assert dense.total == image.metadata["cycles_dense"] * geometry.multipliers
    drawn: dict[str, Fraction] = {"": Fraction(0), " (dense)": Fraction(0)}
    for trace in figures.cycles(image).plot.data:
        for x, y in zip(trace.x, trace.y, strict=True):
            slots = round(x * geometry.multipliers)
            assert x == slots / geometry.multipliers
            drawn[" (dense)" if y.endswith(" (dense)") else ""] += Fraction(
                slots, geometry.multipliers
            )
    assert drawn == {"": cycles, " (dense)": image.metadata["cycles_dense"]}
    for at, layer in enumerate(image.metadata["layers"]):
        plot = figures.layer_cycles(image, at).plot
        sums = [sum(round(x * geometry.multipliers) for x in trace.x) for trace in plot.data]
        both = [layer["cycles"], layer["cycles_dense"]]
        assert sums == [each * geometry.multipliers for each in both]


def test_the_table_of_the_cycles_says_the_same() -> None:
    image = image_of("resnet8")
    found = figures.cycles(image)
    assert found.rows[-1][:3] == ("all", image.cycles, image.metadata["cycles_dense"])
    assert sum(int(row[1]) for row in found.rows[:-1]) == image.cycles
    for row in found.rows:  # of up to eleven parts, each rounded to a hundredth
        parts = [Fraction(str(cell).replace(",", "")) for cell in row[3:-1]]
        assert abs(sum(parts) - int(row[1])) <= 11 * Fraction(1, 200)


def test_an_image_without_parts_is_refused() -> None:
    image = image_of(0)
    layers = [{k: v for k, v in m.items() if "parts" not in k} for m in image.metadata["layers"]]
    old = Image(image.words, image.metadata | {"layers": layers}, "old.sec")
    with pytest.raises(SecateurError, match=r"old\.sec: layer '.*' has no parts.*; compile"):
        figures.cycles(old)
    with pytest.raises(SecateurError, match=r"old\.sec: the image has no metadata"):
        figures.cycles(Image(image.words, {}, "old.sec"))


@pytest.mark.parametrize("which", NETWORKS)
def test_tensors_alive_together_lie_apart(which: int | str) -> None:
    """But for those that take the place of what their layer reads last."""
    image = image_of(which)
    layers = image.metadata["layers"]
    for a, b in combinations(figures.lives(image), 2):
        together = a.start < b.stop and b.start < a.stop
        if a.meets(b) and together:
            first, second = sorted((a, b), key=lambda life: life.begin)
            assert first.end == second.begin
            read = {source["tensor"] for source in layers[second.begin]["sources"]}
            assert first.tensor in read
            assert first.base == second.base


@pytest.mark.parametrize("which", NETWORKS)
def test_lives_and_graph_follow_the_layers(which: int | str) -> None:
    image = image_of(which)
    layers, lives = image.metadata["layers"], {life.tensor: life for life in figures.lives(image)}
    ends = np.cumsum([layer["cycles"] for layer in layers]) + image.cycles
    ends -= sum(layer["cycles"] for layer in layers)
    edges = graph(image).edges(data="tensor")
    for at, layer in enumerate(layers):
        for source in layer["sources"]:
            life = lives[source["tensor"]]
            assert life.start <= ends[at] - layer["cycles"]
            assert life.stop >= ends[at]
            assert any((b, name) == (at, source["tensor"]) for _, b, name in edges)
    for a, b, name in edges:
        if a != f"tensor {name}":
            assert layers[a]["output"] == name
        assert name in {source["tensor"] for source in layers[b]["sources"]}
    clicked = [n for trace in figures.network(image).plot.data for n in trace.customdata or []]
    assert sorted(n for n in clicked if n is not None) == list(range(len(layers)))


@pytest.mark.parametrize("which", ["autoencoder", "resnet8", 2])
def test_blocks_are_the_nonzero_columns_of_the_weights(which: int | str) -> None:
    image = image_of(which)
    for layer, weights in weights_by_layer(image).items():
        kept = kept_blocks(weights, image.n)
        lanes, dense = weights.lanes.reshape(-1, image.n), weights.dense()
        flat = dense.reshape(len(dense), -1)
        naive = np.stack([(flat[row[row >= 0]] != 0).any(axis=0) for row in lanes])
        assert np.array_equal(kept, naive)
        drawn = figures.blocks(image, layer, weights).plot.data[0].z
        assert np.array_equal(drawn, kept)
        taps, channels = figures.density(image, layer, weights).plot.data
        shaped = naive.reshape(len(naive), -1, *dense.shape[-2:])
        assert np.array_equal(taps.z, shaped.mean(axis=(0, 1)))
        assert np.array_equal(channels.y, shaped.mean(axis=(0, 2, 3)))
        assert sum(int(row[1]) for row in figures.blocks(image, layer, weights).rows) == kept.sum()
        counted = figures.weights(layer, weights).rows
        assert sum(int(row[1]) for row in counted) == dense.size


def test_a_layer_without_weights_has_no_blocks() -> None:
    image = image_of("resnet8")
    without = set(range(len(image.metadata["layers"]))) - set(weights_by_layer(image))
    for layer in without:
        with pytest.raises(SecateurError, match="has no weights in the stream"):
            figures.blocks(image, layer)


def test_codes_are_drawn_at_their_values() -> None:
    image = image_of("resnet8")
    counts = np.arange(256)
    signed = {tensor["name"]: tensor["signed"] for tensor in image.metadata["tensors"]}
    kinds = set()
    for at, layer in enumerate(image.metadata["layers"]):
        (trace,) = figures.activations(image, at, {"pruned": counts}).plot.data
        for code, count in zip(trace.x, trace.y, strict=True):
            assert count == code % 256
        assert trace.x[0] == (-128 if signed[layer["output"]] else 0)
        kinds.add(trace.x[0])
    assert kinds == {-128, 0}


def test_noise_is_shown_where_it_was_measured() -> None:
    image = image_of(0)
    first, *others = image.metadata["layers"]
    unmeasured = [{k: v for k, v in layer.items() if k != "sqnr"} for layer in others]
    assert figures.noise(Image(image.words, image.metadata | {"layers": unmeasured}, "")) is None
    measured = [first | {"sqnr": {"found": 20.25, "free": 23.5}}, *unmeasured]
    found = figures.noise(Image(image.words, image.metadata | {"layers": measured}, ""))
    assert found is not None
    assert found.rows == [(first["name"], "20.2", "23.5", "3.2")]
    assert [tuple(trace.x) for trace in found.plot.data] == [(20.25,), (23.5,)]


def test_confusion_counts_answers_by_class() -> None:
    truth, dense, pruned = np.array([[0, 0, 1, 2, 2], [0, 1, 1, 2, 2], [0, 2, 1, 0, 0]])
    found = figures.confusion(truth, dense, pruned)
    (trace,) = found.plot.data
    assert trace.z.tolist() == [[1, 0, 1], [0, 1, 0], [2, 0, 0]]
    assert trace.customdata.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    assert found.rows == [(2, 0, 2, 0), (0, 2, 1, 0)]
    assert "40.0% of 5" in found.text
    assert "80.0% dense" in found.text


@pytest.mark.parametrize("shape", [(3, 100, 60), (1, 8, 8), (12,), (2, 5, 5), (16, 4)])
def test_changed_answers_are_drawn_whatever_the_sample_is(shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(0).random((5, *shape), np.float32)
    truth, dense, pruned = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 1, 1, 1]])
    found = figures.answers(samples, np.array([1, 2, 3, 4, 0]), truth, dense, pruned)
    assert len(found.plot.data) == 5
    assert "the answer to 3 of 5 samples: 2 were right before, 1 are right now" in found.text
    assert found.rows[0] == (1, 1, 1, 0)


MEANS = st.dictionaries(
    st.text(max_size=3), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8
)


@given(MEANS, st.booleans())
def test_nothing_beats_the_front(means: dict[str, tuple[float, float]], higher: bool) -> None:
    front = [means[name] for name in on_front(means, higher)]
    for cycles, score in means.values():
        beaten = any(
            c <= cycles and (s >= score if higher else s <= score) and (c, s) != (cycles, score)
            for c, s in means.values()
        )
        assert beaten == ((cycles, score) not in front)
    assert len(set(front)) == len(front)


def test_a_notebook_draws_a_figure() -> None:
    found = figures.cycles(image_of(0))
    before = plotly.io.renderers.default
    plotly.io.renderers.default = "plotly_mimetype"
    try:
        (drawn,) = found._repr_mimebundle_(include=None, exclude=None).values()
    finally:
        plotly.io.renderers.default = before
    assert len(drawn["data"]) == len(found.plot.data)


def test_without_plotly_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['plotly'] = None; from secateur.report import figures"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install 'secateur[report]'" in run.stderr.splitlines()[-1]
