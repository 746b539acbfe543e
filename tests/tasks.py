"""Models, data, losses and metrics that test recipes name, beside classification."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests import parts


def datasets(seed: int) -> dict[str, Dataset[Any]]:
    """The samples of `parts.data`, as data sets."""
    found = parts.data(seed)
    return {
        name: TensorDataset(found[f"{name}_x"], found[f"{name}_y"]) for name in ("train", "test")
    }


def loaders(seed: int) -> dict[str, DataLoader[Any]]:
    """The same in loaders, in batches of ten, in the order of the data."""
    return {name: DataLoader(samples, 10) for name, samples in datasets(seed).items()}


def lists(seed: int) -> dict[str, list[Any]]:
    """The same in lists of batches."""
    return {name: list(loader) for name, loader in loaders(seed).items()}


class Noisy(Dataset[Any]):
    """Samples with noise from the generators of PyTorch, Python and NumPy."""

    def __init__(self, seed: int) -> None:
        found = parts.data(seed)
        self.x, self.y = found["train_x"], found["train_y"]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.rand(self.x.shape[1:])
        scale = random.uniform(0.9, 1.1) * np.random.uniform(0.9, 1.1)  # noqa: NPY002
        return self.x[at] * scale + noise, self.y[at]


def shuffled(seed: int) -> dict[str, Any]:
    """A loader that shuffles and draws, with a generator of its own."""
    generator = torch.Generator().manual_seed(99)
    train = DataLoader(Noisy(seed), 10, shuffle=True, generator=generator)
    return {"train": train, "test": loaders(seed)["test"]}


def worked(seed: int) -> dict[str, Any]:
    """The same in workers that stay."""
    train = DataLoader(
        Noisy(seed), 10, shuffle=True, num_workers=1, persistent_workers=True,
        multiprocessing_context="fork",
    )  # fmt: skip
    return {"train": train, "test": loaders(seed)["test"]}


class Restless:
    """Other batches in every pass, whatever is seeded."""

    def __init__(self, seed: int) -> None:
        self.batches, self.passes = lists(seed)["train"], 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter([(x + self.passes, y) for x, y in self.batches])


def restless(seed: int) -> dict[str, Any]:
    return {"train": Restless(seed), "test": lists(seed)["test"]}


def endless(seed: int) -> dict[str, Any]:
    return {"train": iter(lists(seed)["train"]), "test": lists(seed)["test"]}


def inputs_alone(seed: int) -> dict[str, Any]:
    return {name: [x for x, _ in batches] for name, batches in lists(seed).items()}


def bytes_in(seed: int) -> dict[str, Any]:
    return {name: [(x.byte(), y) for x, y in batches] for name, batches in lists(seed).items()}


def few_targets(seed: int) -> dict[str, Any]:
    return {name: [(x, y[1:]) for x, y in batches] for name, batches in lists(seed).items()}


def broken(seed: int) -> dict[str, Any]:
    def collate(samples: Any) -> Any:
        raise KeyError("image")

    train = DataLoader(datasets(seed)["train"], 10, collate_fn=collate)
    return {"train": train, "test": lists(seed)["test"]}


def listed(seed: int) -> dict[str, Any]:
    """Targets of several sizes, in a list with one for each sample."""
    return {
        name: [(x, [{"class": v, "extent": torch.ones(int(v) + 1)} for v in y]) for x, y in batches]
        for name, batches in lists(seed).items()
    }


def loss_of_listed(model: nn.Module, batch: Any) -> Tensor:
    x, targets = batch
    wanted = torch.stack([target["class"] for target in targets])
    extents = torch.stack([target["extent"].sum() for target in targets])
    return F.cross_entropy(model(x), wanted) + 0 * extents.mean()


def right_of_listed(model: nn.Module, loader: Iterable[Any]) -> float:
    found = [
        model(x).argmax(1) == torch.stack([target["class"] for target in targets])
        for x, targets in loader
    ]
    return float(torch.cat(found).float().mean())


# Dense targets: which pixels are bright.


def segmenter(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 2, 1),
    )  # fmt: skip


def scenes(seed: int) -> dict[str, Any]:
    """Loaders of images (1, 8, 8) and masks (8, 8) of their bright squares."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, 5, (120, 2), generator=generator)
    masks = torch.zeros(120, 8, 8, dtype=torch.int64)
    for mask, (top, left) in zip(masks, places.tolist(), strict=True):
        mask[top : top + 3, left : left + 3] = 1
    noise = 0.3 * torch.rand(120, 8, 8, generator=generator)
    x = (0.6 * masks + noise)[:, None]
    samples = TensorDataset(x, masks)
    halves = torch.utils.data.random_split(samples, [96, 24], generator)
    return {
        "train": DataLoader(halves[0], 16, shuffle=True),
        "test": DataLoader(halves[1], 16),
    }


