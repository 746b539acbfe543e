"""Pruning of whole N:1 blocks, the unit that the array skips."""

from secateur.pruning.mask import BlockMask, remove
from secateur.pruning.pruner import density_of, prune
from secateur.pruning.report import LayerDensity, PruneReport
from secateur.pruning.schedule import GradualPruner, cubic_density

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
