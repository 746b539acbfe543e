"""What a path holds, as figures: an image, or the folder of a run, a study or a build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image.image import Image
from secateur.report import figures
from secateur.report.figures.blocks import weights_by_layer
from secateur.report.figures.cycles import layers_of
from secateur.report.figures.figure import Figure
from secateur.report.figures.study import Point
from secateur.report.page.files import (
    Build,
    Evidence,
    build_of,
    evidence_of,
    record_of,
    search_of,
    study_of,
)
from secateur.report.summary import summary

#: The pruned image of a folder, by the command that writes it.
PRUNED = ("model.sec", "pruned.sec")


@dataclass(frozen=True)
class Contents:
    """What a report shows.

    Attributes
    ----------
    title : plain text
    facts : name and value of the most important numbers
    figures : of the whole
    layers : names of the layers, in order; empty without an image
    by_layer : figures of single layers
    notes : what is missing, and how to get it
    """

    title: str
    facts: list[tuple[str, str]]
    figures: list[Figure]
    layers: list[str] = field(default_factory=list)
    by_layer: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def contents(path: Path) -> Contents:
    """Read an image or a folder.

    Parameters
    ----------
    path : image; or folder of ``prune``, ``demo``, ``example``, ``study``, ``explore`` or ``build``

    Raises
    ------
    SecateurError : there is nothing to report, or it is damaged
    """
    if os.path.isfile(path):
        return of_image(images.load(path), str(path))
    if os.path.isfile(path / "study.json"):
        return _of_study(path)
    if os.path.isfile(path / "explore.json"):
        return _of_search(path)
    if os.path.isfile(path / "report.json"):
        return _of_build(build_of(path), path)
    if os.path.isfile(path / "record.json") or any(os.path.isfile(path / name) for name in PRUNED):
        return _of_run(path)
    raise SecateurError(
        f"{path}: nothing to report; expected an image, or the folder of a finished `secateur "
        f"prune`, `study`, `explore`, `build`, `demo` or `example`"
    )


def of_image(
    image: Image, title: str, dense: Image | None = None, evidence: Evidence | None = None
) -> Contents:
    """The figures of an image.

    Parameters
    ----------
    image : with metadata
    title : plain text
    dense : the image before pruning, for distributions
    evidence : of the run that made it

    Raises
    ------
    SecateurError : the image carries no metadata, or none of the parts of its cycles
    """
    found = summary(image)
    whole, bound = found["cycles_dense"], found["bound_cycles"]
    facts = [
        ("target", f"{found['target']}, {image.n} x {image.p} multipliers"),
        ("cycles per inference", f"{found['cycles']:,}"),
        ("cycles with every block kept", f"{whole:,}"),
        ("bound: nonzero MACs / multipliers", f"{bound:,.0f}"),
        ("input words, which are not in the cycles", f"{found['input_words']:,}"),
        ("stream words / weight memory", f"{found['words']:,} / {found['weight_words']:,}"),
        ("blocks kept", f"{found['blocks']:,} of {found['blocks_total']:,}"),
    ]
    shown = [figures.network(image), figures.cycles(image), figures.memory(image)]
    noise = figures.noise(image)
    names = [layer["name"] for layer in found["layers"]]
    notes = []
    if evidence is None:
        notes.append(
            "Activations, confusion and changed answers are in the report of a folder that "
            "`secateur prune` has written."
        )
    by_layer = list(_by_layer(image, names, dense, evidence))
    return Contents(title, facts, shown + ([noise] if noise else []), names, by_layer, notes)


def _by_layer(
    image: Image, names: list[str], dense: Image | None, evidence: Evidence | None
) -> Iterator[Figure]:
    weights, layers = weights_by_layer(image), layers_of(image)
    before = {} if dense is None else {w.layer: w for w in weights_by_layer(dense).values()}
    for at, name in enumerate(names):
        yield figures.layer_cycles(image, at)
        if at in weights:
            yield figures.blocks(image, at, weights[at])
            yield figures.density(image, at, weights[at])
            yield figures.weights(at, weights[at], before.get(name))
        if evidence is not None:
            kinds = (("pruned", "model"), ("dense", "dense"))
            gates = [each["name"] for each in layers[at].get("members", [layers[at]])]
            counts = {
                what: np.sum([evidence.codes[kind, gate] for gate in gates], axis=0)
                for what, kind in kinds
                if all((kind, gate) in evidence.codes for gate in gates)
            }
            if counts:
                yield figures.activations(image, at, counts)


def _of_run(path: Path) -> Contents:
    pruned = next((path / name for name in PRUNED if os.path.isfile(path / name)), None)
    if pruned is None:
        raise SecateurError(f"{path}: has record.json, but no model.sec; run it again")
    dense = images.load(path / "dense.sec") if os.path.isfile(path / "dense.sec") else None
    proof = path / "evidence.safetensors"
    evidence = evidence_of(proof) if os.path.isfile(proof) else None
    found = of_image(images.load(pruned), str(path), dense, evidence)
    facts, extra = list[tuple[str, str]](), list[Figure]()
    if os.path.isfile(path / "record.json"):
        record = record_of(path / "record.json")
        metric = record.metric
        facts = [
            (f"{metric.name}, int8", metric.show(record.score["model"])),
            (f"{metric.name}, int8, dense", metric.show(record.score["dense"])),
        ]
        if record.agreement is not None:
            facts.append(("same answer as dense", f"{record.agreement:.2%}"))
        facts += [("the run failed", record.gate)] if record.gate else []
        if record.losses:
            extra.append(figures.learning({path.name: record.losses}))
        if record.sensitivity:
            extra.append(figures.sensitivity(record.sensitivity, record.judged))
        if record.robustness:
            extra.append(figures.robustness(record.robustness, metric))
    extra += list(_answers(evidence))
    return Contents(
        found.title, facts + found.facts, found.figures + extra, found.layers, found.by_layer,
        found.notes,
    )  # fmt: skip


def _answers(evidence: Evidence | None) -> Iterator[Figure]:
    """Confusion and changed answers, of a classification."""
    if evidence is None or evidence.truth is None:
        return
    dense, model = evidence.dense, evidence.model
    assert dense is not None
    assert model is not None
    yield figures.confusion(evidence.truth, dense, model)
    if evidence.changed is not None and evidence.samples is not None and len(evidence.changed):
        yield figures.answers(evidence.samples, evidence.changed, evidence.truth, dense, model)


def _of_study(path: Path) -> Contents:
    """The study, and its first run of the recipe itself in detail."""
    study = study_of(path / "study.json")
    seeds, variants = study.seeds, study.variants
    points, losses = list[Point](), dict[str, dict[str, list[float]]]()
    for name in variants:
        for seed in seeds:
            file = path / f"{name}-{seed}" / "record.json"
            if Path(name).name == name and os.path.isfile(file):
                record = record_of(file)
                made = (record.cycles["model"], record.score["model"])
                points.append(Point(name, seed, *made))
                if record.losses:
                    losses[file.parent.name] = record.losses
    shown = [
        figures.front(variants, points, study.metric),
        figures.variants(variants, study.metric),
    ]
    shown += [figures.learning(losses)] if losses else []
    facts = [("variants", f"{len(variants)}"), ("seeds", ", ".join(map(str, seeds)))]
    first = next(((point.variant, point.seed) for point in points), None)
    if first is None:
        note = "The folders of its runs are not here: figures of the whole study alone."
        return Contents(str(path), facts, shown, notes=[note])
    run = _of_run(path / f"{first[0]}-{first[1]}")
    facts.append(("shown in detail", f"{first[0]}, seed {first[1]}"))
    note = (
        f"Network, cycles, memory and layers are those of {first[0]}-{first[1]}; `secateur report` "
        f"on the folder of another run shows that one."
    )
    own = [found for found in run.figures if found.name != "learning"]
    return Contents(
        str(path), facts + run.facts, shown + own, run.layers, run.by_layer, [note, *run.notes]
    )


def _of_search(path: Path) -> Contents:
    objectives, trials, front = search_of(path / "explore.json")
    facts = [("trials", f"{len(trials)}"), ("on the front", ", ".join(map(str, front)))]
    note = "The folder of each trial has a report of its own: `secateur report` on it."
    return Contents(str(path), facts, [figures.trials(objectives, trials, front)], notes=[note])


def _of_build(build: Build, path: Path) -> Contents:
    facts = [
        ("board", build.title),
        ("device", build.device),
        ("clock wanted / after routing", f"{build.wanted:g} / {build.fmax:g} MHz"),
        ("seed", str(build.seed)),
    ]
    shown = [figures.resources(build.resources)] if build.resources else []
    shown.append(figures.clock(build.clocks, build.wanted))
    shown += [figures.path(build.path)] if build.path else []
    return Contents(str(path), facts, shown)
