"""The C driver as a shared library, its structure and its results."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
#: ``secateur_result`` of boards/driver/c/secateur.h.
OK, REFUSED, NO_ENGINE, TIMEOUT, BAD_IMAGE, STOPPED, OTHER_IMAGE = range(7)


class Device(ctypes.Structure):
    """``secateur`` of boards/driver/c/secateur.h."""

    READ = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)
    )
    WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
    _fields_ = [
        ("bus", ctypes.c_void_p),
        ("read", READ),
        ("write", WRITE),
        *((name, ctypes.c_uint32) for name in ("polls", "n", "p", "weight_words")),
        ("rom", ctypes.c_int),
    ]


def compile_driver(file: Path) -> None:
    """Compile the driver to a shared library; a warning is an error."""
    source = ROOT / "boards" / "driver" / "c" / "secateur.c"
    subprocess.run(["gcc", *FLAGS, "-shared", "-fPIC", str(source), "-o", str(file)], check=True)
