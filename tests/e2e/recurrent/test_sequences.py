"""Recurrent models that need whole sequences: PyTorch = golden = Verilator, in one inference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur import api
from secateur.capture.recurrent import decompose
from secateur.capture.steps import Sequence
from secateur.errors import SecateurError
from secateur.quantisation.prepare import prepare, quantize
from tests.support.long import long, quick
from tests.support.pipeline import build, check_image, compile_for, simulated, target

INPUTS, HIDDEN, STEPS = 5, 6, 4


class Model(nn.Module):
    """``function`` of the module itself and the input; a recurrent layer, ``inner``, and others."""

    def __init__(
        self, inner: nn.Module, function: Callable[[Model, Tensor], Tensor], **others: nn.Module
    ) -> None:
        super().__init__()
        self.inner, self.function = inner, function
        self.last = nn.Linear(HIDDEN, 3)
        self.first = nn.Parameter(torch.randn(1, 1, HIDDEN) * 0.5)
        for name, module in others.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def gru(inputs: int = INPUTS, **options: object) -> nn.GRU:
    return nn.GRU(inputs, HIDDEN, batch_first=True, **options)


def both(m: Model, x: Tensor) -> Tensor:
    outputs, _ = m.inner(x)
    return m.last(outputs[..., :HIDDEN] + outputs[..., HIDDEN:])


def in_a_loop(m: Model, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[0], HIDDEN)
    for t in range(x.shape[1]):
        h = m.inner(x[:, t], h)
    return m.last(h)


def of_columns(m: Model, x: Tensor) -> Tensor:
    """A picture, read column by column."""
    maps = torch.relu(m.conv(x.unsqueeze(1)))
    outputs, _ = m.inner(maps.permute(0, 3, 1, 2).flatten(2))
    return m.last(outputs[:, -1])


def translated(m: Model, x: Tensor) -> Tensor:
    """The state at the end of one layer begins the next."""
    _, h = m.inner(x)
    outputs, _ = m.other(x, h)
    return m.last(outputs)


WHOLE: dict[str, Callable[[], Model]] = {
    "mean over time": lambda: Model(gru(), lambda m, x: m.last(m.inner(x)[0].mean(1))),
    "both directions, mean over time": lambda: Model(
        gru(bidirectional=True), lambda m, x: m.inner(x)[0].mean(1)
    ),
    "maximum over time": lambda: Model(gru(), lambda m, x: m.last(m.inner(x)[0].amax(1))),
    "backwards": lambda: Model(gru(), lambda m, x: m.last(m.inner(x.flip(1))[0])),
    "first step": lambda: Model(gru(), lambda m, x: m.last(m.inner(x)[0][:, 0])),
    "both directions": lambda: Model(gru(bidirectional=True), both),
    "both directions, two layers": lambda: Model(
        nn.RNN(INPUTS, HIDDEN, 2, bidirectional=True, nonlinearity="relu"),
        lambda m, x: both(m, x.transpose(0, 1)).transpose(0, 1),
    ),
    "both directions, states": lambda: Model(
        nn.LSTM(INPUTS, HIDDEN, batch_first=True, bidirectional=True),
        lambda m, x: m.last(m.inner(x)[1][0][1] + m.inner(x)[1][1][0]),
    ),
    "convolution over time": lambda: Model(
        gru(),
        lambda m, x: m.last(m.inner(torch.relu(m.conv(x.transpose(1, 2))).transpose(1, 2))[0]),
        conv=nn.Conv1d(INPUTS, INPUTS, 3, padding=1),
    ),
    "convolution of a picture": lambda: Model(
        gru(2 * STEPS), of_columns, conv=nn.Conv2d(1, 2, 3, padding=1)
    ),
    "one layer, called twice": lambda: Model(
        gru(), lambda m, x: m.last(m.inner(m.inner(x)[0][..., :INPUTS])[0])
    ),
    "cell in a loop": lambda: Model(nn.GRUCell(INPUTS, HIDDEN), in_a_loop),
    "state of another layer": lambda: Model(gru(), translated, other=gru()),
    "first state, mean": lambda: Model(
        gru(), lambda m, x: m.last(m.inner(x, m.first.expand(-1, len(x), -1))[0].mean(1))
    ),
}
STEPPED: dict[str, Callable[[], Model]] = {
    "zeros as first state": lambda: Model(
        gru(), lambda m, x: m.last(m.inner(x, x.new_zeros(1, len(x), HIDDEN))[0])
    ),
    "first state": lambda: Model(
        gru(), lambda m, x: m.last(m.inner(x, m.first.repeat(1, x.shape[0], 1))[0])
    ),
    "first states": lambda: Model(
        nn.LSTM(INPUTS, HIDDEN),
        lambda m, x: m.last(
            m.inner(
                x.transpose(0, 1), (m.first.repeat(1, len(x), 1), m.first.repeat(1, len(x), 1))
            )[1][0][-1]
        ),
    ),
    "projections": lambda: Model(
        nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True, proj_size=3),
        lambda m, x: m.last(torch.cat([m.inner(x)[0], x[..., :3]], 2)),
    ),
}


def sequences(count: int, steps: int = STEPS) -> Tensor:
    x = torch.randn(count, steps, INPUTS, generator=torch.Generator().manual_seed(1))
    return torch.tanh(x.cumsum(1) * 0.5)


def noise(model: nn.Module, graph: nn.Module, x: Tensor) -> float:
    """Share of the outputs' power by which the graph errs."""
    with torch.no_grad():
        values = model(x)
        return float((graph(x) - values).square().mean() / values.var(0).mean())


