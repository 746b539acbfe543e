"""Constants of an ONNX file, and bounds of all constants together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.capture.onnx.node import guarded
from secateur.disk.limits import Limits
from secateur.errors import SecateurError

Array = npt.NDArray[Any]

#: Bytes that a number takes until it is in an image: as the file has it, as a weight of a module,
#: and while that is quantised.
_NUMBER = 16
#: Numbers that may be computed: these, and so many for one in the file. A weight passes a few
#: operators on its way to a layer.
_FREE, _TIMES = 1 << 20, 16
SIMPLIFY = "fold constants when you export, or simplify the file (onnxsim)"


@dataclass
class Budget:
    """Bounds of constants: of all together, and of those that are computed from others.

    Attributes
    ----------
    limits : bound the bytes of all constants
    held : numbers that the file holds
    made : numbers that are computed from these
    """

    limits: Limits
    held: int = 0
    made: int = 0

    def hold(self, count: int, what: str) -> None:
        """Count the numbers of a tensor of the file, which ``what`` names, before it is made."""
        self.held += count
        self._check(what)

    def make(self, count: int, what: str) -> None:
        """Count the numbers that a node makes, before it does."""
        self.made += count
        self._check(what)
        if self.made > _FREE + _TIMES * self.held:
            raise SecateurError(
                f"{what}: {self.made:,} numbers are computed from {self.held:,} in the file; "
                f"{SIMPLIFY}"
            )

    def _check(self, what: str) -> None:
        size = (self.held + self.made) * _NUMBER
        self.limits.check_bytes(size, f"{what}, with all constants before it")


def values_of(tensor: Any, what: str, budget: Budget) -> Array:
    """The values of a tensor of the file.

    Parameters
    ----------
    tensor : an ``onnx.TensorProto``
    what : names it in messages
    budget : counts its numbers before they are made

    Raises
    ------
    SecateurError : it does not hold numbers, holds another count of them than its shape asks for,
        or too many
    """
    from onnx import numpy_helper

    with guarded(what):
        check_type(tensor.data_type, what)
        if any(size < 0 for size in tensor.dims):
            raise SecateurError(f"{what}: a dimension below 0; export the model again")
        budget.hold(math.prod(tensor.dims), what)
        return np.asarray(numpy_helper.to_array(tensor))


def check_type(number: int, what: str) -> None:
    """Refuse a type of ``onnx.TensorProto`` that is not of real numbers."""
    from onnx import TensorProto

    known = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
    found = known.get(number, f"type {number}")
    if number not in known or found in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128"):
        raise SecateurError(f"{what}: holds {found}; export the model with real numbers")
