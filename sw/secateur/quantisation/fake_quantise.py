"""Fake quantisers with power-of-two scales, symmetric, zero point 0.

The exponent is the one of least mean squared error, or trained; the harmoniser may raise it.
Gradients are straight-through, masked where a value is clipped.

References
----------
Straight-through gradients: Bengio et al., "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation", 2013 (arXiv:1308.3432). Trained exponents: Jain et al.,
"Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep Neural
Networks" (TQT), MLSys 2020 (arXiv:1903.08066).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torchao.quantization.pt2e import FakeQuantizeBase

from secateur.errors import SecateurError

BINS = 4096
#: Values below are within a power of two that float32 has.
LARGEST = 2.0**127
#: Exponents below the smallest without clipping that are tried.
CANDIDATES = 6
#: Exponent of a channel or tensor without any nonzero value; the harmoniser raises it.
DEAD = -100
#: Factor of the statistics of earlier batches, in training.
DECAY = 0.99


class _TrainedScale(torch.autograd.Function):
    """TQT, equations 6 to 8: rounds to ``scale``, with a gradient for the logarithm of it."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, logarithm: torch.Tensor, scale: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        ratio = x / scale
        ctx.save_for_backward(ratio, scale)
        ctx.low, ctx.high, ctx.shape = low, high, logarithm.shape
        return ratio.round().clamp(low, high) * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ratio, scale = ctx.saved_tensors
        codes = ratio.round()
        inside = (codes >= ctx.low) & (codes <= ctx.high)
        slope = torch.where(inside, codes - ratio, codes.clamp(ctx.low, ctx.high))
        each = gradient * slope * scale * math.log(2)
        summed = each.flatten(1).sum(1) if ctx.shape else each.sum()
        return gradient * inside, summed.reshape(ctx.shape), None, None, None


class PowerOfTwo(FakeQuantizeBase):  # type: ignore[misc]
    """The common part of both fake quantisers: PT2E reads dtype, qscheme, quant_min and quant_max.

    Parameters
    ----------
    dtype : int8 or uint8
    qscheme : for PT2E; symmetric
    quant_min, quant_max : bounds of the codes
    qat : fake-quantise from the start (training) instead of only observing

    Attributes
    ----------
    exponent : log2 of the scale, a number or (O,)
    floor : lower bound of the exponent
    logarithm : of trained scales; rounded up it is the exponent
    """

    exponent: torch.Tensor
    floor: torch.Tensor
    logarithm: torch.nn.Parameter | None

    def __init__(
        self, dtype: torch.dtype, qscheme: torch.qscheme, quant_min: int, quant_max: int, qat: bool
    ) -> None:
        super().__init__()
        self.dtype, self.qscheme = dtype, qscheme
        self.quant_min, self.quant_max = quant_min, quant_max
        self.is_dynamic = False
        self.enable_fake_quant(qat)
        self.register_buffer("exponent", torch.zeros(0, dtype=torch.int32))
        self.register_parameter("logarithm", None)

    def train_scale(self) -> None:
        """Train the exponent from now on.

        The logarithm begins half a step below it: as far as possible from both neighbours.
        """
        self.logarithm = torch.nn.Parameter(self.exponent.float() - 0.5)

    def settle(self) -> None:
        """Bring the exponent up to date with the last step of training."""
        if self.logarithm is not None:
            self.exponent = torch.maximum(self._trained(), self.floor)

    def _trained(self) -> torch.Tensor:
        assert self.logarithm is not None
        return self.logarithm.detach().ceil().to(torch.int32)

    @property
    def largest(self) -> int:
        """The largest magnitude of a code."""
        return max(-self.quant_min, self.quant_max)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales 2**exponent and zero points 0, for PT2E's ``convert``."""
        return torch.exp2(self.exponent.float()), torch.zeros_like(self.exponent)


