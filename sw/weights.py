"""State dicts in safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from secateur.errors import SecateurError


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises
    ------
    SecateurError : the file cannot be read, or is none
    """
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise SecateurError(f"{path}: weights cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise SecateurError(
            f"{path}: not a whole safetensors file ({error}); write the state dict by "
            f"safetensors.torch.save_file"
        ) from None
