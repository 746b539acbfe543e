"""Load models from torch.export archives, ONNX files, or callables by import path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from secateur.callables import function, imported
from secateur.capture.archive.archive import load_archive
from secateur.capture.onnx.convert import convert_onnx, load_onnx, read_onnx
from secateur.disk.limits import DEFAULT, Limits
from secateur.errors import SecateurError
from secateur.lowering.lower import lower
from secateur.quantisation.prequantised import keep_scales


def load_model(
    source: str, *, calibrated: bool = False, limits: Limits = DEFAULT
) -> tuple[Any, list[str]]:
    """Load the model that ``source`` names.

    Parameters
    ----------
    source : ``FILE.onnx``; ``package.module:callable``, which is called with seed 0 and returns a
        module in float; anything else is an archive of torch.export
    calibrated : calibration inputs follow, so that an ONNX file whose scales are not powers of two
        is loaded in float; without them it is refused
    limits : bounds of a file

    Returns
    -------
    model, notes : the model, converted if the file is quantised with powers of two as scales, else
        in float; and a line for each difference from the file

    Raises
    ------
    SecateurError : the file is missing or of another kind, or the callable does not return a module
    """
    path = Path(source)
    if path.suffix == ".onnx":
        return _load_onnx(path, calibrated, limits)
    if is_callable(source):
        return build("model", source, 0).eval(), []
    return load_archive(path, limits), []


def is_callable(source: str) -> bool:
    """Whether ``load_model`` takes it for ``package.module:callable``: it is not a file."""
    return Path(source).suffix != ".onnx" and ":" in source and not os.path.exists(source)


def build(where: str, name: str, seed: int) -> torch.nn.Module:
    """The module that ``package.module:callable`` returns when it is called with ``seed``.

    Parameters
    ----------
    where : how messages call the name, e.g. ``model``
    name : ``package.module:callable``
    seed : argument of the callable; torch's generator is seeded with it, too

    Raises
    ------
    SecateurError : there is no such callable, it is not a function of the seed, or it does not
        return a module
    """
    found, wanted = imported(where, name), "give a function of the seed that returns a module"
    if isinstance(found, type | torch.nn.Module):
        kind = "class" if isinstance(found, type) else "module"
        raise SecateurError(f"{where} = {name!r} is a {kind}; {wanted}")
    torch.manual_seed(seed)
    try:
        model = function(where, name)(seed)
    except SecateurError as error:
        raise SecateurError(f"{error}; {wanted}") from None
    if not isinstance(model, torch.nn.Module):
        kind = type(model).__name__
        raise SecateurError(
            f"{where} = {name!r} must return a torch.nn.Module, not {kind}; {wanted}"
        )
    return model


def _load_onnx(path: Path, calibrated: bool, limits: Limits) -> tuple[Any, list[str]]:
    model = load_onnx(path, limits=limits)
    if not model.quantised:
        return model, model.notes
    try:
        kept = convert_onnx(read_onnx(path, limits=limits), keep=True, limits=limits)
        if len(kept.shapes) > 1:
            raise SecateurError("it has several inputs")
        graph = keep_scales(kept, kept.shape)
        lower(graph)
    except SecateurError as error:
        if not calibrated:
            raise SecateurError(
                f"{path}: its scales cannot be kept: {error}; give calibration inputs "
                f"(--calibrate) to quantise it again"
            ) from None
        return model, [f"{note}: {error}" for note in model.notes]
    return graph, ["its own scales are kept, calibration inputs are not used"] * calibrated
