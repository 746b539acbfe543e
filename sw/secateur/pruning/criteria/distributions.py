"""Distributions of weights and gradients, per layer: as data, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import (
    Batch,
    Loss,
    check_batches,
    evaluating,
    gradients,
    loss_of,
    parameters,
    wide,
)
from secateur.pruning.units.blocks import prunable_layers, weight_of


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values.

    Attributes
    ----------
    edges : (bins + 1,) float64
    counts : (bins,) int64, of the values between two edges
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    def as_dict(self) -> dict[str, list[float] | list[int]]:
        """Plain lists, for JSON."""
        return {"edges": self.edges.tolist(), "counts": self.counts.tolist()}


def histogram(values: Tensor, bins: int) -> Histogram:
    """Histogram over the range that the values span. Not-finite values are refused.

    Raises
    ------
    SecateurError : bins below 1, or values that are not finite
    """
    if bins < 1:
        raise SecateurError(f"bins must be at least 1, not {bins}")
    flat = values.detach().cpu().to(torch.float64).flatten().numpy()
    if not np.isfinite(flat).all():
        raise SecateurError("a histogram needs finite values; repair the training")
    counts, edges = np.histogram(flat, bins=bins)
    return Histogram(edges.astype(np.float64), counts.astype(np.int64))


def distributions(
    model: nn.Module,
    batches: Sequence[Batch] | None = None,
    loss: Loss = nn.functional.cross_entropy,
    *,
    bins: int = 64,
) -> dict[str, dict[str, Histogram]]:
    """Histograms of the weights of every layer, and of their gradients.

    Parameters
    ----------
    model : left as it is
    batches : of (inputs, targets), for the gradients; None: weights only
    loss : (outputs, targets) -> scalar, the mean over the batch
    bins : of every histogram

    Returns
    -------
    dict : by name of layer, a dict with "weight", and with batches "gradient", the mean over them

    Raises
    ------
    SecateurError : no layer to prune; no batches; a frozen weight; values that are not finite
    """
    layers = prunable_layers(model)
    if not layers:
        raise SecateurError("the model has no Conv1d, Conv2d or Linear layer")
    result = {name: {"weight": histogram(weight_of(m), bins)} for name, m in layers.items()}
    if batches is None:
        return result
    check_batches("distributions", batches)
    trained = parameters(layers)
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in trained.items()}
    with evaluating(model):
        for batch in batches:
            for name, g in zip(total, gradients(loss_of(loss, model, batch), trained), strict=True):
                total[name] += wide(g)
    for name, value in total.items():
        result[name]["gradient"] = histogram(value / len(batches), bins)
    return result


def plot(found: dict[str, dict[str, Histogram]], path: str | Path) -> None:
    """Draw `distributions` into a file, one row per layer; the suffix is .png, .svg or .pdf.

    Raises
    ------
    SecateurError : Matplotlib is not installed, or another suffix
    """
    target = Path(path)
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise SecateurError(f"{target}: a plot must be .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SecateurError(
            "plots need Matplotlib, which is missing; pip install 'secateur[plots]'"
        ) from error
    columns = ["weight", "gradient"] if any("gradient" in row for row in found.values()) else []
    columns = columns or ["weight"]
    figure = Figure(figsize=(4.5 * len(columns), 1.6 * len(found) + 0.4), layout="constrained")
    axes = figure.subplots(len(found), len(columns), squeeze=False)
    for row, (name, kinds) in zip(axes, found.items(), strict=True):
        for axis, kind in zip(row, columns, strict=True):
            axis.stairs(kinds[kind].counts, kinds[kind].edges, fill=True)
            axis.set_yscale("symlog")
            axis.set_title(f"{name} {kind}", fontsize=8)
            axis.tick_params(labelsize=7)
    figure.savefig(target)
