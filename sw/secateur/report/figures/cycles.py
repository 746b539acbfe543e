"""Where the cycles go: parts of the exact count, per layer, of the image and with every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.report.figures import figure
from secateur.report.figures.figure import Figure, drawing, labels, percent

#: Parts in the order in which they are stacked: key, what it is, colour.
PARTS = (
    ("nonzero", "multiplying nonzeros", figure.BLUE),
    ("zero", "zeros inside kept blocks", figure.SKY),
    ("move", "words without weights", figure.PURPLE),
    ("idle", "idle lanes", figure.YELLOW),
    ("wait", "drain waits", figure.ORANGE),
    ("headers", "row headers", figure.AMBER),
    ("setup", "set-up", figure.GREEN),
    ("clear", "clears", "#8c8c8c"),
    ("tables", "filling tables", "#bdbdbd"),
    ("tail", "last drain", "#44aa99"),
    ("load", "input loading", "#882255"),
)
#: Parts in which the multipliers share cycles.
SHARED = ("nonzero", "zero", "move", "idle")
LOADING = "input loading"


@dataclass(frozen=True)
class Cycles:
    """Parts of the cycles of one inference.

    Attributes
    ----------
    multipliers : of the array; a cycle has so many slots
    layers : names
    slots : of each layer, slots by key of `PARTS`
    load : cycles that belong to no layer: after the last input word
    """

    multipliers: int
    layers: list[str]
    slots: list[dict[str, int]]
    load: int

    @property
    def total(self) -> int:
        """All slots, ``multipliers`` for each cycle of the image."""
        return sum(sum(slots.values()) for slots in self.slots) + self.load * self.multipliers


def parts(image: Image, *, dense: bool = False) -> Cycles:
    """The parts of an image's cycles, exactly.

    Parameters
    ----------
    image : with metadata
    dense : of the same network with every block kept

    Raises
    ------
    SecateurError : the image carries no metadata, or was compiled before they held the parts
    """
    layers, suffix = layers_of(image), "_dense" if dense else ""
    multipliers, found = image.n * image.p, []
    for layer in layers:
        if "parts" not in layer or "parts_dense" not in layer:
            raise SecateurError(
                f"{image.name}: layer {layer['name']!r} has no parts of its cycles: an older "
                f"Secateur compiled it; compile the model again"
            )
        own = layer[f"parts{suffix}"]
        slots = {key: own["slots"][key] for key in SHARED}
        slots |= {key: own[key] * multipliers for key, *_ in PARTS if key in own}
        found.append(slots)
    total = image.metadata[f"cycles{suffix}"]
    load = total - sum(layer[f"cycles{suffix}"] for layer in layers)
    return Cycles(multipliers, [layer["name"] for layer in layers], found, load)


def layers_of(image: Image) -> list[dict[str, Any]]:
    """Metadata of the layers.

    Raises
    ------
    SecateurError : the image carries none
    """
    if "layers" not in image.metadata:
        raise SecateurError(f"{image.name}: the image has no metadata to report; it was stripped")
    layers: list[dict[str, Any]] = image.metadata["layers"]
    return layers


def cycles(image: Image) -> Figure:
    """Cycles per layer, stacked by what the array does, the image above its dense network.

    Raises
    ------
    SecateurError : as of `parts`
    """
    pruned, dense = parts(image), parts(image, dense=True)
    names = [*labels(pruned.layers), LOADING]
    pairs = [f"{name}{which}" for name in names for which in ("", " (dense)")]
    traces = []
    for key, what, colour in PARTS:
        values = [
            value
            for two in zip(_cycles(pruned, key), _cycles(dense, key), strict=True)
            for value in two
        ]
        if any(values):
            bar = go.Bar(x=values, y=pairs, name=what, orientation="h", marker={"color": colour})
            traces.append(bar)
    plot = drawing(
        traces, x="cycles", y="", height=160 + 19 * len(pairs), barmode="stack", bargap=0.15
    )
    plot.update_yaxes(autorange="reversed")
    total, whole = (found.total // found.multipliers for found in (pruned, dense))
    bound = sum(slots["nonzero"] for slots in pruned.slots)
    largest = max(range(len(names) - 1), key=lambda at: sum(pruned.slots[at].values()))
    text = (
        f"An inference takes {total:,} cycles, {percent(total, whole)} of the {whole:,} with every "
        f"block kept. {_spoken(pruned)}. The bound, all multipliers busy with nonzeros, is "
        f"{percent(bound, pruned.total)} of the cycles. The layer with the most cycles is "
        f"{pruned.layers[largest]}."
    )
    keys = [key for key, *_ in PARTS if any(_cycles(pruned, key))]
    columns = ("layer", "cycles", "dense", *(dict_of_names()[key] for key in keys), "of bound")
    return Figure("cycles", "Where the cycles go", text, columns, _rows(pruned, dense, keys), plot)


def layer_cycles(image: Image, layer: int) -> Figure:
    """The parts of one layer's cycles, the image beside its dense network.

    Raises
    ------
    SecateurError : as of `parts`
    """
    pruned, dense = parts(image), parts(image, dense=True)
    names, rows, traces = dict_of_names(), list[tuple[figure.Cell, ...]](), []
    keys = [key for key, *_ in PARTS if pruned.slots[layer].get(key) or dense.slots[layer].get(key)]
    for what, found, colour in (("pruned", pruned, figure.BLUE), ("dense", dense, figure.GREY)):
        values = [found.slots[layer].get(key, 0) / found.multipliers for key in keys]
        marker = {"color": colour}
        traces.append(
            go.Bar(x=values, y=[names[key] for key in keys], name=what, orientation="h",
                   marker=marker)
        )  # fmt: skip
        rows.append((what, *(rounded(value) for value in values), sum(values)))
    plot = drawing(traces, x="cycles", y="", height=420, barmode="group")
    plot.update_yaxes(autorange="reversed")
    took, whole = (sum(f.slots[layer].values()) // f.multipliers for f in (pruned, dense))
    bound = percent(pruned.slots[layer]["nonzero"], sum(pruned.slots[layer].values()))
    text = f"{took:,} cycles, {whole:,} dense; {bound} of them multiply nonzeros in all lanes."
    columns = ("", *(names[key] for key in keys), "all")
    title = "Cycles of the layer"
    return Figure(f"cycles-{layer}", title, text, columns, rows, plot, layer)


def dict_of_names() -> dict[str, str]:
    """What each part is, by key."""
    return {key: what for key, what, _ in PARTS}


def rounded(value: float) -> figure.Cell:
    """A number of cycles for a table: whole, or with two digits."""
    return int(value) if value == int(value) else f"{value:,.2f}"


def _cycles(found: Cycles, key: str) -> list[float]:
    """Cycles of a part, per layer and of no layer."""
    own = [slots.get(key, 0) / found.multipliers for slots in found.slots]
    return [*own, float(found.load) if key == "load" else 0.0]


def _spoken(found: Cycles) -> str:
    """The largest parts in words."""
    sums = {key: sum(slots.get(key, 0) for slots in found.slots) for key, *_ in PARTS}
    names, order = dict_of_names(), sorted(sums, key=lambda key: -sums[key])[:3]
    said = ", ".join(f"{names[key]} {percent(sums[key], found.total)}" for key in order)
    return f"The largest parts: {said}"


def _rows(pruned: Cycles, dense: Cycles, keys: list[str]) -> list[tuple[figure.Cell, ...]]:
    rows: list[tuple[figure.Cell, ...]] = []
    for at, name in enumerate(pruned.layers):
        slots, size = pruned.slots[at], pruned.multipliers
        took = sum(slots.values())
        values = (rounded(slots.get(key, 0) / size) for key in keys)
        whole = sum(dense.slots[at].values()) // size
        rows.append((name, took // size, whole, *values, percent(slots["nonzero"], took)))
    none: list[figure.Cell] = [pruned.load if key == "load" else 0 for key in keys]
    rows.append((LOADING, pruned.load, dense.load, *none, ""))
    sums = [sum(slots.get(key, 0) for slots in pruned.slots) for key in keys]
    loads = [pruned.load if key == "load" else 0 for key in keys]
    totals = [rounded(s / pruned.multipliers + load) for s, load in zip(sums, loads, strict=True)]
    nonzero = sum(slots["nonzero"] for slots in pruned.slots)
    last = (pruned.total // pruned.multipliers, dense.total // dense.multipliers)
    rows.append(("all", *last, *totals, percent(nonzero, pruned.total)))
    return rows
