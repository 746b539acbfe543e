"""Rows of the table of operators: what is supported and what is refused, each in a small model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from secateur.capture.recurrent import Steps

Function = Callable[..., Any]
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Row:
    """An operator, in a model that holds it as the module ``here``.

    Parameters
    ----------
    name : as a user of PyTorch names it; Markdown
    forms : what of it is meant: arguments, other spellings; Markdown
    make : the module ``here``; the model is a layer named ``first`` and this, or this alone where
        the inputs are sequences
    inputs : a key of ``INPUTS``
    host : what the host computes of the array's result, to get what the model returns
    program : what becomes of the exported model, without a layer before the operator; None to
        compile the module itself
    """

    name: str
    forms: str
    make: Make
    inputs: str = "maps"
    host: Callable[[Tensor], Tensor] = lambda values: values
    program: Callable[[ExportedProgram], ExportedProgram] | None = None


#: Of the embedding.
ROWS = 30
#: Shape of one input, and the layer before the operator; of sequences (steps, features), none.
INPUTS: dict[str, tuple[tuple[int, ...], Make]] = {
    "maps": ((3, 6, 6), lambda: nn.Conv2d(3, 4, 3, padding=1)),
    "signals": ((3, 8), lambda: nn.Conv1d(3, 4, 3, padding=1)),
    "vectors": ((6,), lambda: nn.Linear(6, 4)),
    "sequences": ((5, 3), nn.Identity),
    "tokens": ((5, 8), nn.Identity),
    "integers": ((5,), nn.Identity),
}


class Here(nn.Module):
    """``function`` of a tensor and of what ``operand``, if there is one, makes of it."""

    def __init__(self, function: Function, operand: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.operand = function, operand

    def forward(self, x: Tensor) -> Any:
        return self.function(x) if self.operand is None else self.function(x, self.operand(x))


class Last(nn.Module):
    """The output of a recurrent layer at the last step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)[0][:, -1]


class OverTime(nn.Module):
    """The mean of a recurrent layer that takes time first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return torch.relu(self.layer(x.transpose(0, 1))[0]).mean(0)


class Attention(nn.Module):
    """Attention of a tensor to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x, x)[0]


class Cell(nn.Module):
    """One time step: (x, h) or (x, h, c) -> (y, *states)."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        if len(states) == 1:
            after = self.cell(x, states[0])
            return after, after
        h, c = self.cell(x, states)
        return h, h, c


class Loop(nn.Module):
    """A cell in a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h


def calls(function: Function, operand: Make | None = None) -> Make:
    return lambda: Here(function, None if operand is None else operand())


def constants(x: Tensor) -> Tensor:
    """A sum with constants as large as the batch, and zeros beside it."""
    size = (x.shape[0], 4)
    x = x + torch.ones(size) + x.new_ones(size) + x.new_zeros(size)
    x = x + torch.full(size, 0.5) + x.new_full(size, 0.25)
    return torch.cat([x, torch.zeros(x.shape[0], 2)], 1)


def point() -> nn.Module:
    return nn.Conv2d(4, 4, 1)


def written(x: Tensor) -> Tensor:
    """Changed through views, and by a mask."""
    x = x.clone()
    x[:, 0] = 0.25
    x[:, :, 1:3] += x[:, :, 2:4].relu()
    x[:, :, :, 1].mul_(-2)
    x[x > 0.5] = 0.5
    return x


def gate() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())


def norm(kind: type[nn.Module]) -> nn.Module:
    """A BatchNorm with statistics that are not those of a new one."""
    layer = kind(4)
    with torch.no_grad():
        layer.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr,operator]
        layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr,operator]
    return layer


def before(here: nn.Module, operand: nn.Module) -> nn.Module:
    """An operator that needs a layer behind it."""
    return nn.Sequential(OrderedDict(inner=here, operand=operand))


