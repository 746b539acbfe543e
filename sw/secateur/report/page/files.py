"""The files that reports read, each checked and converted as a whole, or refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.disk.storage import read
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.report.figures.figure import Metric
from secateur.text import printable

#: Bytes of a JSON file.
LIMIT = 1 << 26
Ints = npt.NDArray[np.int64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """Of ``record.json``, what a report shows.

    Attributes
    ----------
    target : name
    metric : what the run is judged by
    score, cycles : of the images ``dense`` and ``model``
    agreement : share of samples that both answer alike; None: no classification
    losses : after every epoch, by stage
    sensitivity, robustness : rows as in the file, the ``score`` under one key
    judged : the metric of the sensitivity
    gate : why the run failed, or None
    """

    target: str
    metric: Metric
    score: dict[str, float]
    cycles: dict[str, int]
    agreement: float | None
    losses: dict[str, list[float]]
    sensitivity: list[Row]
    judged: Metric
    robustness: list[Row]
    gate: str | None


@dataclass(frozen=True)
class Study:
    """Of ``study.json``.

    Attributes
    ----------
    seeds : of the runs
    metric : what they are judged by
    variants : per variant and figure ``mean``, ``deviation`` and ``runs``
    """

    seeds: list[int]
    metric: Metric
    variants: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Evidence:
    """Of ``evidence.safetensors``.

    Attributes
    ----------
    codes : counts (256,) by image and layer
    truth, dense, model : classes and answers (samples,); None: no classification
    changed, samples : numbers of samples whose answer changed, and these inputs
    """

    codes: dict[tuple[str, str], Ints]
    truth: Ints | None
    dense: Ints | None
    model: Ints | None
    changed: Ints | None
    samples: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Build:
    """Of ``report.json`` and the routers' reports beside it.

    Attributes
    ----------
    title, device, seed : of the build
    wanted, fmax : MHz
    resources : ``used`` and ``available`` by name
    path : ``type``, ``ns``, ``to`` of every step of the slowest path
    clocks : MHz by seed
    """

    title: str
    device: str
    seed: int
    wanted: float
    fmax: float
    resources: dict[str, dict[str, int]]
    path: list[Row]
    clocks: dict[int, float]


@contextmanager
def _of(path: Path, command: str) -> Iterator[None]:
    """Refuse what is not such a file, with the key that is missing or of another type."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        what = printable(error, 200)
        raise SecateurError(
            f"{path}: not what `secateur {command}` writes ({type(error).__name__}: {what}); "
            f"run it again"
        ) from None


def _json(path: Path, kind: str) -> Any:
    try:
        return json.loads(read(path, LIMIT, kind))
    except (ValueError, RecursionError):
        raise SecateurError(f"{path}: not a JSON file, or damaged") from None


def record_of(path: Path) -> Record:
    """Read ``record.json``.

    Raises
    ------
    SecateurError : it cannot be read, or is not one
    """
    found = _json(path, "a record")
    with _of(path, "prune"):
        columns = {name: found["columns"][name] for name in ("dense", "model")}
        key, metric = _metric(found)
        scan = found["sensitivity"]
        judged = key if all(key in row for row in scan) else "loss"
        return Record(
            target=str(found["recipe"]["target"]),
            metric=metric,
            score={name: float(column[key]) for name, column in columns.items()},
            cycles={name: int(column["cycles"]) for name, column in columns.items()},
            agreement=None if found["agreement"] is None else float(found["agreement"]),
            losses={
                str(stage): [float(loss) for loss in losses]
                for stage, losses in found["results"].get("losses", {}).items()
                if losses
            },
            sensitivity=[
                {"layer": str(row["layer"]), "score": float(row[judged])} | _floats(row, "density")
                for row in scan
            ],
            judged=metric if judged == key else Metric("loss", higher=False),
            robustness=[
                {"what": str(row["what"])} | _floats(row, "strength", "dense", "pruned")
                for row in found["robustness"]
            ],
            gate=None if found["gate"] is None else str(found["gate"]),
        )


def _metric(found: Row) -> tuple[str, Metric]:
    """The metric's key in a record, and the metric: of ``package.module:function`` the function."""
    name, direction = found["metric"]["name"], found["metric"]["direction"]
    if not isinstance(name, str) or direction not in ("max", "min"):
        raise ValueError("metric must have a name and a direction, max or min")
    return name, Metric(name.rpartition(":")[2], direction == "max")


