"""How far every layer of a quantised network is above the noise of its rounding.

Three networks run on the same inputs: in float, quantised, and with 8-bit codes of any scale, one
for each tensor and for each output channel of a weight. The third is what rounding to 8 bits costs
by itself; what the second loses against it is the price of scales that are powers of two, that
tensors share, and that fit the accumulator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor as Values
from torch.fx import GraphModule, Interpreter, Node

from secateur.capture.ports import Call, tensors_of
from secateur.capture.steps import Sequence
from secateur.errors import SecateurWarning
from secateur.ir import Network, Tensor
from secateur.quantisation.balance.choose import STEPS, Noise
from secateur.quantisation.calibration import parts
from secateur.quantisation.exponents.arguments import looked_up
from secateur.quantisation.fake_quantise import (
    ActivationFakeQuantize,
    PerChannelWeightFakeQuantize,
    PowerOfTwo,
)
from secateur.text import name

#: Key of a converted graph's ``meta``: figures by the name of the node that a layer ends with.
MEASURED = "secateur_sqnr"
#: Samples of the calibration data that are run.
SAMPLES = 64
#: A layer that loses more, in dB, is named by a warning.
LOST = 3.0
#: Layers that a warning names; of a sequence that is unrolled there are hundreds.
_SHOWN = 3

#: Stored values by the name of the node that computes them, batch after batch.
_Values = dict[str, list[Values]]


class Sqnr(NamedTuple):
    """Signal to quantisation noise of a value on calibration data, in dB.

    Attributes
    ----------
    found : as it is quantised
    free : with codes of any scale, everywhere
    """

    found: float
    free: float


class Yardstick:
    """What both the float and the quantised network are given.

    Parameters
    ----------
    calls : of the model
    sequence : that runs the graph of a step; None for other graphs
    channels : factors, (C,), of the stored values that have one per channel, by name
    """

    def __init__(
        self, calls: list[Call], sequence: Sequence | None, channels: dict[str, Values]
    ) -> None:
        self._sequence, self._channels = sequence, channels
        self._calls = [call.map(lambda x: x[:SAMPLES]) for call in calls[:1]]
        for call in calls[1:]:
            if sum(map(len, self._calls)) < SAMPLES:
                self._calls.append(call)

    def __deepcopy__(self, memo: object) -> Yardstick:
        """The same: nothing of it changes."""
        return self

    def measure(self, prepared: GraphModule, quantised: GraphModule) -> dict[str, Sqnr]:
        """The figures of every stored value, by the name of the node that computes it.

        Parameters
        ----------
        prepared : with the weights of the model
        quantised : the same, with the weights and biases that are converted next
        """
        with torch.no_grad():
            exact = self._run(_Recorder(prepared))
            free = self._run(_Free(prepared, exact))
            found = self._run(_Quantised(quantised))
        for key, factors in self._channels.items():
            for values in (exact, free, found):
                values[key] = [_divided(x, factors) for x in values[key]]
        # The argument of a function is clipped where the result does not change any more.
        arguments = {node.all_input_nodes[0].name for node in looked_up(prepared)}
        measured = {}
        for key in (exact.keys() & found.keys()) - arguments:
            here, best = (_sqnr(exact[key], values[key]) for values in (found, free))
            if here is not None and best is not None:
                measured[key] = Sqnr(here, best)
        return measured

    def _run(self, graph: _Recorder) -> _Values:
        for inputs in self._batches(graph):
            graph.of(inputs)
        return graph.values

    def _batches(self, graph: _Recorder) -> Iterator[list[Values]]:
        gm = graph.graph_module
        device = next((x.device for x in (*gm.parameters(), *gm.buffers())), torch.device("cpu"))
        for call in (call.map(lambda x: x.to(device)) for call in self._calls):
            if self._sequence is None:
                for part in parts(gm, call):
                    yield tensors_of(gm, part)
                continue
            x = call.one
            graph.result = [x, *self._sequence.zeros(x)]
            for step in x.unbind(1):
                yield [step, *graph.result[1:]]


class _Recorder(Interpreter):
    """Runs a prepared graph, and keeps its stored values.

    Attributes
    ----------
    values : so far
    result : of the last run
    """

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.graph_module, self.values, self.result = gm, _Values(), list[Values]()

    def of(self, inputs: list[Values]) -> None:
        """Run it on the tensors of its inputs."""
        self.result = self.run(*inputs, enable_io_processing=False)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Round what the fake quantisers stand for."""
        module = self.fetch_attr(target)
        if not isinstance(module, PowerOfTwo):
            return super().call_module(target, args, kwargs)
        return self.rounded(module, args[0])

    def run_node(self, n: Node) -> Any:
        """Also keep the value of a stored node."""
        self.node = n
        value = super().run_node(n)
        if n.op == "call_module" and isinstance(
            self.fetch_attr(str(n.target)), ActivationFakeQuantize
        ):
            self.values.setdefault(n.all_input_nodes[0].name, []).append(value)
        return value

    def rounded(self, module: PowerOfTwo, x: Values) -> Values:
        """Nothing is."""
        return x


