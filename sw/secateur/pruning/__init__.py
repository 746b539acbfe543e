"""Pruning: of whole N:1 blocks, the unit that the array skips, and of all other units."""

from secateur.pruning.budget import Allocation, allocate_budget
from secateur.pruning.channels import ChannelReport, LayerWidth, remove_channels
from secateur.pruning.criteria import (
    Activation,
    BatchNormScale,
    Criterion,
    Magnitude,
    Random,
    criterion_of,
)
from secateur.pruning.distributions import Histogram, distributions, plot
from secateur.pruning.granularity import (
    Block,
    Element,
    Filter,
    Granularity,
    InputChannel,
    Kernel,
    NOfM,
    granularity_of,
)
from secateur.pruning.identity import replace_by_identity
from secateur.pruning.loss_criteria import Fisher, Gradient, Hessian, Taylor
from secateur.pruning.mask import BlockMask, remove
from secateur.pruning.multiscale import prune_multiscale
from secateur.pruning.permute import Permutation, SaliencyKept, permute
from secateur.pruning.pruner import density_of, prune
from secateur.pruning.regularise import GroupLasso, distil, distillation_loss
from secateur.pruning.reorder import reorder
from secateur.pruning.report import LayerDensity, PruneReport
from secateur.pruning.rewind import IterativePruner, geometric_density
from secateur.pruning.schedule import GradualPruner, cubic_density

__all__ = [
    "Activation",
    "Allocation",
    "BatchNormScale",
    "Block",
    "BlockMask",
    "ChannelReport",
    "Criterion",
    "Element",
    "Filter",
    "Fisher",
    "Gradient",
    "GradualPruner",
    "Granularity",
    "GroupLasso",
    "Hessian",
    "Histogram",
    "InputChannel",
    "IterativePruner",
    "Kernel",
    "LayerDensity",
    "LayerWidth",
    "Magnitude",
    "NOfM",
    "Permutation",
    "PruneReport",
    "Random",
    "SaliencyKept",
    "Taylor",
    "allocate_budget",
    "criterion_of",
    "cubic_density",
    "density_of",
    "distil",
    "distillation_loss",
    "distributions",
    "geometric_density",
    "granularity_of",
    "permute",
    "plot",
    "prune",
    "prune_multiscale",
    "remove",
    "remove_channels",
    "reorder",
    "replace_by_identity",
]
