"""A recipe: its tables, and what their keys mean."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.disk.toml import Signed


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network.

    Attributes
    ----------
    build : import path of (seed) -> module in float
    weights : safetensors file of its state dict, relative to the recipe; None: none
    """

    build: str
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """The samples.

    Attributes
    ----------
    load : import path of (seed) -> object or mapping with ``train`` and ``test``, each a
        DataLoader, an iterable of batches with a length or a map-style data set; or with the
        tensors train_x, train_y, test_x, test_y
    augment : import path of (inputs, generator) -> inputs, in training; None: none
    """

    load: str
    augment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of the image; see `secateur.pruning.allocate_budget`.

    Attributes
    ----------
    cycles : per inference
    latency_ms : milliseconds per inference, at ``clock_mhz``; with a ring, the waits for its source
        count
    clock_mhz : clock in MHz
    rom_bytes : bytes of the image
    density : share of the blocks that are kept
    """

    cycles: int | None = None
    latency_ms: float | None = None
    clock_mhz: float | None = None
    rom_bytes: int | None = None
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of all training stages.

    Attributes
    ----------
    batch : samples per step, of tensors and data sets; loaders have their own batches
    shuffle : tensors and data sets, in every epoch; loaders have their own order
    optimizer : "adamw" or "sgd"
    weight_decay : of the optimiser
    momentum : of "sgd"
    loss : import path of (model, batch) -> scalar, the mean over the batch (inputs, targets); None:
        cross-entropy of the outputs with class numbers
    metric : import path of (model, loader) -> float; None: accuracy
    direction : "max" if a larger metric is better, else "min"
    distillation : "kl", of classes, or "mse", of any outputs; None: "kl" with the loss that is the
        default, else "mse"
    precision : "float32", or "bfloat16" by torch's autocast, in all stages but ``qat``
    """

    batch: int = 64
    shuffle: bool = True
    optimizer: str = "adamw"
    weight_decay: float = 1e-3
    momentum: float = 0.9
    loss: str | None = None
    metric: str | None = None
    direction: str = "max"
    distillation: str | None = None
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training stage. The rate rises over a tenth of it, then falls to 0 on a cosine.

    Attributes
    ----------
    epochs : 0: the stage does not train
    learning_rate : the highest
    distil : share of the loss that asks for the outputs of the dense float model, 0 to 1
    temperature : of that share with "kl", see `secateur.pruning.distillation_loss`
    lasso : strength of a group lasso on the N:1 blocks, by proximal steps; 0: none
    augment : overrides that of the data
    """

    epochs: int = 0
    learning_rate: float = 1e-3
    distil: float = 0.0
    temperature: float = 4.0
    lasso: float = 0.0
    augment: str | None = None


@dataclass(frozen=True, kw_only=True)
class Channels(Phase):
    """Removes whole channels before the blocks, then trains.

    Attributes
    ----------
    density : share of the channels of every layer that stays; None, without ``fit``: all stay
    fit : find the largest density that meets the budget
    criterion : as for `Prune`
    skip : layers that keep their channels
    """

    density: float | None = None
    fit: bool = False
    criterion: str = "l2"
    skip: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        """Whether any channels are removed."""
        return self.fit or self.density is not None


@dataclass(frozen=True, kw_only=True)
class Prune(Phase):
    """Prunes blocks to the budget, and trains.

    Attributes
    ----------
    method : "budget": the blocks with the most saliency per cycle saved stay; or a baseline at the
        same budget: "uniform", one density of blocks for all layers; "element", one density of
        single weights by magnitude; "none", all blocks stay
    schedule : "gradual": ``steps`` prunings, spread evenly over the first half of the epochs, with
        budgets that fall on a cubic; "one-shot": one, before them; "rewind": ``steps`` prunings,
        and after each the weights that ``train`` had after epoch ``rewind_to``, and an equal share
        of the epochs with a learning rate from its beginning
    steps : prunings
    rewind_to : epoch of ``train``
    criterion : a name as in `secateur.pruning.criterion_of`
    normalize : "share", "lamp" or "none", see `secateur.pruning.allocate_budget`
    samples : training samples that the criterion and the reconstruction see
    reconstruct : after the last cut, fit the weights that stay to the outputs of the network as it
        was before the first, see `secateur.pruning.reconstruct`
    copies : of each sample, by the augmentation, that the criterion "reconstruction" and the
        reconstruction see as well
    reorder : first move filters of similar saliency into common blocks, see
        `secateur.pruning.permute`
    skip : layers that are left alone
    """

    method: str = "budget"
    schedule: str = "gradual"
    steps: int = 8
    rewind_to: int = 1
    criterion: str = "l2"
    normalize: str = "share"
    samples: int = 256
    reconstruct: bool = False
    copies: int = 0
    reorder: bool = False
    skip: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Qat(Phase):
    """Quantisation-aware training.

    Attributes
    ----------
    scale_rate : learning rate of the scales' logarithms (TQT); 0: scales are chosen, not trained
    """

    scale_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quantize:
    """Calibration.

    Attributes
    ----------
    samples : training samples to calibrate with
    """

    samples: int = 256


@dataclass(frozen=True, kw_only=True)
class Verify:
    """What is measured and checked at the end.

    Attributes
    ----------
    max_drop : how much may be lost, int8 against dense int8: points of accuracy, or what another
        metric may get worse, in its own units; None: any
    sensitivity : densities to scan each layer at, on training samples
    fgsm, pgd : epsilons of these attacks, in the model's units
    pgd_steps : steps of PGD
    corruptions : severities 1 to 5, of images
    low, high : range of the inputs; None: that of the data
    samples : at most so many for these scans
    """

    max_drop: float | None = None
    sensitivity: list[float] = field(default_factory=list)
    fgsm: list[float] = field(default_factory=list)
    pgd: list[float] = field(default_factory=list)
    pgd_steps: int = 10
    corruptions: list[int] = field(default_factory=list)
    low: Signed | None = None
    high: Signed | None = None
    samples: int = 500


#: The tables of stages that train.
PHASES = ("train", "channels", "prune", "recover", "qat")
#: Tables and keys that the stages before the first cut read.
DENSE_KEYS = {
    "model", "data", "target", "seed", "device", "training", "train", "qat", "quantize",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe: its tables as in the file.

    Attributes
    ----------
    target : name of a preset, or TOML file
    seed : of everything random
    device : "auto", "cpu", "cuda" or "mps", for all that runs in float
    folder : of the file; paths in the recipe are relative to it
    """

    model: Model
    data: Data
    target: str
    budget: Budget
    seed: int = 0
    device: str = "auto"
    training: Training = Training()
    train: Phase = Phase()
    channels: Channels = Channels()
    prune: Prune = Prune()
    recover: Phase = Phase()
    qat: Qat = Qat()
    quantize: Quantize = Quantize()
    verify: Verify = Verify()
    folder: Path = Path()

    @property
    def content(self) -> dict[str, Any]:
        """Everything but the folder, as JSON has it."""
        values = dataclasses.asdict(self)
        values.pop("folder")
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of all that the image depends on: the content but for ``verify``."""
        return self._digest(self.content.keys() - {"verify"})

    @property
    def dense_digest(self) -> str:
        """SHA-256 of all that the trained dense network, its image and early weights depend on."""
        early = self.prune.rewind_to if self.prune.schedule == "rewind" else None
        return self._digest(self.content.keys() & DENSE_KEYS, early)

    def _digest(self, keys: Set[str], early: int | None = None) -> str:
        content = {key: value for key, value in self.content.items() if key in keys}
        content |= {} if early is None else {"early": early}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
