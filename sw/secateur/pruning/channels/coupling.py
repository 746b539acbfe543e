"""Which layers share their output channels: through residuals, depthwise layers, concatenation.

References
----------
The dependency graph is Torch-Pruning's: Fang et al., "DepGraph: towards any structural pruning",
CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.capture.outputs import tensors_in
from secateur.errors import SecateurError
from secateur.fx.computed import make_permanent
from secateur.pruning.criteria.probe import Inputs, called, evaluating
from secateur.pruning.units.blocks import PRUNABLE, weight_of
from secateur.pruning.units.mask import BlockMask, mask_of


@dataclass(frozen=True, eq=False)
class Part:
    """The channels of a set in one module.

    Attributes
    ----------
    module : a layer, or whatever else the trace finds
    reads : whether the pairs name input channels of the module, not output channels
    pairs : (channel of the set, channel of the module)
    """

    module: Any
    reads: bool
    pairs: list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class ChannelSet:
    """Channels that are removed, or reordered, together.

    Attributes
    ----------
    channels : of the set
    members : by name of layer, pairs (channel of the set, output channel of the layer)
    parts : such pairs for all modules, and input channels of those that read the set
    output : the model returns them
    fixed : a grouped convolution ties them by its groups, or they are padded, or cut and put
        together in another order
    group : of Torch-Pruning
    """

    channels: int
    members: dict[str, list[tuple[int, int]]]
    parts: tuple[Part, ...]
    output: bool
    fixed: bool
    group: Any

    def aligned(self, layers: Mapping[str, nn.Module]) -> bool:
        """Whether channel c of the set is channel c of every member, and members have no others.

        Members that are not among ``layers`` are trusted to be as the others.
        """
        same = [(c, c) for c in range(self.channels)]
        return all(
            sorted(pairs) == same
            and (name not in layers or len(weight_of(layers[name])) == self.channels)
            for name, pairs in self.members.items()
        )


def make_plain(model: nn.Module) -> None:
    """Make all tensors of a model that something computes parameters, with a warning; not masks."""
    for name, layer in model.named_modules():
        make_permanent(name, layer, but=BlockMask)


def channel_sets(model: nn.Module, example: Inputs) -> list[ChannelSet]:
    """Trace the model with example inputs, batch included, and find its channel sets.

    Raises
    ------
    SecateurError : masks, or frozen parameters, which the trace cannot see through; or a model that
        Torch-Pruning cannot follow
    """
    for name, layer in model.named_modules():
        if mask_of(layer) is not None:
            raise SecateurError(
                f"layer '{name}' has a mask: channels come first, then blocks; "
                "call secateur.pruning.remove to bake the masks in"
            )
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise SecateurError(f"parameter '{name}' is frozen; the trace needs requires_grad")
    from torch_pruning import DependencyGraph

    names = {module: name for name, module in model.named_modules()}
    with evaluating(model):
        try:
            graph = DependencyGraph().build_dependency(
                model, example_inputs=example, forward_fn=called, output_transform=tensors_in
            )
            groups = list(graph.get_all_groups())
        except SecateurError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SecateurError(
                f"the channels of the model cannot be followed; Torch-Pruning says: {reason}"
            ) from error
    return [_channel_set(graph, group, names) for group in groups]


def _channel_set(graph: Any, group: Any, names: dict[nn.Module, str]) -> ChannelSet:
    members: dict[str, list[tuple[int, int]]] = {}
    parts: list[Part] = []
    output = fixed = False
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        groups = getattr(module, "groups", 1)
        depthwise = groups == getattr(module, "in_channels", 0) == module.out_channels
        fixed |= isinstance(module, nn.Module) and groups != 1 and not depthwise
        reads = not graph.is_out_channel_pruning_fn(item.dep.handler)
        pairs = list(zip(item.root_idxs, item.idxs, strict=True))
        parts.append(Part(module, reads, pairs))
        if reads:
            continue
        output |= not node.outputs
        if isinstance(module, PRUNABLE):
            fixed |= max(item.idxs, default=0) >= len(weight_of(module))  # cut, padded
            members[names[module]] = pairs
    return ChannelSet(len(group[0].idxs), members, tuple(parts), output, fixed, group)
