"""Cycles of an image beside what Arm's Vela estimates for an Ethos-U55 with as many multipliers.

Vela is the compiler of those NPUs (PyPI ``ethos-u-vela``, Apache-2.0); it reads the int8 .tflite
file of the same network. Its cycles are the estimate of a performance model, in which zero
weights cost the NPU as much as any others. Ours are those of the Verilog.
"""

from __future__ import annotations

import csv
import importlib.metadata
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.children import bound
from secateur.disk.storage import read
from secateur.errors import SecateurError, SecateurWarning
from secateur.image.image import Image
from secateur.report.summary import dense_macs
from secateur.text import printable

#: Multipliers by Vela's name of the configuration.
ACCELERATORS = {"ethos-u55-32": 32, "ethos-u55-64": 64, "ethos-u55-128": 128, "ethos-u55-256": 256}
DEFAULT = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-128")
#: Weights and tensors both in SRAM, which runs at the clock of the NPU: no waiting for a flash.
SYSTEM_CONFIG = "Ethos_U55_High_End_Embedded"
MEMORY_MODE = "Sram_Only"
#: Processor time of a run of Vela, which takes seconds: a damaged file may make it loop.
MOST_SECONDS = 600
#: Bytes of a .tflite file.
LIMIT = 1 << 30
#: Vela counts pooling and softmax as well, little in a network of convolutions.
SAME_NETWORK = 0.1
_IDENTIFIER = b"TFL3"  # bytes 4 to 7 of a .tflite file


@dataclass(frozen=True)
class Estimate:
    """Vela's estimate for one network on one accelerator.

    Parameters
    ----------
    accelerator : Vela's name of it
    multipliers : multiply-accumulates per cycle
    cycles : in which the NPU computes
    cycles_total : with those in which it waits for memory
    macs : multiply-accumulates of the network, by Vela's count
    cpu_operators : operators that the NPU does not run; they are not in the cycles
    """

    accelerator: str
    multipliers: int
    cycles: int
    cycles_total: int
    macs: int
    cpu_operators: int


def vela_version() -> str:
    """Version of the Vela that is installed.

    Raises
    ------
    SecateurError : there is none
    """
    try:
        return importlib.metadata.version("ethos-u-vela")
    except importlib.metadata.PackageNotFoundError:
        raise SecateurError("Vela is not installed: pip install 'secateur[compare]'") from None


def compare(image: Image, tflite: Path, accelerators: Sequence[str] = DEFAULT) -> dict[str, Any]:
    """Cycles of the image, pruned and dense, beside Vela's estimates for the same network.

    Parameters
    ----------
    image : the image
    tflite : int8 TensorFlow Lite file of the same network
    accelerators : keys of ``ACCELERATORS``

    Returns
    -------
    data : ratios in it are Vela's cycles over ours, for accelerators with as many multipliers as
        the image's array

    Raises
    ------
    SecateurError : the image carries no metadata, an accelerator is unknown, Vela is missing, the
        file is not a .tflite file, or Vela fails on it
    """
    if "cycles_dense" not in image.metadata:
        raise SecateurError("the image has no metadata to compare; it was stripped of it")
    data = beside(image, [estimate(tflite, name) for name in accelerators])
    ours, theirs = data["secateur"]["macs"], data["estimates"][0]["macs"]
    if abs(theirs - ours) > SAME_NETWORK * ours:
        warnings.warn(
            f"{tflite}: {theirs:,} multiply-accumulates by Vela's count, the image's network has "
            f"{ours:,}; are they the same network?",
            SecateurWarning,
            stacklevel=2,
        )
    configuration = {"system_config": SYSTEM_CONFIG, "memory_mode": MEMORY_MODE}
    return data | {"tflite": str(tflite), "vela": {"version": vela_version()} | configuration}


def beside(image: Image, estimates: Sequence[Estimate]) -> dict[str, Any]:
    """The numbers of `compare`: labelled, with the ratios at equal multipliers."""
    multipliers = image.n * image.p
    ours = {name: image.metadata[name] for name in ("target", "cycles", "cycles_dense")}
    rows = []
    for found in estimates:
        row: dict[str, Any] = {"label": "estimate", **vars(found), "ratio": None}
        if found.multipliers == multipliers:
            row["ratio"] = {
                "dense": found.cycles / ours["cycles_dense"],
                "pruned": found.cycles / ours["cycles"],
            }
        rows.append(row)
    return {
        "secateur": {
            "label": "exact",
            "multipliers": multipliers,
            "macs": dense_macs(image.metadata),
            "input_words": sum(port["words"] for port in image.metadata["inputs"]),
            **ours,
        },
        "estimates": rows,
    }


