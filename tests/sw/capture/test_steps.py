"""Models of sequences: activations between recurrent layers, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from secateur.errors import SecateurError
from secateur.quantisation.prepare import quantize

INPUTS, HIDDEN = 5, 8
Run = Callable[[nn.Module, Tensor], Tensor]


class Model(nn.Module):
    """``run`` of a GRU and further parts."""

    def __init__(self, run: Run, *, batch_first: bool = True, **parts: nn.Module) -> None:
        super().__init__()
        self.gru = nn.GRU(INPUTS, HIDDEN, batch_first=batch_first)
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def sequences() -> Tensor:
    return torch.randn(6, 7, INPUTS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "part",
    [
        nn.Hardswish(),
        nn.LogSigmoid(),
        nn.PReLU(),
        nn.Dropout1d(),
        nn.Hardswish(inplace=True),
        nn.Mish(inplace=True),
        nn.ReLU6(inplace=True),
        nn.SELU(inplace=True),
        nn.Threshold(-0.2, -0.2, inplace=True),
    ],
)
def test_activations_of_every_step(part: nn.Module) -> None:
    torch.manual_seed(0)
    model = Model(lambda m, x: m.last(m.part(m.gru(x)[0])), part=part, last=nn.Linear(HIDDEN, 3))
    x = sequences()
    with torch.no_grad():
        torch.testing.assert_close(quantize(model, x)(x), model.eval()(x), rtol=0, atol=0.05)


def packed(m: nn.Module, x: Tensor) -> Tensor:
    lengths = torch.full((len(x),), x.shape[1])
    return m.gru(pack_padded_sequence(x, lengths, batch_first=True))[1][0]


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "time first": (
        Model(lambda m, x: m.gru(x)[0][:, -1], batch_first=False),
        r"^layer 'gru': takes \(T, N, F\).*batch_first=True",
    ),
    "packed": (Model(packed), "^layer 'gru': is given PackedSequence; .* not packed"),
    "unbatched": (Model(lambda m, x: m.gru(x[:, 0])[0]), r"^layer 'gru': is given \(\d, 5\); give"),
    "norm": (
        Model(lambda m, x: m.norm(m.gru(x)[0]), norm=nn.LayerNorm(HIDDEN)),
        "^layer 'norm' .*layer_norm.*use BatchNorm2d",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    model, message = REFUSED[name]
    with pytest.raises(SecateurError, match=message) as caught:
        quantize(model, sequences())
    assert "\n" not in str(caught.value)
