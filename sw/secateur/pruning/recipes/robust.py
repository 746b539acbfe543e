"""Accuracy under attack and under corruption, dense against pruned.

FGSM: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
PGD: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
Corruptions: Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019; severities 1 to 5 as in its CIFAR-10-C.
Inputs are floats (batch, ...) in the model's own units, from ``low`` to ``high``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError

#: Severities 1 to 5, in units of the input range: standard deviation of the noise, of the blur in
#: pixels, factor of the contrast.
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)

Loss = Callable[[Tensor, Tensor], Tensor]


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(model(x), y), x)
    return gradient


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    low: float,
    high: float,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """One step of ``eps`` along the sign of the loss's gradient, clipped to the range.

    The model is used in the mode that it is in; put it in evaluation mode.
    """
    _check(eps, low, high)
    return (x + eps * _gradient(model, x, y, loss).sign()).clamp(low, high)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    low: float,
    high: float,
    steps: int = 10,
    step: float | None = None,
    seed: int = 0,
    loss: Loss = F.cross_entropy,
) -> Tensor:
    """Steps of FGSM from a random start, projected to within ``eps`` of ``x`` and the range.

    ``step`` is 2.5 * eps / steps if None, as Madry et al. take it.
    """
    _check(eps, low, high)
    step = 2.5 * eps / steps if step is None else step
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
    attacked = (x + eps * noise).clamp(low, high)
    for _ in range(steps):
        moved = attacked + step * _gradient(model, attacked, y, loss).sign()
        attacked = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(low, high)
    return attacked


def _check(eps: float, low: float, high: float) -> None:
    if not eps >= 0:
        raise SecateurError(f"eps must not be negative, not {eps!r}")
    if not low < high:
        raise SecateurError(f"the input range must be low < high, not {low!r} to {high!r}")


def gaussian_noise(x: Tensor, severity: int, *, low: float, high: float, seed: int = 0) -> Tensor:
    """Noise of a standard deviation of 4 to 10 % of the range."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (x + noise * (_severity(NOISE, severity) * (high - low))).clamp(low, high)


def blur(x: Tensor, severity: int, *, low: float, high: float, seed: int = 0) -> Tensor:
    """Gaussian blur of images (batch, C, H, W), cut off at four deviations, edges repeated."""
    if x.dim() != 4:
        raise SecateurError(f"blur takes images (batch, C, H, W), not {tuple(x.shape)}")
    sigma = _severity(BLUR, severity)
    radius = math.ceil(4 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype) / sigma) ** 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    padded = F.pad(x, (radius,) * 4, mode="replicate")
    across = taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = F.conv2d(padded, across, groups=channels)
    return F.conv2d(rows, across.transpose(2, 3), groups=channels).clamp(low, high)


def contrast(x: Tensor, severity: int, *, low: float, high: float, seed: int = 0) -> Tensor:
    """Values drawn towards the mean of each sample and channel."""
    axes = tuple(range(2, x.dim())) or (1,)
    mean = x.mean(dim=axes, keepdim=True)
    return ((x - mean) * _severity(CONTRAST, severity) + mean).clamp(low, high)


def _severity(values: tuple[float, ...], severity: int) -> float:
    if severity not in range(1, len(values) + 1):
        raise SecateurError(f"severity must be 1 to {len(values)}, not {severity!r}")
    return values[severity - 1]


CORRUPTIONS: dict[str, Callable[..., Tensor]] = {
    "noise": gaussian_noise,
    "blur": blur,
    "contrast": contrast,
}
