"""The metadata of an image, as JSON: layers, tensors, cycles, traffic."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from secateur._version import __version__
from secateur.compiler.certificate import Certificate
from secateur.compiler.choose import LayerPlan
from secateur.compiler.cost import Parts
from secateur.compiler.encode import Encoded, encode
from secateur.compiler.layout import MapLayout
from secateur.compiler.room.ahead import interval
from secateur.compiler.schedule import Plan, plan
from secateur.compiler.stream.results import result_walk
from secateur.compiler.stream.waits import predict
from secateur.hw.spec import Geometry
from secateur.ir import Ints, Layer, Port, Source, Tensor
from secateur.target import Target


def nonzero_macs(layer: Layer) -> int:
    """Multiplications by a nonzero weight that one inference of the layer needs."""
    pixels = layer.pixels.height * layer.pixels.width
    return sum(int(np.count_nonzero(source.weight)) for source in layer.sources) * pixels


def _traffic(layer_plan: LayerPlan, words: int, p: int) -> dict[str, int]:
    """What an inference of the layer moves.

    ``body_reads`` and ``other_reads``: weight words that are read, of bodies, and of configuration
    and row headers; ``lane_words``: words of bodies that lanes multiply by, one for each lane that
    shares it; ``pixels``: pixels of N channels that drain.
    """
    stored, lane_map = sum(layer_plan.counts) * layer_plan.side, layer_plan.lane_map
    reads = stored * lane_map.groups * layer_plan.body.passes
    return {
        "body_reads": reads,
        "lane_words": reads if layer_plan.filters else reads * p,
        "other_reads": words - stored,
        "pixels": len(layer_plan.counts) * lane_map.groups * lane_map.lanes,
    }


def _slots(layer_plan: LayerPlan, parts: Parts, geometry: Geometry) -> dict[str, int]:
    """What the multipliers do in the cycles of bodies; together N * P for each such cycle.

    ``nonzero`` and ``zero``: multiply by weights of the blocks that are stored; ``move``: have a
    word without weights, which moves the address, fills a short row or reads a gate; ``idle``: of
    lanes without a pixel or a row, or without a channel.
    """
    layer, body, lane_map = layer_plan.layer, layer_plan.body, layer_plan.lane_map
    gates = sum(source.mode == "gate" for source in layer.sources)
    channels = (body.lanes >= 0).sum(axis=1).tolist()
    if lane_map.kind == "blocks":  # one row for all of them, a block for a pixel
        channels, pixels = [sum(channels)], 1
    else:
        pixels = lane_map.columns * lane_map.lines
    weighted = words = 0
    for index, row in enumerate(layer_plan.rows):
        times = body.passes * pixels * channels[index]
        weighted += (row.blocks - gates) * times
        words += layer_plan.counts[index // layer_plan.side] * times
    nonzero = nonzero_macs(layer)
    return {
        "nonzero": nonzero,
        "zero": weighted - nonzero,
        "move": words - weighted,
        "idle": parts.body * geometry.multipliers - words,
    }


@dataclass(frozen=True)
class _Cost:
    """What an inference of a layer takes: cycles and their parts, slots, traffic."""

    parts: Parts
    slots: dict[str, int]
    traffic: dict[str, int]


def _costs(planned: Plan, encoded: Encoded) -> list[_Cost]:
    """Costs per layer."""
    geometry = planned.geometry
    return [
        _Cost(parts, _slots(layer_plan, parts, geometry), _traffic(layer_plan, words, geometry.p))
        for layer_plan, parts, words in zip(
            planned.layers, encoded.layer_parts, encoded.layer_words, strict=True
        )
    ]


def _tensor(layout: MapLayout) -> dict[str, Any]:
    tensor = layout.tensor
    return {
        "name": tensor.name,
        "channels": tensor.channels,
        "height": tensor.height,
        "width": tensor.width,
        "exponent": tensor.exponent,
        "signed": tensor.signed,
        **_joined(tensor),
        "words": layout.words,
        "pitch": layout.pitch,
        "pixel_bytes": layout.placement.pixel_bytes,
        "origin": layout.origin,
        "fill": layout.padding.fill,
        "position": layout.placement.position.tolist(),
    }


def _joined(tensor: Tensor) -> dict[str, Any]:
    """Scales of the parts of a tensor, if these have their own."""
    parts = zip(tensor.slices, tensor.joined, strict=False)
    found = [{"channels": n, "exponent": t.exponent, "signed": t.signed} for n, t in parts]
    return {"joined": found} if found else {}


def _port(port: Port, layout: MapLayout) -> dict[str, Any]:
    named: dict[str, Any] = {
        "name": port.name,
        "tensor": port.tensor.name,
        "shape": list(port.shape),
    }
    several = [axis for axis, size in enumerate(port.finer.shape) if size > 1]
    if several:
        # Vectors and signals lack height, or width too.
        axis = several[0] if several[0] == 0 else several[0] + 3 - len(port.shape)
        named |= {"axis": axis, "exponents": port.exponents.ravel().tolist()}
    if port.table is not None:
        values = base64.b64encode(port.table.astype("<f4").tobytes()).decode()
        named["lookup"] = {"rows": len(port.table), "values": values}
    if port.samples:
        named["samples"] = port.samples
    if port.factors.size > 1:
        along = int(np.argmax(port.factors.shape))
        named |= {"along": along, "factors": port.factors.ravel().tolist()}
    elif port.factors != 1:
        named["factor"] = float(port.factors)
    return _tensor(layout) | named


def _window(layout: MapLayout) -> dict[str, Any]:
    return {
        "tensor": layout.tensor.name,
        "base": layout.base,
        "words": layout.window,
        "clear": layout.clear,
    }


def _source(planned: Plan, source: Source) -> dict[str, Any]:
    layout = planned.layouts[source.tensor]
    return {
        "tensor": source.tensor.name,
        "mode": source.mode,
        "first": source.first,
        "shape": list(source.weight.shape),
        "stride": list(source.stride),
        "padding": list(source.padding),
        "dilation": list(source.dilation),
        "wshift": source.wshift,
        "start": layout.placement.start[source.first],
    }


def _layer(
    planned: Plan,
    layer_plan: LayerPlan,
    cost: _Cost,
    dense: _Cost,
    words: int,
    proof: Certificate,
) -> dict[str, Any]:
    layer, lane_map = layer_plan.layer, layer_plan.lane_map
    geometry = planned.geometry
    slots, busy = lane_map.groups * geometry.p, lane_map.columns * lane_map.lines
    if layer_plan.filters:
        slots, busy = slots * len(layer_plan.counts), busy * len(layer_plan.rows)
    return {
        "name": layer.name,
        "label": layer.label,
        "kind": layer.kind,
        "nodes": layer.nodes,
        **_members(layer),
        "cycles": cost.parts.cycles,
        "cycles_dense": dense.parts.cycles,
        "parts": asdict(cost.parts) | {"slots": cost.slots},
        "parts_dense": asdict(dense.parts) | {"slots": dense.slots},
        "traffic": cost.traffic,
        "traffic_dense": dense.traffic,
        "bound_cycles": nonzero_macs(layer) / geometry.multipliers,
        "blocks": layer_plan.body.blocks,
        "blocks_total": layer_plan.body.blocks_total,
        "words": words,
        "rows": len(layer_plan.rows),
        "groups": lane_map.groups,
        "deal": lane_map.kind,
        "passes": layer_plan.body.passes,
        "lanes_busy": busy / slots,
        "certificate": {"accumulator": proof.accumulator, "reference": proof.reference},
        "output": layer.output.name,
        "first": layer.first,
        "channels": layer.channels,
        "lanes": layer_plan.body.lanes.tolist(),
        "shift": layer.shift.tolist(),
        "sources": [_source(planned, source) for source in layer.sources],
        **({} if layer.region is None else {"region": asdict(layer.region)}),
        **_strip(layer),
        **_other(layer_plan),
        **({} if layer.sqnr is None else {"sqnr": _sqnr(layer.sqnr)}),
    }


def _members(layer: Layer) -> dict[str, Any]:
    """The layers of which a layer is made, and the first of its channels that each computes."""
    if not layer.members:
        return {}
    firsts = np.cumsum([0, *(each.channels for each in layer.members)]).tolist()
    return {
        "members": [
            {"name": each.name, "label": each.label, "first": first, "channels": each.channels}
            for each, first in zip(layer.members, firsts, strict=False)
        ]
    }


def _strip(layer: Layer) -> dict[str, Any]:
    """The layer of the model of which a layer computes some rows, and which."""
    if layer.strip is None:
        return {}
    pixels, axis = layer.pixels, layer.strip.axis
    return {"strip": asdict(layer.strip) | {"size": pixels.width if axis else pixels.height}}


def _other(layer_plan: LayerPlan) -> dict[str, Any]:
    """The lane mapping of the other kind, filters or pixels, and the cycles that its rows take."""
    if layer_plan.other is None:
        return {}
    other = replace(layer_plan, lane_map=layer_plan.other)
    return {"other": {"deal": other.lane_map.kind, "cycles": other.cycles}}


def _sqnr(measured: tuple[float, float]) -> dict[str, float]:
    """To a tenth of a dB: what is behind it depends on how PyTorch adds."""
    found, free = measured
    return {"found": round(found, 1), "free": round(free, 1)}


def metadata(
    planned: Plan, encoded: Encoded, certificates: dict[Layer, Certificate], target: Target
) -> dict[str, Any]:
    """The metadata of an image.

    Parameters
    ----------
    planned : the plan
    encoded : its words and cycles
    certificates : overflow certificates per layer
    target : whose name is recorded

    Returns
    -------
    metadata : as ``image.md`` lists it
    """
    network, geometry = planned.network, planned.geometry
    dense_plan = plan(network, target.geometry, dense=True)
    dense = _costs(dense_plan, encode(dense_plan, check_depth=False))
    layers = [
        _layer(planned, layer_plan, cost, whole, words, certificates[layer_plan.layer])
        | ({"fill": cost.parts.tables} if cost.parts.tables else {})
        for layer_plan, cost, whole, words in zip(
            planned.layers, _costs(planned, encoded), dense, encoded.layer_words, strict=True
        )
    ]
    waits = _memory_waits(planned, encoded, target)
    for layer, waited in zip(layers, waits, strict=False):
        layer["memory_wait"] = waited
    overhead = encoded.cycles - sum(encoded.layer_cycles)
    layouts = [*planned.layouts.values(), *planned.results.values()]
    return {
        "secateur": __version__,
        "target": target.name,
        "source_hash": network.source_hash,
        "cycles": encoded.cycles,
        "cycles_dense": sum(cost.parts.cycles for cost in dense) + overhead,
        "bound_cycles": sum(layer["bound_cycles"] for layer in layers),
        "interval": interval(planned, encoded),
        "pixels_only": geometry.s < target.geometry.s,
        **({} if planned.strips is None else {"strips": asdict(planned.strips)}),
        "inputs": [_port(port, planned.layouts[port.tensor]) for port in network.inputs],
        "outputs": [
            _port(port, planned.results[port.tensor]) | {"m": walk.tolist()}
            for port, walk in _results(planned)
        ],
        "arguments": list(network.form.arguments),
        "returns": network.form.returns,
        "states": [state.before.tensor.name for state in planned.network.states],
        "every_step": planned.network.every_step,
        **({"steps": planned.network.steps} if planned.network.steps else {}),
        "tensors": [_tensor(layout) for layout in layouts],
        "layers": layers,
        "memory": [_window(layout) for layout in planned.layouts.values()],
        "bank_words": geometry.bank_words,
        "tables": geometry.tables,
        "weight_words": geometry.weight_words,
        "s": target.geometry.s,
        **_ring(target),
    }


def _ring(target: Target) -> dict[str, Any]:
    """The ring and its source, if there is one."""
    if target.source is None:
        return {}
    return {"ring": {"words": target.geometry.ring} | asdict(target.source)}


def _memory_waits(planned: Plan, encoded: Encoded, target: Target) -> list[dict[str, int]]:
    """Cycles for which each layer waits for words of the ring; empty without one.

    ``full``: of an inference whose input comes when the ring is full; ``next``: of one after the
    other, each input there before it is taken.
    """
    if target.source is None:
        return []
    found = predict(planned, encoded, target.geometry, target.source)
    return [
        {"full": full, "next": following}
        for full, following in zip(found[0], found[-1], strict=True)
    ]


def _results(planned: Plan) -> list[tuple[Port, Ints]]:
    """The outputs in the order of the result stream, each with the map word of every beat."""
    ports = {port.tensor: port for port in planned.network.outputs}
    layers = [found for found in planned.layers if found.layer.output in ports]
    return [(ports[found.layer.output], result_walk(planned, found)) for found in layers]