LAYERS = (
    Row("`nn.Conv2d`", "any kernel, stride, dilation and zero padding, also by name (`same`)",
        lambda: nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding="valid", dilation=(1, 2))),
    Row("`nn.Conv2d`, depthwise", "`groups` = inputs = outputs",
        lambda: nn.Conv2d(4, 4, 3, padding="same", groups=4)),
    Row("`nn.Conv1d`", "signals (N, C, L); as Conv2d", lambda: nn.Conv1d(4, 5, 3, stride=2),
        "signals"),
    Row("`nn.Conv1d`, depthwise", "`groups` = inputs = outputs",
        lambda: nn.Conv1d(4, 4, 4, padding="same", groups=4), "signals"),
    Row("`nn.Linear`", "behind flatten: (N, features)", lambda: nn.Linear(4, 3), "vectors"),
    Row("`nn.BatchNorm2d`", "behind a convolution: folded", lambda: norm(nn.BatchNorm2d)),
    Row("`nn.BatchNorm2d`, alone", "anywhere else",
        lambda: nn.Sequential(nn.MaxPool2d(2), norm(nn.BatchNorm2d))),
    Row("`nn.BatchNorm1d`", "behind Linear or Conv1d: folded", lambda: norm(nn.BatchNorm1d),
        "vectors"),
    Row("`F.pad`, `nn.ZeroPad2d`", "zeros around maps or signals, before a layer that reads them",
        lambda: before(nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(4, 2, 3))),
    Row("`nn.ZeroPad1d`", "as ZeroPad2d",
        lambda: before(nn.ZeroPad1d((2, 0)), nn.Conv1d(4, 2, 3)), "signals"),
    Row("`torch.constant_pad_nd`", "with 0",
        lambda: before(Here(lambda x: torch.constant_pad_nd(x, (1, 0))), nn.Conv2d(4, 2, 3))),
)  # fmt: skip

#: Behind a convolution, Linear or sum; these clip.
CLIPPING = (
    Row("`nn.ReLU`, `F.relu`", "in place, too", lambda: nn.ReLU(inplace=True)),
    Row("`nn.ReLU6`, `F.relu6`", "in place, too", calls(F.relu6)),
    Row("`nn.Hardtanh`", "any bounds", lambda: nn.Hardtanh(-0.5, 0.75)),
    Row("`torch.clamp`", "bounds that are numbers", calls(lambda x: x.clamp(-0.5, 0.75))),
    Row("`torch.clamp`, one-sided", "`min` alone", calls(lambda x: torch.clamp(x, min=-0.2))),
    Row("`torch.clip`", "as clamp", calls(lambda x: x.clip(max=0.4))),
    Row("`torch.clamp_min`", "", calls(lambda x: torch.clamp_min(x, 0.0))),
    Row("`torch.clamp_max`", "", calls(lambda x: torch.clamp_max(x, 0.3))),
    Row("`nn.ReLU` behind another", "clips of a clip are one",
        lambda: nn.Sequential(nn.Hardtanh(), nn.ReLU())),
    Row("`nn.ReLU`, alone", "where others read its argument",
        calls(lambda x: F.relu(x) + F.max_pool2d(x, 3, 1, 1))),
    Row("`torch.clamp`, one-element tensors", "`maximum`, `minimum` with a number, too",
        calls(lambda x: torch.maximum(x.clamp(torch.tensor(-1.0), torch.tensor(0.5)),
                                      torch.tensor(-0.5)))),
)  # fmt: skip

