"""Accuracy under attack and under corruption, dense against pruned.

Inputs are floats (batch, ...) in the model's own units, from ``low`` to ``high``.

References
----------
FGSM: Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
PGD: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
Corruptions: Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019; severities 1 to 5 as in its CIFAR-10-C.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import Loss, loss_of

#: Severities 1 to 5, in units of the input range: standard deviation of the noise, of the blur in
#: pixels, factor of the contrast.
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)


def _gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss_of(loss, model, (x, y)), x)
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
    """Fast gradient sign method: x + eps * sign(gradient of the loss), clipped to the range.

    Parameters
    ----------
    model : in evaluation mode
    x, y : inputs (batch, ...) and targets
    eps : step, in the model's units
    low, high : range of the inputs
    loss : (outputs, targets) -> scalar, or one that calls the model

    Raises
    ------
    SecateurError : eps below 0, or an empty range
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
    """Projected gradient descent: steps of FGSM from a random start, within ``eps`` of ``x``.

    Parameters
    ----------
    model, x, y, low, high, loss : as for `fgsm`
    eps : largest change of an input, in the model's units
    steps : number
    step : of FGSM; None: 2.5 * eps / steps, as in Madry et al.
    seed : of the random start

    Raises
    ------
    SecateurError : eps below 0, or an empty range
    """
    _check(eps, low, high)
    step = 2.5 * eps / steps if step is None else step
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
    attacked = (x + eps * noise.to(x.device)).clamp(low, high)
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
    """Gaussian noise with a standard deviation of 4 to 10 % of the range.

    Parameters
    ----------
    x : inputs (batch, ...)
    severity : 1 to 5
    low, high : range of the inputs
    seed : of the noise
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return (x + noise * (_severity(NOISE, severity) * (high - low))).clamp(low, high)


def blur(x: Tensor, severity: int, *, low: float, high: float, seed: int = 0) -> Tensor:
    """Gaussian blur, cut off at four deviations, with repeated edges.

    Parameters
    ----------
    x : images (batch, C, H, W)
    severity, low, high : as for `gaussian_noise`
    seed : not used

    Raises
    ------
    SecateurError : inputs that are not images
    """
    if x.dim() != 4:
        raise SecateurError(f"blur takes images (batch, C, H, W), not {tuple(x.shape)}")
    sigma = _severity(BLUR, severity)
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.exp(-0.5 * (steps / sigma) ** 2)
    taps = taps / taps.sum()
    channels = x.shape[1]
    padded = F.pad(x, (radius,) * 4, mode="replicate")
    across = taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    rows = F.conv2d(padded, across, groups=channels)
    return F.conv2d(rows, across.transpose(2, 3), groups=channels).clamp(low, high)


def contrast(x: Tensor, severity: int, *, low: float, high: float, seed: int = 0) -> Tensor:
    """Values moved towards the mean of each sample and channel.

    Parameters
    ----------
    x : inputs (batch, C, ...)
    severity, low, high : as for `gaussian_noise`
    seed : not used
    """
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
