"""An input whose channels have ranges of their own gets an exponent for each."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur import api
from secateur.errors import SecateurError, SecateurWarning
from secateur.image import schema
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import quantize
from tests.support.long import quick
from tests.support.network_blocks import Call
from tests.support.pipeline import Built, build, check_image, compile_for, simulated, target
from tests.sw.image.image_files import METADATA, PORT

#: Of channels, as of cepstral coefficients.
RANGES = torch.tensor([64.0, 8.0, 8.0, 1.0, 1.0, 0.5])


class Sum(nn.Module):
    """The sum of what modules make of one input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return sum(part(x) for part in self.parts)  # type: ignore[return-value]


class Last(nn.Module):
    """A recurrent layer and a linear one of what it gives."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.inner = nn.GRU(6, 5, batch_first=True, **options)
        self.last = nn.Linear(10 if options.get("bidirectional") else 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x)[0][:, -1])


def beside_others(x: Tensor) -> Tensor:
    return torch.cat([torch.relu(x[:, :1]), x[:, 1:]], 1)


#: Shape of a sample, its axis of unlike ranges, that axis of the image, and what reads it.
FORMS: dict[str, tuple[tuple[int, ...], int, int, Callable[[], nn.Module]]] = {
    "vectors": ((6,), 0, 0, lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))),
    "signals": ((6, 9), 0, 0, lambda: nn.Conv1d(6, 8, 3, padding=1)),
    "maps": ((6, 5, 4), 0, 0, lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect")),
    "groups": ((6, 5, 4), 0, 0, lambda: nn.Conv2d(6, 6, 3, groups=3)),
    "depthwise": ((6, 5, 4), 0, 0, lambda: nn.Conv2d(6, 12, 3, groups=6)),
    "features last": (
        (9, 6),
        1,
        2,
        lambda: nn.Sequential(Call(lambda x: x.mT), nn.Conv1d(6, 8, 3)),
    ),
    "lines": ((2, 6, 4), 1, 1, lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 8))),
    "linear of lines": ((9, 6), 1, 2, lambda: nn.Linear(6, 8)),
    "two readers": ((6,), 0, 0, lambda: Sum(nn.Linear(6, 8), nn.Linear(6, 8))),
    "beside others": ((6, 9), 0, 0, lambda: nn.Sequential(Call(beside_others), nn.Conv1d(6, 8, 3))),
    "steps": ((7, 6), 1, 0, Last),
    "whole sequences": ((4, 6), 1, 2, lambda: Last(bidirectional=True)),
}


def of_ranges(name: str) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """A model and its input; and the same function of an input of such ranges, and this."""
    shape, axis, _, make = FORMS[name]
    torch.manual_seed(3)
    model, x = make().eval(), torch.randn(64, *shape)
    sized = RANGES.reshape([-1 if dim == axis else 1 for dim in range(len(shape))])
    other = copy.deepcopy(model)
    with torch.no_grad():
        for key, weight in other.named_parameters():
            if "weight" not in key or "weight_hh" in key or key.startswith(("2.", "last.")):
                continue
            if name == "lines":
                weight.div_(sized.expand(shape).flatten())
            elif weight.shape[1] == 6:
                weight.div_(RANGES.reshape(1, 6, *[1] * (weight.dim() - 2)))
            else:  # groups
                rows = RANGES.reshape(-1, weight.shape[1]).repeat_interleave(2, 0)
                weight.div_(rows[..., None, None])
        torch.testing.assert_close(other(x * sized), model(x), rtol=1e-4, atol=1e-5)
    return model, other, x, x * sized


def signal_to_noise(model: nn.Module, found: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """In dB."""
    with torch.no_grad():
        wanted = model(x)
        return float(10 * torch.log10(wanted.square().sum() / (wanted - found(x)).square().sum()))


def check(built: Built) -> None:
    for n, p in ((4, 3), (8, 2)):
        image = compile_for(built, target(n, p))
        check_image(built, image, image.geometry)


@pytest.mark.parametrize(
    "name", quick(FORMS, ("vectors", "signals", "maps", "depthwise", "features last", "lines"))
)
def test_channels_keep_their_bits(name: str) -> None:
    """As many as in the same network with an input of alike channels."""
    model, other, x, unlike = of_ranges(name)
    built = build(other, unlike)
    least = signal_to_noise(model, quantize(model, x), x)
    assert signal_to_noise(other, built.graph, unlike) > least - 2
    check(built)
    image = compile_for(built, simulated(4, 3))
    (meta,) = image.metadata["inputs"]
    assert meta["axis"] == FORMS[name][2]
    exponents = np.array(meta["exponents"])
    assert exponents.max() == meta["exponent"]
    assert np.ptp(exponents) >= 5
    axis = FORMS[name][1] - len(FORMS[name][0])
    units = np.ldexp(1.0, exponents).reshape(-1, *[1] * (-1 - axis))
    codes = np.clip(np.rint(unlike.double().numpy() / units), -128, 127).astype(np.int8)
    floats = unlike.numpy()
    np.testing.assert_array_equal(api.run(image, codes[:9]).codes, api.run(image, floats[:9]).codes)
    if name in ("vectors", "steps"):
        assert api.simulate(image, floats[:2]).mismatches == []


def test_a_saved_graph_has_them() -> None:
    """The compiler tries it with random codes."""
    _, other, _, unlike = of_ranges("signals")
    built, file = build(other, unlike), io.BytesIO()
    torch.export.save(torch.export.export(built.graph, (unlike[:2],)), file)
    loaded = torch.export.load(io.BytesIO(file.getvalue()))
    image = api.compile(loaded, target=target(4, 2))
    exponents = built.network.inputs[0].exponents.ravel().tolist()
    assert image.metadata["inputs"][0]["exponents"] == exponents
    assert len(exponents) == 6


def test_training_keeps_the_exponents_and_moves_the_weights() -> None:
    _, other, _, unlike = of_ranges("signals")

    def train(prepared: nn.Module) -> None:
        optimizer = torch.optim.SGD(prepared.parameters(), 1e-4)
        prepared(unlike).square().mean().backward()
        optimizer.step()

    weights = []
    for qat in (None, train):
        graph = quantize(other, unlike, qat=qat)
        built = Built(graph, lower(graph), unlike)
        check(built)
        assert np.ptp(built.network.inputs[0].exponents) == 7
        weights.append(built.network.layers[0].sources[0].weight)
    assert (weights[0] != weights[1]).any()


class Kept(nn.Module):
    """Layers that read an input, one of them something that has no weights for its channels."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.conv = name, nn.Conv1d(6, 6, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.div_(RANGES[:, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "residual":
            return x + self.conv(x)
        if self.name == "pool":
            return self.conv(x) + nn.functional.max_pool1d(x, 3, 1, 1)
        if self.name == "constants":
            return self.conv(nn.functional.pad(x, (1, 1), value=1.0))
        if self.name == "one channel of two tensors":
            return self.conv(torch.cat([x, torch.relu(x)], 2))
        raise AssertionError(self.name)


