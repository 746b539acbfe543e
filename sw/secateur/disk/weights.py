"""State dicts in safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from secateur.disk.limits import DEFAULT
from secateur.disk.storage import read
from secateur.errors import SecateurError
from secateur.text import name


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises
    ------
    SecateurError : the file cannot be read, is not a safetensors file, or is larger than the limit
        for models
    """
    data = read(path, DEFAULT.bytes, "weights")
    try:
        return load(data)
    except Exception as error:  # SafetensorError; torch raises others on types it lacks
        raise SecateurError(
            f"{path}: not a whole safetensors file ({name(error)}); write the state dict with "
            f"safetensors.torch.save_file"
        ) from None