def pixels(model: nn.Module, batch: Any) -> Tensor:
    x, masks = batch
    return F.cross_entropy(model(x), masks)


def overlap(model: nn.Module, loader: Iterable[Any]) -> float:
    """Intersection over union of the bright pixels."""
    both = either = 0
    for x, masks in loader:
        found = model(x).argmax(1)
        both += int(((found == 1) & (masks == 1)).sum())
        either += int(((found == 1) | (masks == 1)).sum())
    return both / max(either, 1)


# Anomalies: what an autoencoder does not reproduce.


def autoencoder(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.ReLU(),
        nn.Linear(16, 16),
    )  # fmt: skip


def machine(seed: int) -> dict[str, Tensor]:
    """Spectra on a plane; of those held out, the second half is off it."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.rand(2, 16, generator=generator)
    x = torch.rand(240, 2, generator=generator) @ basis / 2
    odd = torch.cat([torch.zeros(200), torch.ones(40)])
    x = x + odd[:, None] * 0.08 * torch.randn(240, 16, generator=generator)
    return {"train_x": x[:160], "train_y": x[:160], "test_x": x[160:], "test_y": odd[160:]}


def reconstruction(model: nn.Module, batch: Any) -> Tensor:
    x, _ = batch
    return F.mse_loss(model(x), x)


def area(model: nn.Module, loader: Iterable[Any]) -> float:
    """Area under the curve of the reconstruction error: the share of pairs in order."""
    errors, odd = [], []
    for x, y in loader:
        errors.append((model(x) - x).square().mean(1))
        odd.append(y)
    error, label = torch.cat(errors), torch.cat(odd) > 0
    return float((error[label][:, None] > error[~label][None]).double().mean())


# Regression with several inputs and outputs, by name.


class Fused(nn.Module):
    """An image (1, 8, 8) and a vector (4,) -> {"sum": (1,), "map": (1, 8, 8)}."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(1, 8, 3, padding=1)
        self.vector = nn.Linear(4, 8)
        self.total = nn.Linear(8, 1)
        self.map = nn.Conv2d(8, 1, 1)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        seen = torch.relu(self.image(image))
        both = torch.relu(seen.mean((2, 3)) + torch.relu(self.vector(vector)))
        return {"sum": self.total(both), "map": self.map(seen)}


def fused(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Fused()


def sensors(seed: int) -> dict[str, Any]:
    """Tensors by name; targets in a tuple."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(120, 1, 8, 8, generator=generator)
    vector = torch.rand(120, 4, generator=generator)
    total = image.mean((1, 2, 3))[:, None] + vector.sum(1, keepdim=True)
    found: dict[str, Any] = {}
    for name, part in (("train", slice(96)), ("test", slice(96, 120))):
        found[f"{name}_x"] = {"image": image[part], "vector": vector[part]}
        found[f"{name}_y"] = (total[part], 1 - image[part])
    return found


def errors(model: nn.Module, batch: Any) -> Tensor:
    x, (total, inverse) = batch
    found = model(**x)
    return F.mse_loss(found["sum"], total) + F.mse_loss(found["map"], inverse)


def worst(model: nn.Module, loader: Iterable[Any]) -> float:
    """Root of the mean square error of the sum."""
    found = [(model(**x)["sum"] - total).square() for x, (total, _) in loader]
    return float(torch.cat(found).mean().sqrt())


def words(model: nn.Module, loader: Iterable[Any]) -> str:
    return "good"


def looking_in(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model.linear(batch[0]), batch[1])


# Sequences.


class Spoken(nn.Module):
    """Sequences (steps, 4) -> logits (4,)."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(4, 8, batch_first=True)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.cells(x)
        logits: Tensor = self.linear(state[-1])
        return logits


def spoken(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Spoken()


def sequences(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(80) % 4
    x = 0.3 * torch.randn(80, 5, 4, generator=generator)
    x[torch.arange(80), 2, y] += 1.5
    return {"train_x": x[:64], "train_y": y[:64], "test_x": x[64:], "test_y": y[64:]}
