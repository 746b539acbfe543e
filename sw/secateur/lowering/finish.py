"""Layers of the lowered network, from drafts."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from secateur.fx.graph import PAD, is_call, label_of, path_of
from secateur.ir import Layer, Source
from secateur.lowering.draft import DraftLayer
from secateur.lowering.store import Stores


def finish(
    draft: DraftLayer, stores: Stores, names: set[str], measured: Mapping[str, tuple[float, float]]
) -> Layer:
    """The layer of a draft.

    Parameters
    ----------
    draft : of which all stores are known
    stores : gives their tensors
    names : of the layers so far; that of this one is added
    measured : signal to quantisation noise by the names of nodes
    """
    sources = [
        Source(
            tensor=stores.tensor(s.store),
            mode=s.mode,
            weight=s.weight,
            stride=s.window.stride,
            padding=s.window.padding,
            dilation=s.window.dilation,
            first=s.store.first(),
            wshift=s.wshift,
        )
        for s in draft.sources
    ]
    first = _first(draft)
    return Layer(
        name=_name(draft, first, names),
        kind=draft.kind,
        sources=sources,
        output=stores.tensor(draft.output),
        bias=draft.bias,
        shift=draft.shift,
        low=draft.low,
        high=draft.high,
        first=draft.output.first(),
        nodes=[n.name for n in draft.nodes],
        table=draft.table,
        label="" if first is None else label_of(first),
        region=draft.region,
        sqnr=next((measured[n.name] for n in reversed(draft.nodes) if n.name in measured), None),
    )


def _first(draft: DraftLayer) -> Node | None:
    """The node that a layer is named by; a copy has none."""
    return next((n for n in draft.nodes if not is_call(n, PAD)), None)


def _name(draft: DraftLayer, first: Node | None, names: set[str]) -> str:
    """The module's path where the graph knows it, else the node's name; unique.

    An average has become a convolution, whose name would mislead.
    """
    base = draft.output.name  # of a copy, which stands for no node
    if first is not None:
        base = path_of(first) or ("average" if draft.kind == "avgpool" else first.name)
    name, count = base, 1
    while name in names:
        count += 1
        name = f"{base}#{count}"
    names.add(name)
    return name