#: One of each kind; the others have as many layers as these together.
QUICK = (
    "backwards", "mean over time", "convolution over time", "cell in a loop",
    "zeros as first state", "first state", "projections",
)  # fmt: skip


@pytest.mark.parametrize("name", quick((*WHOLE, *STEPPED), QUICK))
def test_every_layer(name: str) -> None:
    torch.manual_seed(0)
    model = {**WHOLE, **STEPPED}[name]().eval()
    built = build(model, sequences(24))
    assert isinstance(built.graph, Sequence) == (name in STEPPED)
    assert noise(model, built.graph, built.x) < 0.05
    for n, p in ((8, 1), (4, 3)):
        to = target(n, p, bank_words=512)
        assert check_image(built, compile_for(built, to), to.geometry) > 0


@pytest.mark.parametrize("name", [*WHOLE, *STEPPED])
def test_decomposed_layers_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    model, x = {**WHOLE, **STEPPED}[name]().eval(), sequences(4)
    with torch.no_grad():
        torch.testing.assert_close(decompose(model)(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [long("both directions"), "convolution over time"])
def test_verilator(name: str) -> None:
    torch.manual_seed(0)
    graph = quantize(WHOLE[name]().eval(), sequences(8))
    image = api.compile(graph, target=simulated(8, 8))
    x = sequences(10)[8:]
    result = api.simulate(image, x.numpy())
    assert result.mismatches == []
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(result.outputs.values), graph(x))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["GRU", "LSTM", "RNN"]),
    inputs=st.integers(1, 9),
    hidden=st.integers(1, 9),
    layers=st.integers(1, 2),
    steps=st.integers(2, 5),
    bias=st.booleans(),
    geometry=st.sampled_from([(8, 8), (4, 3), (2, 1), (16, 2)]),
)
@pytest.mark.long
def test_random_sizes(
    kind: str,
    inputs: int,
    hidden: int,
    layers: int,
    steps: int,
    bias: bool,
    geometry: tuple[int, int],
) -> None:
    torch.manual_seed(steps)
    inner = getattr(nn, kind)(inputs, hidden, layers, bias=bias, bidirectional=True)
    model = Model(inner, lambda m, x: m.inner(x.transpose(0, 1))[0].transpose(0, 1)).eval()
    built = build(model, torch.randn(8, steps, inputs))
    to = target(*geometry, bank_words=1024)
    assert check_image(built, compile_for(built, to), to.geometry) > 0


def test_training_keeps_the_weights_of_all_steps_alike() -> None:
    torch.manual_seed(0)
    model, x = WHOLE["both directions"]().eval(), sequences(8)

    def train(graph: nn.Module) -> None:
        optimiser = torch.optim.SGD(graph.parameters(), 0.1)
        graph(x).square().mean().backward()
        optimiser.step()

    prepared = prepare(model, x, qat=True)
    train(prepared)
    names = [name for name, _ in prepared.named_parameters(remove_duplicate=False)]
    shared = [name for name in names if "cells_0_new_h_weight" in name.replace(".", "_")]
    assert len(shared) == STEPS
    tensors = [dict(prepared.named_parameters(remove_duplicate=False))[name] for name in shared]
    assert all(tensor is tensors[0] for tensor in tensors)