#: One value to one value, 256 codes at a time.
LOOKED_UP = (
    Row("`nn.Sigmoid`, `torch.sigmoid`", "", nn.Sigmoid),
    Row("`nn.Hardsigmoid`", "", nn.Hardsigmoid),
    Row("`nn.LogSigmoid`", "", nn.LogSigmoid),
    Row("`nn.Tanh`, `torch.tanh`", "", nn.Tanh),
    Row("`nn.Tanhshrink`", "x - tanh(x)", nn.Tanhshrink),
    Row("`nn.SiLU`", "", nn.SiLU),
    Row("`nn.Hardswish`", "", nn.Hardswish),
    Row("`nn.GELU`", "both approximations", lambda: nn.Sequential(nn.GELU(), nn.GELU("tanh"))),
    Row("`nn.Mish`", "", nn.Mish),
    Row("`nn.ELU`", "", lambda: nn.ELU(0.8)),
    Row("`nn.SELU`", "", nn.SELU),
    Row("`nn.CELU`", "", lambda: nn.CELU(0.8)),
    Row("`nn.LeakyReLU`", "", lambda: nn.LeakyReLU(0.1)),
    Row("`nn.PReLU`", "one slope for all channels", nn.PReLU),
    Row("`nn.PReLU`, per channel", "one slope per channel", lambda: nn.PReLU(4)),
    Row("`nn.Softplus`", "", nn.Softplus),
    Row("`nn.Softsign`", "x / (1 + abs(x))", nn.Softsign),
    Row("`nn.Hardshrink`", "", lambda: nn.Hardshrink(0.2)),
    Row("`nn.Softshrink`", "", lambda: nn.Softshrink(0.2)),
    Row("`nn.Threshold`", "", lambda: nn.Threshold(0.1, -0.3)),
    Row("`torch.exp`", "", calls(torch.exp)),
    Row("`torch.log`", "of what is positive", calls(lambda x: x.clamp(0.125, 8).log())),
    Row("`torch.sqrt`", "of what is not negative", calls(lambda x: F.relu(x).sqrt())),
    Row("`torch.rsqrt`", "of what is positive", calls(lambda x: x.clamp(0.125, 8).rsqrt())),
    Row("`torch.reciprocal`", "of what is not zero",
        calls(lambda x: x.clamp(0.25, 8).reciprocal())),
    Row("`torch.square`", "`x ** 2`, too", calls(lambda x: x**2)),
    Row("`torch.pow`", "a constant exponent", calls(lambda x: x**3)),
    Row("`torch.abs`", "", calls(torch.abs)),
    Row("`torch.sin`", "", calls(lambda x: torch.sin(3 * x))),
    Row("`torch.cos`", "", calls(torch.cos)),
    Row("`torch.atan`", "", calls(torch.atan)),
    Row("`torch.erf`", "", calls(torch.erf)),
    Row("functions written out", "any mix of functions of one tensor with numbers: one table",
        calls(lambda x: x * F.relu6(x + 3) / 6 + torch.maximum(x, 0.1 * x).tanh())),
    Row("`torch.log1p`, `expm1`, `exp2`, `sinc`, ...", "every function of one number of PyTorch",
        calls(lambda x: torch.log1p(F.relu(x)).expm1().exp2() * torch.sinc(x))),
    Row("`torch.round`, `floor`, `ceil`, `trunc`, `sign`", "`div` with rounding, too",
        calls(lambda x: torch.round(4 * x) / 4 + torch.div(x, 0.5, rounding_mode="floor")
              + torch.floor_divide(x, 0.25) + torch.sign(x))),
    Row("`>`, `<`, `>=`, `<=`, `==` of a number", "gates of 0 and 1, for `*` and `&`",
        calls(lambda x: x * ((x > 0) & (x < 9)).type_as(x) + (x - 0.1) * (x >= 0.1))),
    Row("`torch.where`, `masked_fill`", "with functions of one tensor",
        calls(lambda x: torch.where(x > 0.1, x, torch.zeros_like(x)).masked_fill(x < -0.2, -0.1)
              + torch.ones_like(x) * torch.full_like(x, 0.5))),
    Row("`Tensor.double`, `half`", "and back, between functions",
        calls(lambda x: (x.double().sigmoid() * 2).float())),
    Row("`nn.Softmax` of two values", "the sigmoid of their difference",
        calls(lambda x: torch.stack([x, x.square()], 1).softmax(1)[:, 0])),
)  # fmt: skip