class ActivationFakeQuantize(PowerOfTwo):
    """Per tensor, from a histogram of magnitudes over a power-of-two range.

    Counts of neighbouring bins are merged when the range doubles, so the result does not depend
    on rounding.

    Parameters
    ----------
    dtype : int8 or uint8
    qscheme : for PT2E; symmetric
    quant_min, quant_max : bounds of the codes
    qat : fake-quantise from the start; older batches then fade by ``DECAY``
    is_dynamic : is ignored; PT2E gives it
    """

    histogram: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_tensor_symmetric,
        quant_min: int = -128,
        quant_max: int = 127,
        qat: bool = False,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, qscheme, quant_min, quant_max, qat)
        self.decay = DECAY if qat else 1.0
        self.register_buffer("histogram", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("range_exponent", torch.tensor(DEAD, dtype=torch.int32))
        self.register_buffer("floor", torch.tensor(DEAD, dtype=torch.int32))

    @property
    def observed(self) -> bool:
        """Whether the quantiser has seen data, or has an exponent."""
        return bool(self.histogram.any()) or bool(self.exponent.numel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observe and fake-quantise activations of any shape."""
        if self.observer_enabled[0]:
            self.observe(x.detach())
            self.choose()
        self.settle()
        if not self.fake_quant_enabled[0]:
            return x
        if self.logarithm is not None:
            scales = torch.exp2(self.exponent.float())
            return _trained_scale(x, self.logarithm, scales, self.quant_min, self.quant_max)
        scale = 2.0 ** int(self.exponent)
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, self.quant_min, self.quant_max)

    def observe(self, x: torch.Tensor) -> None:
        """Count the magnitudes of activations of any shape.

        Raises
        ------
        SecateurError : they are not finite, or too large
        """
        magnitudes = x.float().abs().flatten()
        top = float(magnitudes.max()) if magnitudes.numel() else 0.0
        if not math.isfinite(top):
            raise SecateurError(
                "calibration: the model computes infinite or NaN values; check its weights"
            )
        if top >= LARGEST:
            raise SecateurError(
                f"calibration: the model computes values of {top:.3g}; check its weights"
            )
        if self.quant_min == 0:
            magnitudes = x.float().flatten().clamp(min=0)
        self.histogram.mul_(self.decay)
        if top == 0.0:
            return
        needed = max(math.frexp(top)[1], -90)
        current = int(self.range_exponent)
        if current == DEAD:
            self.range_exponent.fill_(needed)
        while int(self.range_exponent) < needed:
            merged = self.histogram.reshape(-1, 2).sum(1)
            self.histogram.zero_()
            self.histogram[: BINS // 2] = merged
            self.range_exponent += 1
        limit = 2.0 ** int(self.range_exponent)
        nonzero = magnitudes[magnitudes > 0]
        self.histogram += torch.histc(nonzero, bins=BINS, min=0.0, max=limit).double()

    def choose(self) -> None:
        """Set the exponent from the statistics: least squared error of rounding and clipping."""
        best = DEAD
        if int(self.range_exponent) != DEAD and bool(self.histogram.any()):
            span = math.ldexp(1.0, int(self.range_exponent))
            values = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (span / BINS)
            counts = self.histogram.cpu()
            start = int(self.range_exponent) - (8 if self.quant_min == 0 else 7) + 1
            errors = {}
            for exponent in range(start, start - CANDIDATES - 2, -1):
                step = math.ldexp(1.0, exponent)
                excess = (values - self.quant_max * step).clamp(min=0.0)
                fine = counts[excess < step / 2].sum() * step * step / 12
                errors[exponent] = float(
                    (counts * excess * excess)[excess >= step / 2].sum() + fine
                )
            best = min(errors, key=lambda e: (errors[e], -e))
        self.exponent = torch.tensor(max(best, int(self.floor)), dtype=torch.int32)

    def raise_to(self, exponent: int) -> None:
        """Make the scale coarser, now and at every later choice."""
        self.floor.fill_(max(exponent, int(self.floor)))
        self.exponent = torch.tensor(max(exponent, int(self.exponent)), dtype=torch.int32)


class PerChannelWeightFakeQuantize(PowerOfTwo):
    """Per output channel, from the weights themselves, at every call.

    Parameters
    ----------
    dtype : int8 or uint8
    qscheme : for PT2E; symmetric
    quant_min, quant_max : bounds of the codes
    ch_axis : of the output channels, 0
    qat : fake-quantise from the start
    is_dynamic : is ignored; PT2E gives it
    """

    wanted: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_channel_symmetric,
        quant_min: int = -127,
        quant_max: int = 127,
        ch_axis: int = 0,
        qat: bool = False,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, qscheme, quant_min, quant_max, qat)
        self.ch_axis = ch_axis
        self.register_buffer("floor", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("wanted", torch.zeros(0, dtype=torch.int32))
        self.held = False

    def train_scale(self) -> None:
        """As for activations; exponents that the harmoniser has raised are not made finer."""
        super().train_scale()
        self.floor = torch.where(self.floor > self.wanted, self.floor, DEAD)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """Fake-quantise weights (O, ...)."""
        if self.observer_enabled[0]:
            self.choose(w)
        if not self.fake_quant_enabled[0]:
            return w
        if self.logarithm is not None:
            scales = torch.exp2(self.exponent.float()).reshape(-1, *[1] * (w.dim() - 1))
            return _trained_scale(w, self.logarithm, scales, self.quant_min, self.quant_max)
        return torch.fake_quantize_per_channel_affine(
            w,
            torch.exp2(self.exponent.float()),
            torch.zeros_like(self.exponent),
            self.ch_axis,
            self.quant_min,
            self.quant_max,
        )

    def choose(self, w: torch.Tensor) -> None:
        """Set the exponents for weights (O, ...): the best, but not below the floor."""
        best = self.best(w)
        self.exponent = torch.maximum(best, self.floor) if self.floor.numel() else best

    def best(self, w: torch.Tensor) -> torch.Tensor:
        """(O,) exponents for weights (O, ...): trained, or of least squared error.

        ``DEAD`` for channels of zeros.
        """
        if self.held:
            return self.floor
        if self.logarithm is not None:
            return torch.where(w.detach().flatten(1).any(1), self._trained(), DEAD)
        rows = w.detach().flatten(1).double()
        top = rows.abs().amax(1)
        # frexp gives m * 2**e with m in [0.5, 1): m = 0.5 means that 2**(e - 1) fits exactly.
        mantissa, start = torch.frexp(top / self.quant_max)
        start = torch.where(mantissa == 0.5, start - 1, start)
        best = start.clone()
        least = torch.full_like(top, math.inf)
        for drop in range(3):
            scale = torch.exp2((start - drop).double()).unsqueeze(1)
            codes = (rows / scale).round().clamp(self.quant_min, self.quant_max)
            error = (codes * scale - rows).square().sum(1)
            better = error < least
            best = torch.where(better, start - drop, best)
            least = torch.where(better, error, least)
        return torch.where(top > 0, best.clamp(min=DEAD), DEAD).to(torch.int32)

    def hold(self, exponents: torch.Tensor) -> None:
        """Take (O,) exponents for those of least error: weights are multiples of them already."""
        self.fix(exponents, exponents)
        self.held = True

    def fix(self, exponents: torch.Tensor, wanted: torch.Tensor) -> None:
        """Use these exponents, and no finer ones at every later choice.

        Parameters
        ----------
        exponents : (O,)
        wanted : (O,) of least error of the weights alone, without the demands of other layers
        """
        self.floor = exponents.to(torch.int32)
        self.wanted = wanted.to(torch.int32)
        self.exponent = self.floor.clone()


def _trained_scale(
    x: torch.Tensor, logarithm: torch.Tensor, scale: torch.Tensor, low: int, high: int
) -> torch.Tensor:
    found: torch.Tensor = _TrainedScale.apply(x, logarithm, scale, low, high)
    return found
