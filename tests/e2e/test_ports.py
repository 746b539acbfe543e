"""Several inputs and outputs: PyTorch = golden = Verilog, by name and in the model's structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

import secateur
from secateur.errors import SecateurError
from secateur.image.image import Image
from tests.support.pipeline import build, check_image, compile_for, simulated, target
from tests.support.port_models import forms

FORMS = forms()
BUILT = {name: build(model, x) for name, (model, x) in FORMS.items()}


def arrays(x: Any) -> Any:
    return tree_map(lambda tensor: tensor.numpy(), x)


def image_of(name: str) -> Image:
    return compile_for(BUILT[name], simulated(4, 2))


@pytest.mark.parametrize(("n", "p"), [(8, 1), (8, 3), (4, 2), (2, 5), (16, 1)])
@pytest.mark.parametrize("name", FORMS)
def test_every_layer_and_output_is_pytorchs(name: str, n: int, p: int) -> None:
    to = target(n, p)
    assert check_image(BUILT[name], compile_for(BUILT[name], to), to.geometry) > 0


@pytest.mark.parametrize("name", FORMS)
def test_values_are_near_the_float_model(name: str) -> None:
    built, image = BUILT[name], image_of(name)
    with torch.no_grad():
        wanted = built.call.of(FORMS[name][0])
    outputs = secateur.run(image, arrays(built.x))
    found = tree_leaves(outputs.values)
    assert len(found) == len(tree_leaves(wanted))
    for value, leaf in zip(found, tree_leaves(wanted), strict=True):
        if isinstance(leaf, torch.Tensor):
            assert value.shape == leaf.shape
            assert np.abs(value - leaf.numpy()).max() < 0.15 * leaf.abs().max()
        else:
            assert value == leaf


@pytest.mark.parametrize("name", ["heads", "masked", "odd"])
def test_verilog_gives_all_outputs_in_as_many_cycles(name: str) -> None:
    image, x = image_of(name), tree_map(lambda tensor: tensor[:2].numpy(), BUILT[name].x)
    for stalls in (0.0, 0.3):
        result = secateur.simulate(image, x, stalls=stalls)
        assert result.mismatches == []
        assert result.images == 2
        assert result.outputs is not None
        golden = secateur.run(image, x)
        assert list(result.outputs.named) == list(golden.named)
        for output, values in golden.named.items():
            np.testing.assert_array_equal(result.outputs[output], values)
    assert result.cycles == result.predicted_cycles == image.cycles


def test_outputs_have_the_structure_of_the_models() -> None:
    outputs = secateur.run(image_of("heads"), arrays(FORMS["heads"][1]))
    assert list(outputs.values) == ["coarse", "fine", "scale"]
    assert outputs.values["scale"] == 2
    assert outputs.values["fine"][1] is None
    assert outputs.values["coarse"].boxes is outputs["coarse.boxes"]
    assert outputs.values["coarse"][1] is outputs["coarse.classes"]
    assert list(outputs.named) == ["coarse.boxes", "coarse.classes", "fine.0"]
    assert outputs.codes["fine"][0].dtype == np.int8
    assert outputs.named_codes["fine.0"] is outputs.codes["fine"][0]
    with pytest.raises(SecateurError, match=r"no output 'fine'; the model has 'coarse.boxes', "):
        outputs["fine"]


def test_each_input_and_output_has_a_scale_of_its_own() -> None:
    image = image_of("masked")
    picture, sensors, mask = image.metadata["inputs"]
    assert [port["name"] for port in (picture, sensors, mask)] == image.metadata["arguments"]
    assert image.metadata["arguments"] == ["batch.picture", "batch.sensors", "mask"]
    assert (picture["signed"], sensors["signed"], mask["signed"]) == (True, False, True)
    left, right = image_of("siamese").metadata["inputs"]
    assert right["exponent"] == left["exponent"] + 1


def test_an_output_costs_no_layer_unless_it_is_read_too() -> None:
    layers = image_of("heads").metadata["layers"]
    assert [layer["kind"] for layer in layers] == ["conv"] * 5
    copies = [layer for layer in image_of("siamese").metadata["layers"] if layer["kind"] == "copy"]
    assert len(copies) == 2  # both factors of the product
    named = secateur.run(image_of("odd"), arrays(FORMS["odd"][1])).named
    assert list(named)[:4] == ["output0", "output1", "output2.0", "output2.1"]
    assert named["output0"] is named["output2.1"]


def test_inputs_by_name_or_in_order() -> None:
    image, (left, right) = image_of("siamese"), arrays(FORMS["siamese"][1])
    wanted = secateur.run(image, (left, right))["output2"]
    for x in ([left, right], {"right": right, "left": left}):
        np.testing.assert_array_equal(secateur.run(image, x)["output2"], wanted)
    other = secateur.run(image, (right, left))
    assert not np.array_equal(other["output0"], secateur.run(image, (left, right))["output0"])
    x, _, maps = arrays(FORMS["odd"][1])
    for given in ({"x": x, "maps": maps}, (x, *maps)):  # without the unread one
        assert len(secateur.run(image_of("odd"), given).named) == 8


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (lambda a, b: a, "the model takes 2 inputs, not 1; give a tuple in this order"),
        (lambda a, b: (a, b, b), "the model takes 2 inputs, not 3"),
        (lambda a, b: {"left": a}, "input 'right' is missing"),
        (lambda a, b: {"left": a, "right": b, "more": b}, "no input 'more'; give a tuple"),
        (lambda a, b: (a, b[:3]), "different numbers of samples: 'left' 12, 'right' 3"),
        (lambda a, b: (a, b[:, :1]), "input 'right' has shape"),
        (lambda a, b: (a, b.astype(np.int64)), "input 'right' is int64"),
        (lambda a, b: (a, "b"), "input 'right' must be a NumPy array, not str"),
    ],
)
def test_inputs_that_do_not_fit(x: Any, says: str) -> None:
    with pytest.raises(SecateurError, match=says):
        secateur.run(image_of("siamese"), x(*arrays(FORMS["siamese"][1])))


def test_an_image_file_keeps_all_of_it(tmp_path: Any) -> None:
    image, x = image_of("heads"), arrays(FORMS["heads"][1])
    image.save(tmp_path / "m.sec")
    loaded = secateur.load(tmp_path / "m.sec")
    found, wanted = secateur.run(loaded, x), secateur.run(image, x)
    assert found.values["coarse"]._fields == ("boxes", "classes")
    for name, values in wanted.named.items():
        np.testing.assert_array_equal(found[name], values)
