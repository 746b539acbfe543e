"""Secateur: pruning that pays on small hardware.

::

    from secateur import Target, compile, prune, quantize, run, simulate

    prune(model, density=0.25)            # masks N:1 blocks; fine-tune afterwards
    image = compile(quantize(model, x), target=Target.load("8x8"))
    image.save("model.sec")
    simulate(image, x[:2].numpy())        # Verilator against the golden interpreter, every layer
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from secateur._version import __version__

if TYPE_CHECKING:
    from secateur.api import compile, load, run, simulate
    from secateur.capture.archive.archive import load_archive
    from secateur.capture.onnx.convert import load_onnx
    from secateur.capture.recurrent import Steps, decompose
    from secateur.disk.limits import Limits
    from secateur.errors import SecateurError
    from secateur.image.image import Image
    from secateur.pruning import prune
    from secateur.quantisation.prepare import finalize, prepare, quantize
    from secateur.target import Target

__all__ = [
    "Image",
    "Limits",
    "SecateurError",
    "Steps",
    "Target",
    "__version__",
    "compile",
    "decompose",
    "finalize",
    "load",
    "load_archive",
    "load_onnx",
    "prepare",
    "prune",
    "quantize",
    "run",
    "simulate",
]

_HOMES = {
    "Image": "image.image",
    "Limits": "disk.limits",
    "SecateurError": "errors",
    "Steps": "capture.recurrent",
    "Target": "target",
    "compile": "api",
    "decompose": "capture.recurrent",
    "finalize": "quantisation.prepare",
    "load": "api",
    "load_archive": "capture.archive.archive",
    "load_onnx": "capture.onnx.convert",
    "prepare": "quantisation.prepare",
    "prune": "pruning",
    "quantize": "quantisation.prepare",
    "run": "api",
    "simulate": "api",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and many commands need none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"secateur.{_HOMES[name]}"), name)
