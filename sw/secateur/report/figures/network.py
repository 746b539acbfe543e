"""The network as a graph: layers, shapes, exponents of codes, tensors that share memory."""

from __future__ import annotations

from typing import Any

import networkx
import plotly.graph_objects as go

from secateur.image.image import Image
from secateur.report.figures import figure
from secateur.report.figures.cycles import layers_of
from secateur.report.figures.figure import Cell, Figure, drawing, label
from secateur.report.figures.memory import lives, sharing

_STEP = 58  # pixels from one generation of the graph to the next


def graph(image: Image) -> networkx.DiGraph:
    """The layers by number and the tensors that no layer before writes by name, as a DAG.

    An edge leads from each layer that writes a tensor to each later layer that reads it, and has
    the name of the ``tensor``.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    found = networkx.DiGraph()
    writers: dict[str, list[Any]] = {}
    for at, layer in enumerate(layers_of(image)):
        found.add_node(at)
        for source in layer["sources"]:
            name = source["tensor"]
            for writer in writers.get(name) or [f"tensor {name}"]:
                found.add_edge(writer, at, tensor=name)
        writers.setdefault(layer["output"], []).append(at)
    return found


def network(image: Image) -> Figure:
    """Layers as nodes, tensors as arrows; the data of a node are the number of its layer.

    Raises
    ------
    SecateurError : the image carries no metadata
    """
    layers, found = layers_of(image), graph(image)
    for depth, nodes in enumerate(networkx.topological_generations(found)):
        for node in nodes:
            found.nodes[node]["depth"] = depth
    places = networkx.multipartite_layout(found, subset_key="depth", align="horizontal", scale=1)
    at = {node: (float(x), -found.nodes[node]["depth"]) for node, (x, _) in places.items()}
    shapes = _shapes(image)
    inputs = [node for node in found if isinstance(node, str)]
    groups: dict[str, list[Any]] = {"input": inputs} if inputs else {}
    for number, layer in enumerate(layers):
        groups.setdefault(layer["kind"], []).append(number)
    traces = [_arrows(found, at, far=False), _arrows(found, at, far=True)]
    for number, (kind, nodes) in enumerate(groups.items()):
        colour = figure.COLOURS[number % len(figure.COLOURS)]
        traces.append(_nodes(kind, colour, [(node, at[node]) for node in nodes], layers, shapes))
    depth = 1 + max(found.nodes[node]["depth"] for node in found)
    plot = drawing(traces, x="", y="", height=120 + _STEP * depth, hovermode="closest")
    plot.update_xaxes(visible=False, range=[-1.3, 2.2])
    plot.update_yaxes(visible=False)
    text = (
        f"{len(layers)} layers in {depth} steps, read from top to bottom; each name is followed by "
        f"the channels x height x width of its output. Choose a layer, here or in the list of "
        f"layers, to see its figures."
    )
    title = "The network"
    columns = (
        "layer", "kind", "reads", "output", "channels", "height", "width", "codes",
        "shares memory with",
    )  # fmt: skip
    return Figure("network", title, text, columns, _rows(image), plot)


def _shapes(image: Image) -> dict[str, dict[str, Any]]:
    return {tensor["name"]: tensor for tensor in image.metadata["tensors"]}


def _size(tensor: dict[str, Any] | None) -> str:
    if tensor is None:
        return "unknown"
    return f"{tensor['channels']} x {tensor['height']} x {tensor['width']}"


def _codes(tensor: dict[str, Any]) -> str:
    """What codes of a tensor are worth."""
    return f"{'int8' if tensor['signed'] else 'uint8'} x 2^{tensor['exponent']}"


def _arrows(found: networkx.DiGraph, at: dict[Any, tuple[float, int]], far: bool) -> go.Scatter:
    """Arrows to the next step, straight; or ``far``, those that pass a step, around it."""
    x: list[float | None] = []
    y: list[float | None] = []
    for a, b in found.edges:
        (x0, y0), (x1, y1) = at[a], at[b]
        if far == (y0 - y1 > 1):
            aside = [min(x0, x1) - 0.08 - 0.04 * min(y0 - y1, 5)] * far
            x += [x0, *aside, x1, None]
            y += [y0, *[(y0 + y1) / 2] * far, y1, None]
    grey = "rgba(128, 128, 128, 0.8)"
    # An arrow head at each end that is a node, turned to where the line comes from.
    marker = {"symbol": "arrow", "size": 9, "angleref": "previous", "standoff": 9, "color": grey}
    line = {"color": grey, "width": 1.5, "shape": "spline" if far else "linear"}
    return go.Scatter(
        x=x, y=y, mode="lines" if far else "lines+markers", line=line, marker=marker,
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _nodes(
    kind: str,
    colour: str,
    nodes: list[tuple[Any, tuple[float, int]]],
    layers: list[dict[str, Any]],
    shapes: dict[str, dict[str, Any]],
) -> go.Scatter:
    """Layers of a kind, or tensors that no layer before writes, with what is said of them."""
    texts, hovers = [], []
    for node, _ in nodes:
        given = isinstance(node, str)
        tensor = shapes.get(node.removeprefix("tensor ") if given else layers[node]["output"])
        name = label(node if given else layers[node]["name"])
        texts.append(f"{name}  {_size(tensor)}")
        lines = [name, _size(tensor), *([] if tensor is None else [_codes(tensor)])]
        if not given:
            layer = layers[node]
            lines += [label(layer["kind"]), f"{layer['cycles']:,} cycles"]
        hovers.append("<br>".join(lines))
    return go.Scatter(
        x=[x for _, (x, _) in nodes],
        y=[y for _, (_, y) in nodes],
        mode="markers+text",
        marker={"size": 16, "symbol": "square", "color": colour},
        text=texts,
        textposition="middle right",
        customdata=[None if isinstance(node, str) else node for node, _ in nodes],
        name=label(kind),
        hovertext=hovers,
        hoverinfo="text",
    )


def _rows(image: Image) -> list[tuple[Cell, ...]]:
    shapes, shared = _shapes(image), sharing([life for life in lives(image) if life.words])
    rows: list[tuple[Cell, ...]] = []
    for layer in layers_of(image):
        tensor = shapes[layer["output"]]
        reads = ", ".join(source["tensor"] for source in layer["sources"])
        rows.append(
            (
                layer["name"], layer["kind"], reads, layer["output"], tensor["channels"],
                tensor["height"], tensor["width"], _codes(tensor),
                ", ".join(shared.get(layer["output"], [])) or "none",
            )
        )  # fmt: skip
    return rows
