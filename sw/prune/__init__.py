"""Pruning of whole N:1 blocks, the unit that the array skips."""

from secateur.prune.mask import BlockMask, remove
from secateur.prune.pruner import density_of, prune
from secateur.prune.report import LayerDensity, PruneReport
from secateur.prune.schedule import GradualPruner, cubic_density

__all__ = [
    "BlockMask",
    "GradualPruner",
    "LayerDensity",
    "PruneReport",
    "cubic_density",
    "density_of",
    "prune",
    "remove",
]