class _Quantised(_Recorder):
    def rounded(self, module: PowerOfTwo, x: Values) -> Values:
        """As the array has it."""
        scales = torch.exp2(module.exponent.float()).reshape(-1, *[1] * (x.dim() - 1))
        if isinstance(module, ActivationFakeQuantize):
            scales = scales.reshape(())
        return _codes(x, scales, module.quant_min, module.quant_max)


class _Free(_Recorder):
    """Any scales; those of least squared error for tensors."""

    def __init__(self, gm: GraphModule, exact: _Values) -> None:
        super().__init__(gm)
        self._exact, self._scales = exact, dict[str, tuple[float, bool]]()

    def rounded(self, module: PowerOfTwo, x: Values) -> Values:
        """Of weights (O, ...) each output channel by its largest."""
        if isinstance(module, PerChannelWeightFakeQuantize):
            tops = x.abs().flatten(1).amax(1).clamp(min=1e-30)
            scales = (tops / module.quant_max).reshape(-1, *[1] * (x.dim() - 1))
            return _codes(x, scales, module.quant_min, module.quant_max)
        name = self.node.all_input_nodes[0].name
        if name not in self._scales:
            self._scales[name] = _best_scale(self._exact[name])
        scale, unsigned = self._scales[name]
        return _codes(x, scale, 0 if unsigned else -128, 255 if unsigned else 127)


def _divided(x: Values, factors: Values) -> Values:
    """A value (N, C, ...) by factors (C,)."""
    return x / factors.to(x).reshape([1, -1] + [1] * (x.dim() - 2))


def _codes(x: Values, scale: Values | float, low: int, high: int) -> Values:
    return (x / scale).round().clamp(low, high) * scale


def _best_scale(values: list[Values]) -> tuple[float, bool]:
    """For a tensor in batches, and whether its codes are unsigned."""
    unsigned = all(float(x.min()) >= 0 for x in values)
    low, high = (0, 255) if unsigned else (-128, 127)
    observed = ActivationFakeQuantize(quant_min=low, quant_max=high).to(values[0].device)
    for x in values:
        observed.observe(x)
    noise = Noise(observed)
    return (1.0 if noise.dead else 2.0 ** (noise.best() / STEPS)), unsigned


def _sqnr(exact: list[Values], found: list[Values]) -> float | None:
    """In dB; None of zeros, or if nothing is lost."""
    signal = sum(float(e.double().square().sum()) for e in exact)
    error = sum(
        float((e.double() - f.double()).square().sum()) for e, f in zip(exact, found, strict=True)
    )
    return 10 * math.log10(signal / error) if signal and error else None


def warn_of_losses(network: Network) -> None:
    """Name the layers where more than 3 dB are lost that those before them have not lost already.

    Parameters
    ----------
    network : lowered
    """
    lost: dict[Tensor, float] = {}
    named: list[tuple[float, str]] = []
    for layer in network.layers:
        earlier = max(lost.get(source.tensor, 0.0) for source in layer.sources)
        found, free = layer.sqnr or (0.0, earlier)
        own = free - found
        lost[layer.output] = max(own, lost.get(layer.output, 0.0))
        if own > LOST >= earlier:
            named.append((own, f"{name(layer.name)!r} ({own:.1f} of {free:.1f} dB)"))
    if named:
        shown = ", ".join(text for _, text in sorted(named, reverse=True)[:_SHOWN])
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        warnings.warn(
            f"signal to quantisation noise, lost by the scales of the array: layer {shown}{more}; "
            f"'secateur inspect' lists all; if the accuracy suffers, train with fake quantisation "
            f"(secateur.prepare)",
            SecateurWarning,
            stacklevel=3,
        )
