"""The device of a run, its random numbers, and graphs on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from secateur.errors import SecateurError

#: What a recipe may say.
DEVICES = ("auto", "cpu", "cuda", "mps")
_Module = TypeVar("_Module", bound=nn.Module)


def device_of(name: str) -> torch.device:
    """The device that a recipe names; of "auto" an accelerator, where there is one.

    Raises
    ------
    SecateurError : this machine has none of that kind
    """
    mps = torch.backends.mps.is_available()
    here = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in here.items() if found))
    if not here[name]:
        others = ", ".join(repr(kind) for kind, found in here.items() if found)
        raise SecateurError(
            f"device = {name!r}: PyTorch finds none here; give 'auto', or one of {others}"
        )
    return torch.device(name)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators: of the processor, and of the device if it is another."""
    found = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found["device"] = _module(device).get_rng_state()
    return found


def set_random_state(device: torch.device, states: dict[str, Tensor]) -> None:
    """Go back to what `random_state` found."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        _module(device).set_rng_state(states["device"])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread: sums depend on their number, and on small batches two threads
    mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def same_random_state(device: torch.device) -> Iterator[None]:
    """What is drawn inside is not missing outside."""
    states = random_state(device)
    try:
        yield
    finally:
        set_random_state(device, states)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)


def moved(model: _Module, device: torch.device) -> _Module:
    """A model on a device, in place; tensors that its graphs make are made there, too."""
    for module in model.modules():
        if not isinstance(module, GraphModule):
            continue
        for node in module.graph.nodes:
            if "device" in node.kwargs:
                node.kwargs = node.kwargs | {"device": device}
        module.recompile()
    return model.to(device)
