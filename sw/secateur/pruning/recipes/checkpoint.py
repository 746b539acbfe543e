"""Checkpoints as safetensors and JSON: models, optimisers, generators. No pickle.

A checkpoint is a JSON file that names a file of tensors by its hash. Both are written atomically,
the tensors first, so that an interruption leaves the old checkpoint whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from secateur.disk.limits import DEFAULT
from secateur.disk.storage import read as read_file
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.pruning.units.blocks import prunable_layers, weight_of
from secateur.pruning.units.mask import mask_of, set_mask

State = tuple[dict[str, Tensor], dict[str, Any]]
#: Bytes of the JSON file.
LIMIT = 1 << 26


def write(path: Path, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> str:
    """Write tensors and JSON data; returns the SHA-256 of the tensors' file.

    The tensors go to a file beside ``path``; files of older checkpoints of ``path`` are removed.

    Parameters
    ----------
    path : of the JSON file
    tensors : by name
    data : for the JSON file
    """
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    payload = save(owned)
    digest = hashlib.sha256(payload).hexdigest()
    file = path.parent / f"{path.stem}-{digest[:16]}.safetensors"
    write_atomically(file, payload)
    head = {"tensors": file.name, "sha256": digest, "data": data, "data_sha256": _digest(data)}
    text = json.dumps(head, indent=1)
    write_atomically(path, text.encode())
    for old in path.parent.glob(f"{path.stem}-{'[0-9a-f]' * 16}.safetensors"):
        if old != file:
            old.unlink()
    return digest


def read(path: Path) -> State:
    """Tensors and data of a checkpoint.

    Raises
    ------
    SecateurError : a file is missing or damaged
    """
    again = f"delete {path.parent} and start again"
    try:
        head = json.loads(read_file(path, LIMIT, "a checkpoint"))
        file, digest, data, of_data = (
            head[key] for key in ("tensors", "sha256", "data", "data_sha256")
        )
        sound = _digest(data) == of_data and Path(file).name == file
    except SecateurError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SecateurError(f"{path}: not a checkpoint; {again}") from None
    if not sound:
        raise SecateurError(f"{path}: damaged; {again}")
    payload = read_file(path.parent / file, DEFAULT.bytes, "a checkpoint")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise SecateurError(f"{path.parent / file}: damaged; {again}")
    return load(payload), data


def _digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of JSON data, the same when they were written and read again."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict: parameters, buffers and masks."""
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def load_model_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state into a freshly built model; if the state has masks, they are added first.

    Raises
    ------
    SecateurError : the state is of another model
    """
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    for name, layer in prunable_layers(model).items():
        masked = f"{name}.parametrizations.weight.0.mask" in state
        if masked and mask_of(layer) is None:
            set_mask(layer, torch.ones_like(weight_of(layer)))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise SecateurError(f"the weights do not fit the model: {lines[-1].strip()}") from None


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Tensors and JSON data of an optimiser's state."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    groups = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"scalars": scalars, "groups": groups}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], data: Mapping[str, Any]
) -> None:
    """Load a state into an optimiser of the same parameters.

    Parameters
    ----------
    optimizer : changed in place
    tensors, data : from `optimizer_state`
    """
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in data["scalars"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in data["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
