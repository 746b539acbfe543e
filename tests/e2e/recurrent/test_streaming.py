"""Models of windows, a frame a step: PyTorch's own result of every window, PyTorch = golden."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur import api
from secateur.capture.streaming import frames_of, streaming
from secateur.errors import SecateurError, SecateurWarning
from secateur.quantisation.prepare import quantize
from tests.support.pipeline import build, check_image, compile_for, simulated, target

CHANNELS, WINDOW, LONG = 5, 12, 20


class Of(nn.Module):
    """A function of a module and the input."""

    def __init__(self, function: Callable[..., Tensor], *inner: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner, x)


def causal(inputs: int, outputs: int, kernel: int, dilation: int = 1, **rest: int) -> nn.Module:
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, **rest)
    return Of(lambda m, x: m(F.pad(x, ((kernel - 1) * dilation, 0))), conv)


def chomped(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
    wide = (kernel - 1) * dilation
    conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=wide)
    return Of(lambda m, x: m(x)[:, :, :-wide].contiguous(), conv)


def residual(inner: nn.Module) -> nn.Module:
    return Of(lambda m, x: torch.relu(x + m(x)), inner)


def mean() -> nn.Module:
    return Of(lambda m, x: x.mean(2))


def wake_word(channels: int = 8) -> nn.Module:
    """Depthwise separable in one dimension, as the streaming wake word of MLPerf Tiny."""

    def separable() -> list[nn.Module]:
        depthwise = nn.Conv1d(channels, channels, 3, groups=channels)
        norms = nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)
        return [
            depthwise,
            norms[0],
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
            norms[1],
            nn.ReLU(),
        ]

    front = [nn.Conv1d(CHANNELS, channels, 3), nn.BatchNorm1d(channels), nn.ReLU()]
    return nn.Sequential(*front, *separable(), *separable(), mean(), nn.Linear(channels, 3))


#: Everything is padded on the left only, or not at all, and nothing takes the window together.
ENDLESS: dict[str, Callable[[], nn.Module]] = {
    "padded on the left": lambda: nn.Sequential(causal(5, 8, 3), nn.ReLU(), causal(8, 6, 3, 2)),
    "chomped": lambda: nn.Sequential(
        chomped(5, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), residual(chomped(8, 8, 3, 2))
    ),
    "not padded": lambda: nn.Sequential(nn.Conv1d(5, 4, 3), nn.Tanh(), nn.Conv1d(4, 4, 2)),
    "residual of a crop": lambda: Of(
        lambda m, x: torch.cat([m(x), x[:, :, 1:-1]], 1), nn.Conv1d(5, 5, 3), nn.ReLU()
    ),
}
#: The results are those of the window that ends with a frame.
WINDOWS: dict[str, Callable[[], nn.Module]] = {
    "wake word": wake_word,
    "flattened": lambda: nn.Sequential(
        nn.Conv1d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (WINDOW - 2), 3)
    ),
    "maximum": lambda: Of(lambda m, x: m(x).amax(2), nn.Conv1d(5, 4, 3)),
    "last column": lambda: Of(
        lambda m, x: m[1](m[0](x)[:, :, -1]), nn.Conv1d(5, 4, 3), nn.Linear(4, 3)
    ),
    "an older column": lambda: Of(lambda m, x: m(x)[:, :, 2], nn.Conv1d(5, 4, 3)),
    "time before features": lambda: Of(
        lambda m, x: m(x.transpose(1, 2).unsqueeze(1)).mean((2, 3)), nn.Conv2d(1, 4, (3, 5))
    ),
    "gated by the mean": lambda: Of(
        lambda m, x: (m(x) * torch.sigmoid(m(x).mean(2, keepdim=True))).mean(2), nn.Conv1d(5, 4, 3)
    ),
}
#: The same, but columns are computed again in every step.
AGAIN: dict[str, Callable[[], nn.Module]] = {
    "padded on both sides": lambda: nn.Sequential(nn.Conv1d(5, 4, 3, padding=1), nn.ReLU(), mean()),
    "stride": lambda: nn.Sequential(nn.Conv1d(5, 4, 3, stride=2), nn.ReLU(), mean()),
    "pooled": lambda: nn.Sequential(nn.Conv1d(5, 4, 3), nn.MaxPool1d(2), nn.Flatten()),
}


def signals(count: int, frames: int = WINDOW) -> Tensor:
    x = torch.randn(count, CHANNELS, frames, generator=torch.Generator().manual_seed(1))
    return torch.tanh(x.cumsum(2) * 0.4)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = {**ENDLESS, **WINDOWS, **AGAIN}[name]()
    with torch.no_grad():
        model(signals(16))  # statistics of the norms
    return model.eval()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_long_signal(name: str) -> None:
    """The columns are those of PyTorch's convolutions over the whole signal."""
    model, x = made(name), signals(3, LONG)
    with torch.no_grad():
        whole = model(x).transpose(1, 2)
        found = streaming(model, signals(2))(frames_of(x, 2))
    late = LONG - whole.shape[1]
    assert found.shape == (3, LONG, whole.shape[2])
    if name == "residual of a crop":
        late = 2  # the convolution needs three frames
    torch.testing.assert_close(found[:, late:], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::secateur.errors.SecateurWarning")
@pytest.mark.parametrize("name", [*WINDOWS, *AGAIN])
def test_every_window_of_a_long_signal(name: str) -> None:
    model, x = made(name), signals(3, LONG)
    with torch.no_grad():
        found = streaming(model, signals(2))(frames_of(x, 2))
        for t in range(WINDOW - 1, LONG):
            window = model(x[:, :, t - WINDOW + 1 : t + 1]).flatten(1)
            torch.testing.assert_close(found[:, t], window, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::secateur.errors.SecateurWarning")
@pytest.mark.parametrize(
    "name", ["chomped", "not padded", "wake word", "gated by the mean", "stride"]
)
def test_every_layer_of_every_step(name: str) -> None:
    built = build(streaming(made(name), signals(2)), frames_of(signals(12), 2))
    for n, p in ((8, 1), (4, 3), (8, 8)):
        to = target(n, p, bank_words=512)
        assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_verilator() -> None:
    graph = quantize(streaming(made("wake word"), signals(2)), frames_of(signals(12), 2))
    image = api.compile(graph, target=simulated(8, 8))
    x = frames_of(signals(1, LONG), 2)
    result = api.simulate(image, x.numpy())
    assert result.mismatches == []
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(result.outputs.values), graph(x))


def test_a_history_takes_one_copy() -> None:
    """The layer in front writes the newest column at once, and the rest moves in place."""
    graph = quantize(streaming(made("padded on the left"), signals(2)), frames_of(signals(12), 2))
    image = api.compile(graph, target="8x1")
    copies = [layer for layer in image.metadata["layers"] if layer["kind"] == "copy"]
    assert len(copies) == 2 + 1  # of two histories, and of the frame, which the host has written
    assert {layer["output"] for layer in copies} == {"history_0", "history_1"}


def test_values_that_are_never_negative_keep_their_sign_in_a_history() -> None:
    graph = quantize(streaming(made("wake word"), signals(2)), frames_of(signals(12), 2))
    image = api.compile(graph, target="8x1")
    tensors = {tensor["name"]: tensor["signed"] for tensor in image.metadata["tensors"]}
    assert [tensors[f"history_{i}"] for i in range(4)] == [True, False, False, False]


@pytest.mark.long
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kernels=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    padded=st.booleans(),
    geometry=st.sampled_from([(8, 8), (4, 3), (2, 1), (16, 2)]),
)
def test_random_networks(
    kernels: list[tuple[int, int]], widths: list[int], padded: bool, geometry: tuple[int, int]
) -> None:
    torch.manual_seed(len(kernels))
    layers: list[nn.Module] = []
    inputs = CHANNELS
    for (kernel, dilation), outputs in zip(kernels, widths, strict=False):
        make = causal if padded else lambda i, o, k, d: nn.Conv1d(i, o, k, dilation=d)
        layers += [make(inputs, outputs, kernel, dilation), nn.ReLU()]
        inputs = outputs
    model, x = nn.Sequential(*layers).eval(), signals(4, 32)
    steps = streaming(model, x[:2])
    with torch.no_grad():
        whole = model(x).transpose(1, 2)
        found = steps(frames_of(x, 2))[:, 32 - whole.shape[1] :]
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    built = build(steps, frames_of(x, 2)[:, :16])
    to = target(*geometry, bank_words=1024)
    assert check_image(built, compile_for(built, to), to.geometry) > 0


@pytest.mark.parametrize("name", ["padded on both sides", "stride", "pooled"])
def test_columns_that_are_computed_again_are_pointed_out(name: str) -> None:
    with pytest.warns(SecateurWarning, match="computed for the whole window in every step"):
        streaming(made(name), signals(2))


def test_no_window() -> None:
    with pytest.raises(SecateurError, match=r"a window of shape \(2, 5\), .* give \(N, C, T\)"):
        streaming(nn.Linear(5, 3), torch.zeros(2, 5))


def test_several_results() -> None:
    model = Of(lambda m, x: (m(x), x), nn.Conv1d(5, 4, 3))
    with pytest.raises(SecateurError, match="the model has 2 outputs; stream one with"):
        streaming(model, signals(2))
