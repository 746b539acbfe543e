"""Secateur: pruning that pays on small hardware.

::

    from secateur import Target, compile, prune, quantize, run, simulate

    prune(model, density=0.25)            # masks N:1 blocks; fine-tune afterwards
    image = compile(quantize(model, x), target=Target.load("8x8"))
    image.save("model.sec")
    simulate(image, x[:2].numpy())        # Verilator against the golden interpreter, every layer
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from secateur._version import __version__

if TYPE_CHECKING:
    from secateur.api import compile, load, run, simulate
    from secateur.capture.archive.archive import load_archive
    from secateur.capture.onnx.convert import load_onnx
    from secateur.capture.recurrent import Steps, decompose
    from secateur.capture.streaming import streaming
    from secateur.disk.limits import Limits
    from secateur.errors import SecateurError
    from secateur.image.image import Image
    from secateur.pruning import Pruner, prune
    from secateur.quantisation.prepare import finalize, prepare, quantize
    from secateur.target import Target

__all__ = [
    "Image",
    "Limits",
    "Pruner",
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
    "streaming",
]

_HOMES = {
    "Image": "image.image",
    "Limits": "disk.limits",
    "Pruner": "pruning",
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
    "streaming": "capture.streaming",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and many commands need none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"secateur.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The names of `__all__`, most of which are not imported yet."""
    return __all__


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a user can act on a line of the log: not on those of torchao's import."""
    return not record.getMessage().startswith(_NO_NEWS)


#: What torchao and torch print when torchao is imported on a machine without its CUDA libraries.
_NO_NEWS = ("Failed to load ", "<enum 'KernelPreference'> is an Enum subclass")
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).addFilter(_is_news)
# From torch's own code, whenever a graph is copied.
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
