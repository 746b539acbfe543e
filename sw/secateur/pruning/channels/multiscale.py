"""Multi-scale pruning: whole channels first, then blocks of what is left, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from secateur.pruning.channels.permute import permute
from secateur.pruning.channels.remove import ChannelReport, remove_channels
from secateur.pruning.criteria.criteria import Criterion
from secateur.pruning.criteria.probe import Inputs
from secateur.pruning.methods.one_shot import prune
from secateur.pruning.methods.plan import check_density, check_n
from secateur.pruning.units.report import PruneReport


def prune_multiscale(
    model: nn.Module,
    example: Inputs,
    *,
    channels: float,
    density: float,
    n: int = 8,
    criterion: Criterion | None = None,
    skip: Iterable[str] = (),
    channel_overrides: Mapping[str, float] | None = None,
    overrides: Mapping[str, float] | None = None,
    reorder: bool = False,
    recover: Callable[[nn.Module], None] | None = None,
    seed: int = 0,
) -> tuple[ChannelReport, PruneReport]:
    """Remove channels down to ``channels`` of them, then mask N:1 blocks down to ``density``.

    Parameters
    ----------
    model : without masks; in place
    example : inputs, batch included
    channels, channel_overrides : densities of `remove_channels`, which rounds to multiples of n
    density, overrides : of blocks, of the model that is left, as for `prune`
    n : output channels of a block
    criterion, skip : of both
    reorder : choose the blocks for the order that `permute` finds
    recover : called with the model after the channels are removed, to train it
    seed : of `permute`

    Raises
    ------
    SecateurError : as `remove_channels` and `prune`
    """
    check_n(n)
    check_density("density", density)
    skipped = list(skip) if not isinstance(skip, str) else skip
    widths = remove_channels(
        model, example, density=channels, criterion=criterion, round_to=n, skip=skipped,
        overrides=channel_overrides,
    )  # fmt: skip
    if recover is not None:
        recover(model)
    granularity = None
    if reorder:
        granularity = permute(
            model, example, density=density, n=n, criterion=criterion, skip=skipped,
            overrides=overrides, seed=seed,
        ).granularity  # fmt: skip
    blocks = prune(
        model, density=density, n=n, criterion=criterion, skip=skipped, overrides=overrides,
        granularity=granularity,
    )  # fmt: skip
    return widths, blocks