ARITHMETIC = (
    Row("`+` (residual)", "two tensors of one shape; an activation behind it joins",
        calls(lambda x, y: F.relu(x + y), point)),
    Row("`-`", "two tensors of one shape", calls(lambda x, y: x - y, point)),
    Row("`*`", "two tensors of one shape", calls(lambda x, y: x * y, point)),
    Row("`*` (squeeze and excitation)", "(N, C, 1, 1) with (N, C, H, W)",
        calls(lambda x, y: x * y, gate)),
    Row("`/`", "two tensors of one shape", calls(lambda x, y: x / (y.square() + 1), point)),
    Row("`/`, a constant above", "", calls(lambda x: 2 / (x.square() + 1))),
    Row("`+`, `-`, `*`, `/` with constants", "a number, or one value per channel",
        calls(lambda x: (x - 0.1) / torch.full((1, 4, 1, 1), 0.25) * torch.tensor(0.5))),
    Row("`1 - x`, `torch.rsub`", "a number, one value per channel, or a tensor of the same shape",
        calls(lambda x: torch.rsub(torch.rsub(x, 1.0), x))),
    Row("`*`, a mask", "one value of any type per channel",
        calls(lambda x: x * torch.tensor([True, False, True, True]).view(1, 4, 1, 1))),
    Row("`*`, one value per group of channels", "tensors of more dimensions",
        calls(lambda x: x.view(-1, 2, 2, 6, 6) * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))),
    Row("`-x`, `torch.neg`", "", calls(torch.neg)),
    Row("`torch.maximum`, `minimum`, `fmax`, `fmin`", "two tensors of shapes that broadcast",
        calls(lambda x, y: torch.fmin(torch.maximum(x, y), torch.fmax(x / 2, torch.minimum(x, y))),
              point)),
    Row("`torch.clamp`, `clip`, bounds that are tensors", "",
        calls(lambda x, y: torch.clamp(x, y - 0.5, y).clip(max=-y).clamp_min(y - 1).clamp_max(x),
              point)),
    Row("`>`, `<`, `>=`, `<=` of two tensors", "gates",
        calls(lambda x, y: (x > y) * x + (x <= -0.5 * y) * y + (x >= 2 * y) * x + (x < -y) * y,
              point)),
    Row("`torch.where` of two tensors", "the condition may be a constant; `masked_fill`, too",
        calls(lambda x, y: torch.where(y > 0, x * y, 0.0) + torch.where(y < 0, 0.25, x * y + 0.25)
              + torch.where(torch.arange(6) > 2, x, y), point)),
    Row("`torch.add`, `sub`, `rsub` with `alpha`", "",
        calls(lambda x, y: torch.sub(torch.add(x, y, alpha=2), y.tanh(), alpha=0.5), point)),
    Row("`torch.addcmul`, `lerp`, `nn.GLU`, ...", "what PyTorch defines by others of these",
        calls(lambda x, y: torch.addcmul(x, y, y, value=0.5)
              .lerp(F.glu(torch.cat([x, y], 1), 1), 0.25), point)),
    Row("`+`, `*`, a constant per pixel", "stored once per inference; equal pixels at once",
        calls(lambda x: x * (torch.arange(6) > 2) + torch.linspace(0, 1, 6).view(6, 1))),
    Row("`*`, a constant per channel, channels last", "",
        calls(lambda x: (x.movedim(1, 3) * torch.tensor([1.0, 2, 3, 4])).movedim(3, 1))),
    Row("`F.normalize`, `torch.linalg.vector_norm`", "any order",
        calls(lambda x: F.normalize(x) * torch.linalg.vector_norm(x, torch.inf, (2, 3), True))),
    Row("operations in place, of a part", "`x[:, 0] = 0`, `x[x > 1] = 1`, `x[..., 1:] *= 2`",
        lambda: Here(written)),
    Row("operations in place", "`relu_`, `add_`, `clamp_`, ...",
        calls(lambda x, y: y.add_(x).clamp_(0, 4), point)),
)  # fmt: skip

