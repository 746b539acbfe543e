"""Pruning: of whole N:1 blocks, the unit that the array skips, and of all other units."""

from secateur.pruning.budget.budget import Allocation, allocate_budget
from secateur.pruning.budget.pruner import Pruner
from secateur.pruning.channels.identity import replace_by_identity
from secateur.pruning.channels.multiscale import prune_multiscale
from secateur.pruning.channels.permute import Permutation, SaliencyKept, permute
from secateur.pruning.channels.remove import ChannelReport, LayerWidth, remove_channels
from secateur.pruning.channels.reorder import reorder
from secateur.pruning.criteria.criteria import (
    Activation,
    BatchNormScale,
    Criterion,
    Magnitude,
    Random,
    criterion_of,
)
from secateur.pruning.criteria.distributions import Histogram, distributions, plot
from secateur.pruning.criteria.loss_criteria import Fisher, Gradient, Hessian, Taylor
from secateur.pruning.criteria.removal import Reconstruction
from secateur.pruning.methods.gradual import GradualPruner, cubic_density
from secateur.pruning.methods.one_shot import density_of, prune
from secateur.pruning.methods.refit import reconstruct
from secateur.pruning.methods.regularise import GroupLasso, distil, distillation_loss
from secateur.pruning.methods.rewind import IterativePruner, geometric_density
from secateur.pruning.units.granularity import (
    Block,
    Element,
    Filter,
    Granularity,
    InputChannel,
    Kernel,
    NOfM,
    granularity_of,
)
from secateur.pruning.units.mask import BlockMask, remove
from secateur.pruning.units.report import LayerDensity, PruneReport

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
    "Pruner",
    "Random",
    "Reconstruction",
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
    "reconstruct",
    "remove",
    "remove_channels",
    "reorder",
    "replace_by_identity",
]
