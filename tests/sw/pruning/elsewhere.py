"""A device that any machine has: tensors on it are on the CPU, but do not mix with those there.

PyTorch's fake tensors have no values, and no CUDA where PyTorch was built without it. These have
values, so whole trainings run; an operation on tensors of both devices fails, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "elsewhere"


class _Backend(_DummyBackendModule):  # type: ignore[misc]
    """What PyTorch asks about the device; outside of `machine` there is none."""

    here = False
    state = torch.zeros(1, dtype=torch.uint8)

    def is_available(self) -> bool:
        return self.here

    def device_count(self) -> int:
        return int(self.here)

    def get_rng_state(self) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor) -> None:
        self.state = state.clone()


_BACKEND = _Backend()
_setup_privateuseone_for_python_backend(NAME, _BACKEND)
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Elsewhere(Tensor):
    """A tensor on the device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> Elsewhere:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=torch.device(NAME, 0), requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, held: Tensor, requires_grad: bool = False) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim()]
    if there and here and func not in _COPIES:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    device = kwargs.get("device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args_, kwargs_ = tree_map(lambda v: v.held if isinstance(v, Elsewhere) else v, (args, kwargs))
    found = func(*args_, **kwargs_)
    if func._schema.name.endswith("_") and isinstance(args[0], Tensor):
        return args[0]
    wanted = bool(there) if device is None else torch.device(device).type == NAME
    return tree_map(lambda v: Elsewhere(v) if wanted and isinstance(v, Tensor) else v, found)


class _Machine(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def machine() -> Iterator[str]:
    """A machine that has the device; gives its name."""
    _BACKEND.here = True
    try:
        with _Machine():
            yield NAME
    finally:
        _BACKEND.here = False