POOLING = (
    Row("`nn.MaxPool2d`", "stride, padding, dilation, `ceil_mode`",
        lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    Row("`nn.MaxPool1d`", "as MaxPool2d", lambda: nn.MaxPool1d(3, 2, 1), "signals"),
    Row("`nn.AdaptiveMaxPool2d`", "an output size that divides the map's",
        lambda: nn.AdaptiveMaxPool2d((2, 3))),
    Row("`nn.AdaptiveMaxPool2d`, uneven", "one layer for each kind of window",
        lambda: nn.AdaptiveMaxPool2d((4, 3))),
    Row("`nn.AdaptiveMaxPool1d`", "any output size", lambda: nn.AdaptiveMaxPool1d(3), "signals"),
    Row("`torch.amax`", "over height and width", calls(lambda x: x.amax((2, 3)))),
    Row("`torch.amax`, of signals", "over the length", calls(lambda x: x.amax(-1)), "signals"),
    Row("`nn.AvgPool2d`", "stride, counted padding, `divisor_override`",
        lambda: nn.AvgPool2d(2, 2, 1, divisor_override=3)),
    Row("`nn.AvgPool2d`, other divisors", "`count_include_pad=False`; `ceil_mode` that reaches out",
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
    Row("`nn.AvgPool1d`", "as AvgPool2d", lambda: nn.AvgPool1d(2), "signals"),
    Row("`nn.AdaptiveAvgPool2d`", "an output size that divides the map's",
        lambda: nn.AdaptiveAvgPool2d(1)),
    Row("`nn.AdaptiveAvgPool2d`, uneven", "one layer for each kind of window",
        lambda: nn.AdaptiveAvgPool2d((4, 3))),
    Row("`nn.AdaptiveAvgPool1d`", "any output size", lambda: nn.AdaptiveAvgPool1d(3), "signals"),
    Row("`torch.mean`", "over height and width", calls(lambda x: x.mean((2, 3), keepdim=True))),
    Row("`torch.mean`, of signals", "over the length", calls(lambda x: x.mean(-1)), "signals"),
    Row("GeM pooling", "`clamp(min).pow(p)`, mean, `pow(1 / p)`",
        calls(lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))),
)  # fmt: skip

SHAPES = (
    Row("`torch.zeros`, `ones`, `full`", "one value for all samples; `new_zeros` and the like",
        calls(constants), "vectors"),
    Row("`torch.cat`", "channels (dim 1), of tensors in one concatenation each",
        lambda: before(Here(lambda x, y: torch.cat([x, y], 1), point()), nn.Conv2d(8, 2, 1))),
    Row("`torch.concat`, `torch.concatenate`", "a tensor that is there twice, or is the output",
        calls(lambda x: torch.concatenate([torch.concat([x, x], 1)], 1))),
    Row("`nn.Flatten`, `torch.flatten`", "(N, C, H, W) to (N, C * H * W)", nn.Flatten),
    Row("`Tensor.view`, `reshape`", "to (N, features), (N, C, 1, 1) or the shape it has",
        calls(lambda x: x.reshape(x.shape[0], -1))),
    Row("`torch.squeeze`, `unsqueeze`", "dimensions of one",
        calls(lambda x: x[..., None, None].squeeze(-1).squeeze((2,)).unsqueeze(2).squeeze()),
        "vectors"),
    Row("`nn.Dropout`, `nn.Dropout2d`", "in evaluation mode",
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5))),
    Row("`clone`, `contiguous`, `detach`", "", calls(lambda x: x.clone().contiguous().detach())),
    Row("`Tensor.float`, `to(torch.float32)`", "a cast to the type that it has",
        calls(lambda x: x.float())),
    Row("`nn.Softmax`", "only at the very end: left to the host, with a warning",
        lambda: nn.Softmax(1), "vectors", lambda values: values.softmax(1)),
    Row("`nn.LogSoftmax`", "only at the very end: left to the host, with a warning",
        lambda: nn.LogSoftmax(1), "vectors", lambda values: values.log_softmax(1)),
)  # fmt: skip

#: One inference is one time step; or a whole sequence, where a step needs later ones.
RECURRENT = (
    Row("`nn.GRU`", "any number of layers",
        lambda: Last(nn.GRU(3, 4, batch_first=True)), "sequences"),
    Row("`nn.LSTM`", "as GRU", lambda: Last(nn.LSTM(3, 4, batch_first=True)), "sequences"),
    Row("`nn.LSTM`, projections", "`proj_size`",
        lambda: Last(nn.LSTM(3, 4, proj_size=2, batch_first=True)), "sequences"),
    Row("`nn.RNN`", "tanh", lambda: Last(nn.RNN(3, 4, batch_first=True)), "sequences"),
    Row("`nn.RNN`, relu", "`nonlinearity='relu'`",
        lambda: Last(nn.RNN(3, 4, nonlinearity="relu", batch_first=True)), "sequences"),
    Row("`nn.GRU`, two directions", "whole sequences",
        lambda: Last(nn.GRU(3, 4, bidirectional=True, batch_first=True)), "sequences"),
    Row("`nn.GRU`, mean over time", "whole sequences; time first, too",
        lambda: OverTime(nn.GRU(3, 4)), "sequences"),
    Row("`nn.GRUCell`, in a loop", "whole sequences", Loop, "sequences"),
    Row("`nn.Embedding`", "of an input of integers: the host looks them up",
        lambda: nn.Sequential(nn.Embedding(ROWS, 8), nn.Linear(8, 4)), "integers"),
    Row("`nn.GRUCell`", "in `secateur.Steps`",
        lambda: Steps(Cell(nn.GRUCell(3, 4)), [(4,)]), "sequences"),
    Row("`nn.LSTMCell`", "in `secateur.Steps`",
        lambda: Steps(Cell(nn.LSTMCell(3, 4)), [(4,), (4,)]), "sequences"),
    Row("`nn.RNNCell`", "in `secateur.Steps`",
        lambda: Steps(Cell(nn.RNNCell(3, 4)), [(4,)]), "sequences"),
)  # fmt: skip