@pytest.mark.parametrize("name", ["residual", "pool", "constants", "one channel of two tensors"])
def test_readers_that_cannot_take_exponents_keep_one(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 6, 8) * RANGES[:, None]
    built = build(Kept(name), x)
    check(built)
    image = compile_for(built, target(4, 2))
    assert "exponents" not in image.metadata["inputs"][0]


@pytest.mark.parametrize("ranges", [torch.ones(6), RANGES])
def test_one_exponent_where_several_save_nothing(ranges: Tensor) -> None:
    """Channels alike; or the small ones have small weights, too, so that they matter little."""
    torch.manual_seed(0)
    model, x = nn.Conv1d(6, 8, 3), torch.randn(32, 6, 8) * ranges[:, None]
    with torch.no_grad():
        model.weight.mul_(ranges[:, None])
    assert lower(quantize(model, x)).inputs[0].finer.size == 1


def test_integers_and_values_out_of_range_are_named_with_their_units() -> None:
    _, other, _, unlike = of_ranges("vectors")
    image = compile_for(build(other, unlike), target(4, 2))
    exponents = image.metadata["inputs"][0]["exponents"]
    units = rf"int8 codes of 2\*\*{min(exponents)} to 2\*\*{max(exponents)}, see its exponents"
    with pytest.raises(SecateurError, match=units):
        api.run(image, np.zeros((1, 6), np.int32))
    with pytest.warns(
        SecateurWarning, match=f"clipped to at most {-128 * 2.0 ** max(exponents):g}"
    ):
        api.run(image, unlike.numpy() * 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exponents": [0, 0]}, r"axis is None, expected an integer from 0 to 2"),
        ({"axis": 3, "exponents": [0, 0]}, "axis is 3"),
        ({"axis": 0, "exponents": [0]}, "exponents has 1 entries, expected 2"),
        ({"axis": 1, "exponents": [0, 0]}, "exponents has 2 entries, expected 1"),
        ({"axis": 0, "exponents": [0, "a"]}, r"exponents\[1\] is 'a'"),
        ({"samples": 2}, "samples is 2, expected an integer from 0 to 1"),
    ],
)
def test_exponents_of_a_file_are_checked(change: dict[str, object], message: str) -> None:
    metadata = METADATA | {"inputs": [PORT | {"axis": 0, "exponents": [-3, 2]}]}
    assert schema.problem(metadata, 4, 1, 1000) is None
    metadata = METADATA | {"inputs": [PORT | change]}
    found = schema.problem(metadata, 4, 1, 1000)
    assert found is not None
    assert re.match(rf"inputs\[0\].{message}", found)
