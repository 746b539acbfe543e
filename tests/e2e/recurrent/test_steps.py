"""Recurrent networks: PyTorch = golden = Verilator on every layer of every step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur import api
from secateur.capture.recurrent import Steps, decompose
from secateur.cli.model import show_inspection
from secateur.errors import SecateurError
from secateur.quantisation.prepare import quantize
from secateur.report.summary import summary
from tests.support.long import quick
from tests.support.pipeline import build, check_image, compile_for, simulated, target

INPUTS, HIDDEN, CLASSES = 5, 11, 3


class Classifier(nn.Module):
    """Recurrent layers and a linear one, of the last step or of every step."""

    def __init__(self, kind: str, layers: int = 1, every: bool = False, **options: object) -> None:
        super().__init__()
        make = getattr(nn, kind)
        self.inner = make(INPUTS, HIDDEN, layers, batch_first=True, **options)
        self.last, self.every = nn.Linear(HIDDEN, CLASSES), every

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.inner(x)
        return self.last(torch.relu(outputs)) if self.every else self.last(outputs[:, -1])


class LastState(nn.Module):
    """Time first inside; takes the last layer's state at the end, and gates it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(INPUTS, 7)
        self.inner = nn.LSTM(7, HIDDEN, 2)
        self.last = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.before(x)).transpose(0, 1)
        _, (h, c) = self.inner(x)
        return self.last(torch.sigmoid(c[0]) * h[-1])


class Cell(nn.Module):
    """One step, with cells and a state of its own making: a decaying sum of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.GRUCell(INPUTS, HIDDEN), nn.LSTMCell(HIDDEN, 4)
        self.last = nn.Linear(4 + INPUTS, CLASSES)

    def forward(self, x: Tensor, h: Tensor, s: Tensor, c: Tensor, total: Tensor) -> tuple:
        h = self.a(x, h)
        s, c = self.b(h, (s, c))
        total = 0.75 * total + x
        return self.last(torch.cat([s, torch.tanh(total)], 1)), h, s, c, total


class Difference(nn.Module):
    """One step; its state is the input of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(INPUTS, CLASSES)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(x - before), x


MODELS = {
    "difference": lambda: Steps(Difference(), [(INPUTS,)]),
    "gru": lambda: Classifier("GRU"),
    "lstm": lambda: Classifier("LSTM"),
    "rnn": lambda: Classifier("RNN"),
    "no bias": lambda: Classifier("GRU", bias=False),
    "two layers, every step": lambda: Classifier("GRU", 2, True),
    "relu, every step": lambda: Classifier("RNN", 2, True, nonlinearity="relu"),
    "last state": LastState,
    "cells": lambda: Steps(Cell(), [(HIDDEN,), (4,), (4,), (INPUTS,)]),
}


def sequences(count: int, steps: int = 6) -> Tensor:
    return torch.randn(count, steps, INPUTS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", quick(MODELS, ("gru", "lstm", "rnn", "no bias", "last state")))
def test_every_layer_of_every_step(name: str) -> None:
    torch.manual_seed(0)
    built = build(MODELS[name](), sequences(5))
    for n, p in ((8, 8), (4, 3), (2, 1)):
        to = target(n, p, bank_words=256)
        assert check_image(built, compile_for(built, to), to.geometry) > 0
    image = compile_for(built, simulated(4, 3))
    result = api.simulate(image, built.x[:2].numpy())
    assert result.mismatches == []
    assert result.layers_compared == 2 * 6 * len(image.metadata["layers"])


@pytest.mark.parametrize("name", MODELS)
def test_decomposed_layers_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), sequences(4)
    with torch.no_grad():
        torch.testing.assert_close(decompose(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_long_sequence_forgets_nothing_and_the_next_knows_nothing_of_it() -> None:
    torch.manual_seed(0)
    graph = quantize(MODELS["lstm"](), sequences(8))
    image = api.compile(graph, target=target(4, 3, bank_words=256))
    x = sequences(3, 40)
    values = torch.from_numpy(api.run(image, x.numpy(), batch=2).values)
    with torch.no_grad():
        assert torch.equal(values, graph(x))
        assert torch.equal(values[1:2], graph(x[1:2]))


def test_a_gru_writes_its_state_where_it_reads_it() -> None:
    """Value by value: no copy of the new state."""
    torch.manual_seed(0)
    for n, p in ((8, 8), (8, 1)):
        image = compile_for(build(MODELS["gru"](), sequences(5)), target(n, p, bank_words=256))
        assert "copy" not in [layer["kind"] for layer in image.metadata["layers"]]


class Average(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.inner, self.function = nn.GRU(INPUTS, INPUTS, batch_first=True), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Reversed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


REFUSED = {
    "a later step": (
        nn.Sequential(Reversed(), Steps(Difference(), [(INPUTS,)])),
        "another result than over whole sequences",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    model, reason = REFUSED[name]
    with pytest.raises(SecateurError, match=reason) as caught:
        quantize(model, sequences(4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.GRU(INPUTS, HIDDEN, batch_first=True),
        lambda: nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True),
    ],
)
def test_states_as_outputs(make: Callable[[], nn.Module]) -> None:
    """As the layer itself returns them: the samples are in the second dimension."""
    torch.manual_seed(0)
    model, x = make().eval(), sequences(8, 3)
    built, to = build(model, x), target(4, 3)
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    found, wanted = tree_leaves(api.run(image, x.numpy()).values), tree_leaves(model(x))
    for values, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(values), exact, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN"])
def test_an_archive_of_a_recurrent_model(kind: str) -> None:
    program = torch.export.export(Classifier(kind).eval(), (sequences(2),))
    with pytest.raises(SecateurError, match=r"in an exported graph; compile the PyTorch module"):
        quantize(program, sequences(2))


def test_inputs_that_are_no_sequences() -> None:
    with pytest.raises(SecateurError, match=r"takes \(N, T, F\), not \(4, 5\)"):
        quantize(MODELS["gru"](), torch.zeros(4, 5))
    graph = quantize(MODELS["gru"](), sequences(4))
    image = api.compile(graph, target="8x1")
    with pytest.raises(SecateurError, match=r"takes sequences \(batch, steps, 5\)"):
        api.run(image, torch.zeros(4, 5).numpy())


def test_inspect_counts_a_step_and_names_its_states(capsys: pytest.CaptureFixture[str]) -> None:
    image = api.compile(MODELS["lstm"](), target="8x1", calibration=sequences(8))
    figures = summary(image)
    show_inspection(figures)
    shown = capsys.readouterr().out
    assert len(figures["states"]) == 2
    assert "cycles per step" in shown
    steps = sequences(8).shape[1]
    assert f"cycles per sequence of {steps} steps" in shown
    assert f"{steps * image.metadata['cycles']:,}" in shown
    assert "per inference" not in shown
    assert all(name in shown for name in figures["states"])
