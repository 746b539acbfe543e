"""Compiling for a ring: waits as the golden model counts them, and rows that do not fit.

``pytest -m long tests/sw/compiler/test_ring.py`` compares more networks, and those of MLPerf Tiny.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import secateur
from secateur import api
from secateur.cli.main import app
from secateur.compiler.compiler import compile_network
from secateur.compiler.encode import plan_and_encode
from secateur.compiler.prepare import runnable
from secateur.compiler.room import advice
from secateur.compiler.stream.waits import predict
from secateur.errors import SecateurError
from secateur.hw.ring import Source
from secateur.hw.sdram import SOURCE as SDRAM
from secateur.hw.spec import Geometry
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.report.summary import summary
from secateur.sim import golden
from secateur.sim.ring import waits
from secateur.target import Target
from tests.support.networks import mlperf_tiny, random_input, random_network
from tests.support.pipeline import Built, build, check_image, compile_for

ARRAYS = [(8, 8, 8), (4, 3, 2), (2, 5, 1), (16, 2, 1), (8, 16, 4)]
SOURCES = [Source(), Source(interval=2, latency=5), Source(interval=3, latency=200)]


def geometry_of(n: int, p: int, s: int, ring: int) -> Geometry:
    return Geometry(n=n, p=p, s=s, weight_words=1 << 16, bank_words=4096, ring=ring)


@functools.cache
def _random(seed: int) -> Built:
    model, shape = random_network(seed)
    return build(model, random_input(seed, shape, 6))


@functools.cache
def _mlperf(kind: type[nn.Module]) -> Built:
    model, shape = mlperf_tiny(kind, 1.0)
    return build(model, torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)))


def compared(built: Built, geometry: Geometry, source: Source) -> list[list[int]]:
    """Waits of three inferences, predicted and counted cycle by cycle."""
    placed = runnable(built.network, geometry)
    planned, encoded = plan_and_encode(placed, geometry)
    program = golden.parse(encoded.data, geometry)
    found = predict(planned, encoded, geometry, source, 3)
    assert found == waits(program, source, 3)
    return found


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(s, marks=pytest.mark.long) for s in range(5, 40))]
)
def test_predicted_is_what_golden_counts(seed: int) -> None:
    geometry = geometry_of(*ARRAYS[seed % len(ARRAYS)], ring=1024 if seed % 2 else 512)
    compared(_random(seed), geometry, SOURCES[seed % len(SOURCES)])


@pytest.mark.parametrize(
    ("sizes", "source"), [((16, 8), Source()), ((24, 8, 8), Source(interval=4, latency=50))]
)
def test_words_behind_a_header_and_behind_a_pass(sizes: tuple[int, ...], source: Source) -> None:
    """Rows that are read once, in a ring that holds little more than one. Their first words are
    freed late; and the source begins with the next pass while the rest of this one is read."""
    torch.manual_seed(0)
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    built = build(nn.Sequential(*layers), torch.randn(2, sizes[0]))
    compared(built, geometry_of(2, 2, 1, 64), source)


@pytest.mark.long
@pytest.mark.parametrize("kind", [ResNet8, DSCNN, MobileNetV1, Autoencoder])
@pytest.mark.parametrize("s", [1, 8])
def test_networks_of_mlperf_tiny(kind: type[nn.Module], s: int) -> None:
    for ring in (1024, 4096):
        geometry = replace(geometry_of(8, 8, s, ring), bank_words=8192)
        compared(_mlperf(kind), geometry, SOURCES[0])


def test_resnet8_from_a_byte_per_cycle() -> None:
    """A ring of less than a quarter of the program: at most 15 % over the time on chip."""
    geometry = replace(geometry_of(8, 8, 1, 2048), bank_words=2048)
    image = compile_for(_mlperf(ResNet8), Target(name="ring", geometry=geometry))
    found = summary(image)
    assert 4 * geometry.ring <= found["words"]
    assert max(found["ring"]["memory_wait"].values()) <= 0.15 * found["cycles"]


@pytest.mark.long
def test_a_network_for_no_chip() -> None:
    """479,480 weights; the ring holds a quarter of the words, the rest comes while it computes."""
    model = ResNet8((40, 80, 160)).eval()
    to = Target.load("8x16-flash")
    built = build(model, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    assert image.geometry.ring * 3 < len(image.words)
    assert to.source is not None
    compared(built, to.geometry, to.source)


def target(ring: int, n: int = 8, p: int = 8, s: int = 1, **rate: int) -> Target:
    return Target(name="ring", geometry=geometry_of(n, p, s, ring), source=Source(**rate))


def test_an_image_says_for_which_ring_it_is(tmp_path) -> None:
    built = _random(3)
    image = compile_for(built, target(512, 4, 3, 2, interval=2, latency=9))
    assert check_image(built, image, image.geometry) > 0
    image.save(tmp_path / "ring.sec")
    image = secateur.load(tmp_path / "ring.sec")
    assert (image.geometry.ring, image.source) == (512, Source(interval=2, latency=9))
    found = summary(image)["ring"]
    program = golden.parse(image.stream, image.geometry)
    first, *_, last = waits(program, image.source, 6)
    assert found == {
        "words": 512,
        "interval": 2,
        "latency": 9,
        "memory_wait": {"full": sum(first), "next": sum(last)},
    }
    counted = [layer["memory_wait"]["full"] for layer in image.metadata["layers"]]
    assert counted == first


def wide(channels: int, kernel: int = 3) -> Built:
    model = nn.Sequential(nn.Conv2d(channels, 8, kernel, padding=kernel // 2), nn.ReLU())
    torch.manual_seed(0)
    return build(model, torch.randn(2, channels, 8, 8))


def test_a_row_longer_than_the_ring_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """9 taps of 16 channels are 144 words, with two of header."""
    built = wide(16)
    with pytest.raises(SecateurError, match=r"or choose target '.*-flash' .*, the smallest preset"):
        compile_network(built.network, target(128))
    monkeypatch.setattr(advice, "PRESETS", {})
    with pytest.raises(SecateurError) as caught:
        compile_network(built.network, target(128))
    said = str(caught.value)
    assert "takes 146 words of the ring, which has 128: prune the layer to 0.88 of its" in said
    assert said.endswith("make a target with ring = 256, as no preset has room")
    compile_network(built.network, target(256))
    huge = wide(300)
    geometry = replace(target(128).geometry, n=2, p=1)
    with pytest.raises(SecateurError, match="with bank_words = 16384 and ring = 4096, as no"):
        compile_network(huge.network, Target(name="ring", geometry=geometry))


def test_a_dense_layer_of_one_pixel_passes_through_any_ring() -> None:
    torch.manual_seed(0)
    built = build(nn.Sequential(nn.Linear(600, 64), nn.ReLU()), torch.randn(2, 600))
    for s in (1, 8):
        to = target(256, s=s)
        image = compile_for(built, to)
        assert check_image(built, image, to.geometry) > 0
        assert summary(image)["ring"]["memory_wait"]["full"] > 7 * len(image.words)
        kinds = {layer["deal"] for layer in image.metadata["layers"]}
        assert ("filters" in kinds) == (s > 1)
        compared(built, to.geometry, SOURCES[0])


def test_filter_lanes_give_way_to_the_ring() -> None:
    """Eight rows side by side, read four times, would take more words than the ring has."""
    torch.manual_seed(0)
    built = build(nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU()), torch.randn(2, 64, 2, 2))
    deals = {}
    for ring in (256, 4096):
        image = compile_for(built, target(ring, s=8))
        deals[ring] = {layer["deal"] for layer in image.metadata["layers"]}
    assert "filters" in deals[4096]
    assert "filters" not in deals[256]


def test_a_target_names_its_ring(tmp_path) -> None:
    def load(text: str) -> Target:
        file = tmp_path / "mine.toml"
        file.write_text("n = 8\np = 8\nweight_words = 65536\nbank_words = 2048\n" + text)
        return Target.load(str(file))

    found = load("ring = 2048\ninterval = 4\nlatency = 20\n")
    assert (found.geometry.ring, found.source) == (2048, Source(interval=4, latency=20))
    assert load("ring = 64\n").source == Source()
    assert load("").source is None
    found = load("ring = 64\nsdram = true\n")
    assert (found.sdram, found.source) == (True, SDRAM)
    assert not load("ring = 64\nsdram = false\n").sdram
    for text, said in (
        ("ring = 100\n", "mine.toml: ring must be 0 or a power of two, 64 to 65536, not 100"),
        ("ring = 64\ninterval = 0\n", "mine.toml: interval must be 1 to 1048576 cycles, not 0"),
        ("latency = 3\n", "mine.toml: latency is of the source of a ring; give ring"),
        ("sdram = true\n", "mine.toml: sdram is a source of a ring with a rate of its own; give"),
        ("ring = 64\nsdram = true\nlatency = 3\n", "a rate of its own; omit latency"),
        ("ring = 64\nsdram = 1\n", "mine.toml: sdram must be true or false, not 1"),
        ('ring = "x"\n', "mine.toml: ring must be an integer, not 'x'"),
    ):
        with pytest.raises(SecateurError, match=said):
            load(text)
    with pytest.raises(ValueError, match="source must be None without a ring"):
        Target(name="x", geometry=replace(target(64).geometry, ring=0), source=Source())
    with pytest.raises(ValueError, match="sdram must be False without a ring, not True"):
        Target(name="x", geometry=replace(target(64).geometry, ring=0), sdram=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interface": "uart", "divisor": 8}, "has a ring, which interface uart has no source"),
        ({"image_path": "model.sec"}, "model.sec: target .* has a ring and no ROM; omit --image"),
    ],
)
def test_what_an_engine_with_a_ring_does_not_have(tmp_path, options: dict, said: str) -> None:
    from pathlib import Path

    from secateur.files import write_verilog

    file = tmp_path / "mine.toml"
    file.write_text("n = 2\np = 1\nweight_words = 65536\nbank_words = 64\nring = 64\n")
    options = {"image_path": None} | options
    image = options.pop("image_path")
    with pytest.raises(SecateurError, match=said):
        write_verilog(str(file), tmp_path / "rtl", image and Path(image), **options)
    written = write_verilog(str(file), tmp_path / "rtl", None)
    text = Path(written["files"][0]).read_text()
    assert "// Weights: a ring, for images of up to 65536 words." in text
    with pytest.raises(ValueError, match="geometry must have no ring with wishbone, not 64"):
        api.verilog(Target.load(str(file)).geometry, interface="wishbone")


@pytest.mark.parametrize(
    "line",
    ["build --board arty-a7-100t -o out", "device serve", "verilog --interface wishbone -o out"],
)
def test_what_has_no_source_refuses_a_ring(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.toml").write_text(
        "n = 4\np = 2\nweight_words = 8192\nbank_words = 512\nring = 256\n"
    )
    result = CliRunner().invoke(app, [*line.split(), "--target", "made.toml"])
    assert result.exit_code != 0
    said = str(result.exception)
    assert "target 'made' has a ring, which " in said or "no flash that fills a ring" in said
    assert [path.name for path in tmp_path.iterdir()] == ["made.toml"]