def estimate(tflite: Path, accelerator: str) -> Estimate:
    """Run Vela on a .tflite file, in a process and a folder of its own.

    Raises
    ------
    SecateurError : as `compare`
    """
    if accelerator not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        raise SecateurError(f"accelerator {accelerator!r} is unknown; choose from {known}")
    version = vela_version()
    _check_file(tflite)
    with tempfile.TemporaryDirectory() as folder:
        printed = _run(tflite, accelerator, Path(folder), version)
        found = read_summary(Path(folder), accelerator, printed)
    if not found.cycles:
        raise SecateurError(
            f"{tflite}: Vela runs no operator of it on the NPU; expected an int8 model, "
            f"weights and activations"
        )
    return found


def read_summary(folder: Path, accelerator: str, printed: str) -> Estimate:
    """The estimate in Vela's summary file and in its output.

    Parameters
    ----------
    folder : has the summary
    accelerator : key of ``ACCELERATORS``
    printed : standard output of Vela

    Raises
    ------
    SecateurError : there is no summary, or a number is missing
    """
    files = sorted(folder.glob("*_summary_*.csv"))
    if len(files) != 1:
        raise SecateurError(f"Vela wrote {len(files)} summaries for {accelerator}, expected one")
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = {}
    for name in ("cycles_npu", "cycles_total", "nn_macs"):
        try:
            (row,) = rows
            counts[name] = round(float(row[name]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise SecateurError(
                f"Vela's summary for {accelerator} has no number {name} in a single row; "
                f"this version of it is not supported"
            ) from None
    on_cpu = re.search(r"^CPU operators = (\d+)", printed, re.MULTILINE)
    if on_cpu is None:
        raise SecateurError(
            f"Vela's output for {accelerator} lacks the number of CPU operators; "
            f"this version of it is not supported"
        )
    return Estimate(
        accelerator=accelerator,
        multipliers=ACCELERATORS[accelerator],
        cycles=counts["cycles_npu"],
        cycles_total=counts["cycles_total"],
        macs=counts["nn_macs"],
        cpu_operators=int(on_cpu[1]),
    )


def _check_file(tflite: Path) -> None:
    head = read(tflite, LIMIT, "a model that Vela is given", first=8)
    if head[4:] != _IDENTIFIER:
        raise SecateurError(f"{tflite}: not a .tflite file; expected an int8 TensorFlow Lite model")


def _run(tflite: Path, accelerator: str, folder: Path, version: str) -> str:
    """Vela's output; a damaged file may crash it, hence a process of its own."""
    options = {
        "--accelerator-config": accelerator,
        "--config": "Arm/vela.ini",
        "--system-config": SYSTEM_CONFIG,
        "--memory-mode": MEMORY_MODE,
        "--output-dir": str(folder),
    }
    arguments = [word for option in options.items() for word in option]
    command = [sys.executable, "-m", "ethosu.vela", str(tflite.resolve()), *arguments]
    failed = f"{tflite}: Vela {version} failed on it"
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=folder,
        preexec_fn=bound(MOST_SECONDS),
    )
    if run.returncode == -signal.SIGXCPU:
        raise SecateurError(f"{failed}: no result after {MOST_SECONDS} seconds of processor time")
    if run.returncode < 0:
        raise SecateurError(f"{failed}: it crashed, signal {-run.returncode}; is it damaged?")
    if run.returncode:
        lines = (run.stderr.strip() or run.stdout.strip() or "no reason given").splitlines()
        raise SecateurError(f"{failed}: {_reason(lines)}")
    return run.stdout


def _reason(lines: list[str]) -> str:
    """The exception of a traceback with what follows it, else the last line."""
    starts = [
        i for i, line in enumerate(lines) if re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)
    ]
    return printable(" ".join(map(str.strip, lines[starts[-1] if starts else -1 :])), 1000)
