"""Round weights so that the errors of a sum cancel on calibration data, instead of to the nearest.

References
----------
Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023 (arXiv:2210.17323), algorithm 1, with the authors' order of columns,
``act-order``.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Added to the diagonal of the inputs' second moments, by its mean.
_DAMPING = 0.01
#: Errors are compensated by at most this many weights.
_COLUMNS = 1024


def round_weights(
    weights: Tensor, scales: Tensor, moments: Tensor, limits: tuple[int, int]
) -> Tensor:
    """Weights on the grid of their codes, with little error of the sums.

    Zeros stay zeros: blocks that are pruned cost nothing.

    Parameters
    ----------
    weights : (G, O, K) float64, of groups of outputs
    scales : (G, O) of a code
    moments : (G, K, K) mean products of the inputs of each group
    limits : of the codes

    Returns
    -------
    rounded : (G, O, K) float64, multiples of the scales
    """
    rounded = torch.empty_like(weights)
    for start in range(0, weights.shape[2], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        rounded[..., part] = _rounded(weights[..., part], scales, moments[:, part, part], limits)
    return rounded


def _rounded(weights: Tensor, scales: Tensor, moments: Tensor, limits: tuple[int, int]) -> Tensor:
    power = moments.diagonal(dim1=1, dim2=2)
    order = power.argsort(dim=1, descending=True, stable=True)
    left = torch.take_along_dim(weights, order[:, None], 2).clone()
    sorted_moments = torch.take_along_dim(
        torch.take_along_dim(moments, order[:, None], 2), order[..., None], 1
    )
    mean = power.mean(1).clamp(min=1e-30)
    sorted_moments.diagonal(dim1=1, dim2=2).add_(_DAMPING * mean[:, None])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sorted_moments / mean[:, None, None]))
    carry = torch.linalg.cholesky(inverse, upper=True)
    kept, rounded = left != 0, torch.empty_like(left)
    for column in range(left.shape[2]):
        codes = (left[..., column] / scales).round().clamp(*limits)
        rounded[..., column] = codes * scales
        error = (left[..., column] - rounded[..., column]) / carry[:, column, column, None]
        rest = slice(column + 1, None)
        left[..., rest] -= error[..., None] * carry[:, column, None, rest] * kept[..., rest]
    return torch.empty_like(rounded).scatter_(2, order[:, None].expand_as(rounded), rounded)
