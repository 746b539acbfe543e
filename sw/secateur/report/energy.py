"""An estimate of the energy of an inference: counts of the image times a table of energies.

The counts are exact: the words that the array reads, the bytes that its banks deliver and take,
the products that it forms, for the image and for the same network with every block kept. The
energies are not: they come from the table, for another chip in another process.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.image.image import Image


@dataclass(frozen=True)
class Energies:
    """Picojoules.

    Parameters
    ----------
    mac : a product of 8 bits added to a sum; formed in every lane in every cycle with a weight word
    weight_byte : read from the weight memory
    bank_read_byte, bank_write_byte : of the activation banks. A halo's copies are not counted
    requantise : an output code
    cycle : whatever every cycle takes, clock tree and leakage
    source : where these numbers come from
    """

    mac: float
    weight_byte: float
    bank_read_byte: float
    bank_write_byte: float
    requantise: float
    cycle: float
    source: str


#: 8-bit multiply 0.2, 32-bit add 0.1; 64 bits from an SRAM of 8 KB 10 (block RAMs are smaller);
#: requantise as two 32-bit adds; clock and leakage are not given.
HOROWITZ = Energies(
    mac=0.3,
    weight_byte=1.25,
    bank_read_byte=1.25,
    bank_write_byte=1.25,
    requantise=0.2,
    cycle=0.0,
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, "
    "45 nm, 0.9 V; an ASIC, not an FPGA",
)


def load_energies(path: Path) -> Energies:
    """Read a table: a TOML file with all keys of `Energies`.

    Raises
    ------
    SecateurError : it cannot be read, or a key is missing, unknown, or not a number from 0 up
    """
    table = read_toml(path)
    names = [field.name for field in fields(Energies)]
    wrong = sorted(set(names) ^ table.keys())
    if wrong:
        raise SecateurError(f"{path}: must have {', '.join(names)}; see {wrong[0]!r}")
    if not isinstance(table["source"], str) or not table["source"]:
        raise SecateurError(f"{path}: source must name where the numbers come from")
    values: dict[str, Any] = {}
    for name in names[:-1]:
        value = table[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise SecateurError(f"{path}: {name} must be picojoules, 0 or more, not {value!r}")
        values[name] = float(value)
    return Energies(**values, source=table["source"])


def estimate(image: Image, energies: Energies = HOROWITZ) -> dict[str, Any]:
    """Counts and picojoules, per layer and in total, of the image (``pruned``) and ``dense``.

    Input and result streams, and the host, are not counted.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    if "layers" not in image.metadata:
        raise SecateurError("the image has no metadata to estimate from; it was stripped of it")
    rows = []
    for layer in image.metadata["layers"]:
        row: dict[str, Any] = {"name": layer["name"]}
        for key, prefix in (("pruned", ""), ("dense", "_dense")):
            counts = _counts(image, layer[f"traffic{prefix}"], layer[f"cycles{prefix}"])
            row[key] = {"counts": counts, "picojoules": _energy(counts, energies)}
        row["macs_nonzero"] = round(layer["bound_cycles"] * image.n * image.p)
        rows.append(row)
    totals = {}
    for key in ("pruned", "dense"):
        parts = [row[key] for row in rows]
        totals[key] = {
            kind: {name: sum(part[kind][name] for part in parts) for name in parts[0][kind]}
            for kind in ("counts", "picojoules")
        }
    return {
        "label": "estimate",
        "source": energies.source,
        "energies": {field.name: getattr(energies, field.name) for field in fields(energies)[:-1]},
        "layers": rows,
        "macs_nonzero": sum(row["macs_nonzero"] for row in rows),
        **totals,
    }


def _counts(image: Image, traffic: dict[str, int], cycles: int) -> dict[str, int]:
    n = image.n
    return {
        "cycles": cycles,
        "macs": traffic["lane_words"] * n,
        "weight_bytes": (traffic["other_reads"] + traffic["body_reads"]) * (n + 1),
        "bank_read_bytes": traffic["lane_words"] * n,
        "bank_write_bytes": traffic["pixels"] * n,
        "requantised": traffic["pixels"] * n,
    }


def _energy(counts: dict[str, int], energies: Energies) -> dict[str, float]:
    parts = {
        "array": counts["macs"] * energies.mac,
        "weights": counts["weight_bytes"] * energies.weight_byte,
        "banks": counts["bank_read_bytes"] * energies.bank_read_byte
        + counts["bank_write_bytes"] * energies.bank_write_byte,
        "drain": counts["requantised"] * energies.requantise,
        "cycles": counts["cycles"] * energies.cycle,
    }
    return parts | {"total": sum(parts.values())}