def _floats(row: Row, *keys: str) -> Row:
    return {key: float(row[key]) for key in keys}


def study_of(path: Path) -> Study:
    """Read ``study.json``.

    Raises
    ------
    SecateurError : it cannot be read, or is not one
    """
    found = _json(path, "a study")
    keys = (
        "float", "dense int8", "int8", "drop", "cycles", "cycles dense", "rom bytes",
        "density of dense",
    )  # fmt: skip
    with _of(path, "study"):
        variants = {
            str(name): {
                key: _floats(row[key], "mean", "deviation", "runs")
                for key in (*keys, *(["agreement"] if "agreement" in row else []))
            }
            for name, row in found["variants"].items()
        }
        if not variants:
            raise ValueError("no variants")
        return Study([int(seed) for seed in found["seeds"]], _metric(found)[1], variants)


def search_of(path: Path) -> tuple[list[str], list[Row], list[int]]:
    """Read ``explore.json``: objectives, trials, and numbers of those on the front.

    Raises
    ------
    SecateurError : it cannot be read, or is not one
    """
    found = _json(path, "an exploration")
    with _of(path, "explore"):
        objectives = [str(name) for name in found["objectives"]]
        trials = [
            {"number": int(row["number"]), "values": dict(row["values"])}
            | {why: str(row[why]) for why in ("problem", "stopped") if why in row}
            | ({} if objectives[0] not in row else _floats(row, *objectives))
            for row in found["trials"]
        ]
        return objectives, trials, [int(number) for number in found["front"]]


def build_of(folder: Path) -> Build:
    """Read ``report.json`` and ``report-SEED.json`` of a build's folder.

    Raises
    ------
    SecateurError : one cannot be read, or is not one
    """
    path = folder / "report.json"
    found = _json(path, "the report of a build")
    with _of(path, "build"):
        seed, fmax = int(found["seed"]), float(found["fmax_mhz"])
        build = Build(
            title=str(found["title"]),
            device=str(found["device"]),
            seed=seed,
            wanted=float(found["clock_mhz"]),
            fmax=fmax,
            resources={
                str(name): {key: int(row[key]) for key in ("used", "available")}
                for name, row in found["resources"].items()
            },
            path=[
                {"type": str(row["type"]), "ns": float(row["ns"]), "to": str(row["to"])}
                for row in found["slowest_path"]
            ],
            clocks={seed: fmax},
        )
    for file in sorted(folder.glob("report-*.json")):
        number = re.fullmatch(r"report-(\d{1,9})", file.stem)
        if number and int(number[1]) not in build.clocks:
            routed = _json(file, "the report of a router")
            with _of(file, "build"):
                # The engine's is the slowest clock that is not the oscillator's.
                build.clocks[int(number[1])] = min(
                    float(row["achieved"])
                    for name, row in routed["fmax"].items()
                    if "TRELLIS_IO_IN" not in name
                )
    return build


def evidence_of(path: Path) -> Evidence:
    """Read ``evidence.safetensors``.

    Raises
    ------
    SecateurError : it cannot be read, or is not one
    """
    tensors = {name: tensor.numpy() for name, tensor in read_weights(path).items()}
    with _of(path, "prune"):
        codes = {}
        for name, counts in tensors.items():
            if name.startswith("codes/"):
                _, image, layer = name.split("/", 2)
                if counts.shape != (256,) or counts.dtype != np.int64 or counts.min() < 0:
                    raise ValueError(f"{name} must be 256 counts")
                codes[image, layer] = counts
        if "labels" not in tensors:
            return Evidence(codes, None, None, None, None, None)
        truth, dense, model, changed = (
            np.asarray(tensors[key], np.int64) for key in ("labels", "dense", "model", "changed")
        )
        samples = None
        if "samples" in tensors:
            samples = np.asarray(tensors["samples"], np.float32)
        classes = np.stack([truth, dense, model])
        numbered = changed.ndim == 1 and (samples is None or len(changed) == len(samples))
        if classes.ndim != 2 or classes.size == 0 or not numbered:
            raise ValueError("answers and samples must be lists of one length")
        if classes.min() < 0 or classes.max() >= 1 << 11:
            raise ValueError("classes must be 0 to 2047")
        if changed.size and not 0 <= changed.min() <= changed.max() < len(truth):
            raise ValueError("changed must be numbers of samples")
        return Evidence(codes, truth, dense, model, changed, samples)