def test_inputs_of_all_gates_are_brought_in_order_once() -> None:
    torch.manual_seed(0)
    built = build(WHOLE["maximum over time"]().eval(), sequences(8))
    copies = [layer for layer in built.network.layers if layer.kind == "copy"]
    of_input = [c for c in copies if c.sources[0].tensor is built.network.given[0]]
    assert len(of_input) == STEPS
    linear = [layer for layer in built.network.layers if layer.kind == "linear"]
    steps = [layer for layer in linear if layer.name.startswith("inner.cells.0.reset_h")]
    # The gates read a pixel of the convolution of all inputs where it is.
    assert [layer.sources[1].tensor.width for layer in steps] == [STEPS] * (STEPS - 1)
    assert [-layer.sources[1].padding[1] for layer in steps] == [1, 2, 3]


class TimeFirst(nn.Module):
    """A recurrent layer as exporters unroll it: constants in front of the samples, (1, N, F)."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(INPUTS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.begin = nn.Parameter(torch.randn(1, 1, HIDDEN))
        self.gain = nn.Parameter(torch.rand(STEPS, 1, INPUTS) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        sides = self.x(x.transpose(0, 1) * self.gain)
        h = self.begin
        for t in range(STEPS):
            h = torch.tanh(sides[t] + (self.h(h) if t else h))
        return h.squeeze(0)


@pytest.mark.parametrize("samples", [STEPS, 24])
def test_constants_in_front_of_the_samples(samples: int) -> None:
    """Also where there are as many samples as steps."""
    torch.manual_seed(0)
    model, x = TimeFirst().eval(), sequences(samples)
    built = build(model, x)
    assert noise(model, built.graph, x) < 0.05
    to = target(4, 3)
    image = compile_for(built, to)
    assert check_image(built, image, to.geometry) > 0
    copies = sum(layer["kind"] == "copy" for layer in image.metadata["layers"])
    assert copies < STEPS * HIDDEN  # of vectors, not of each value


@pytest.mark.parametrize("name", ["mean over time", "both directions, mean over time"])
def test_the_mean_of_a_sequence_reads_the_states_where_they_are(name: str) -> None:
    """At most, each step's state is copied once, and what it has of the input; not each value."""
    torch.manual_seed(0)
    image = api.compile(quantize(WHOLE[name]().eval(), sequences(8)), target=target(4, 3))
    copies = sum(layer["kind"] == "copy" for layer in image.metadata["layers"])
    assert copies <= 2 * STEPS * (2 if name.startswith("both") else 1)


def test_sequences_of_another_length() -> None:
    torch.manual_seed(0)
    graph = quantize(WHOLE["both directions"]().eval(), sequences(8))
    image = api.compile(graph, target="8x1")
    with pytest.raises(
        SecateurError, match=r"shape \(2, 5, 1, 5\), the model takes \(batch, 4, 1, 5\)"
    ) as caught:
        api.run(image, sequences(2, STEPS + 1).numpy())
    assert "\n" not in str(caught.value)


def test_packed_sequences_are_refused() -> None:
    def packed(m: Model, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        outputs, _ = m.inner(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))
        return m.last(nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0])

    with pytest.raises(
        SecateurError, match=r"^layer 'inner': is given PackedSequence; .*sequences not packed"
    ) as caught:
        quantize(Model(gru(), packed), sequences(4))
    assert "\n" not in str(caught.value)


def test_lengths_that_depend_on_the_data_are_refused() -> None:
    def by_length(m: Model, x: Tensor) -> Tensor:
        outputs, _ = m.inner(x)
        return m.last(outputs[:, : int((x[0, :, 0] > 0).sum()) + 1].mean(1))

    with pytest.raises(SecateurError, match="data-dependent control flow") as caught:
        quantize(Model(gru(), by_length), sequences(4))
    assert "\n" not in str(caught.value)
