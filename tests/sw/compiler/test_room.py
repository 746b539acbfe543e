"""What is too small is named with what is needed, and each remedy works."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import secateur
from secateur.compiler import schedule
from secateur.compiler.compiler import compile_network
from secateur.errors import SecateurError
from secateur.ir import Network
from secateur.target import PRESETS, Target
from tests.support.pipeline import build, target


def network(model: nn.Module, *shape: int) -> Network:
    torch.manual_seed(0)
    return build(model.eval(), torch.randn(2, *shape)).network


def chain(*channels: int) -> nn.Module:
    return nn.Sequential(
        *(part for i, o in pairwise(channels) for part in (nn.Conv2d(i, o, 1), nn.ReLU()))
    )


def message(net: Network, to: Target) -> str:
    with pytest.raises(SecateurError) as caught:
        compile_network(net, to)
    return str(caught.value)


def test_the_most_words_at_once_are_counted_and_named() -> None:
    """Maps of 1,024 pixels on one lane; of five, two are alive at a time."""
    net = network(chain(8, 16, 32, 8, 8), 8, 32, 32)
    said = message(net, target(8, 1, bank_words=2048))
    assert said.startswith(
        "the activations do not fit the banks: layer '2' needs 6144 words of each at once "
        "(4096 for 'relu_1' (32 x 32 x 32), 2048 for 'relu' (16 x 32 x 32)), the target has 2048; "
    )
    # The input and the first map behind these layers are whole, and strips of one column are not.
    found = re.search("; in strips it takes ([0-9]+) or more: choose", said)
    assert found is not None
    assert int(found[1]) == 2 * 1024 + 6 * 32


def test_the_smallest_preset_with_room_is_named() -> None:
    net = network(chain(3, 24, 24, 24), 3, 40, 40)
    found = re.search(r"choose target '(.*)' \((.*)\), the smallest", message(net, PRESETS["8x1"]))
    assert found is not None
    other = PRESETS[found.group(1)]
    assert other.device == found.group(2)
    compile_network(net, other)
    for smaller in PRESETS.values():
        on_chip = not smaller.geometry.ring
        if on_chip and smaller.geometry.multipliers < other.geometry.multipliers:
            assert "do not fit the banks" in message(net, smaller)


def test_the_memories_of_a_target_are_named_if_no_preset_has_room() -> None:
    net, small = network(chain(3, 64, 384, 384), 3, 12, 12), target(8, 4, bank_words=1024)
    small = replace(small, geometry=replace(small.geometry, weight_words=4096))
    said = message(net, small)
    sizes = {key: int(n) for key, n in re.findall(r"(bank_words|weight_words) = (\d+)", said)}
    assert said.endswith("as no preset has room")
    assert set(sizes) == {"bank_words", "weight_words"}
    compile_network(net, replace(small, geometry=replace(small.geometry, **sizes)))
    for key, less in (
        ("bank_words", sizes["bank_words"] // 2),
        ("weight_words", sizes["weight_words"] - 1),
    ):
        tight = replace(small.geometry, **(sizes | {key: less}))
        message(net, replace(small, geometry=tight))


def test_no_array_has_room() -> None:
    said = message(network(nn.Conv2d(64, 64, 1), 64, 120, 120), target(8, 1))
    assert said.endswith("make the model or its input smaller: no array of 8 x 1 has room")


def test_weights_are_counted_before_anything_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(chain(64, 256, 256), 64, 4, 4)
    small = target(8, 8, weight_words=1024)

    def no_plan(*arguments: object) -> object:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(schedule, "Chooser", no_plan)
        with pytest.raises(AssertionError):  # by the advice
            compile_network(net, small)
    least = 64 * 256 // 8 + 256 * 256 // 8  # blocks
    found = re.match(r"the image takes at least (\d+) words, .* has 1024: ", message(net, small))
    assert found is not None
    assert least < int(found.group(1)) < 1.02 * least


@pytest.mark.parametrize("words", [1024, 3000, 8000, 10250])
def test_the_density_that_is_named_fits(words: int) -> None:
    torch.manual_seed(0)
    model, x = chain(64, 256, 256), torch.randn(2, 64, 4, 4)
    small = target(8, 8, weight_words=words)
    said = message(build(model, x).network, small)
    found = re.search(r": prune to a density of (0\.\d\d) \(it is 1\.00\), or ", said)
    assert found is not None
    density = float(found.group(1))
    secateur.prune(model, density=density, n=8)
    image = compile_network(build(model, x).network, small)
    assert len(image.stream) // 9 > 0.95 * words - 100


def test_pruning_is_not_advised_where_the_banks_are_too_small_as_well() -> None:
    net = network(chain(8, 128, 128), 8, 32, 32)
    small = target(8, 8, bank_words=1024, weight_words=1024)
    said = message(net, small)
    assert said.startswith("the image takes")
    assert "prune" not in said


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.MaxPool2d(2), "layer '1' is max pooling, which the target's lanes do not support"),
        (nn.Sigmoid(), "layers '0' look up activation tables, the target has none"),
    ],
)
def test_what_the_lanes_lack(layer: nn.Module, reason: str) -> None:
    net = network(nn.Sequential(nn.Conv2d(3, 8, 1), layer), 3, 8, 8)
    said = message(net, PRESETS["up5k"])
    assert said.startswith(reason)
    assert said.endswith(": choose target '8x1' (LFE5U-25F), the smallest preset with room")
