"""Data sets of the real networks, from files that the user downloads.

The folder is the environment variable SECATEUR_DATA. It holds ``cifar10/`` and ``gtsrb/`` with
``train.npz`` and ``test.npz`` each (x uint8 (count, 32, 32, 3), y; GTSRB's training set also
``track``), ``mlperf_tiny/kws01_1000.npz`` (x int8 (1000, 49, 10, 1), y, scale, zero_point), and
the weights of the reference networks, ``mlperf_tiny/*.safetensors``.

Every loader takes a seed and returns a `Split`. Those with ``_validation`` in their names hold out
a part of the training set instead of the test set: use them to choose settings.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from secateur.disk.npz import load_npz
from secateur.errors import SecateurError
from secateur.pruning.recipes.data.data import Split

FOLDS = 5


def folder() -> Path:
    """The folder that SECATEUR_DATA names.

    Raises
    ------
    SecateurError : it is not set, or not a folder
    """
    name = os.environ.get("SECATEUR_DATA", "")
    if not name or not Path(name).is_dir():
        raise SecateurError(
            f"SECATEUR_DATA must name the folder of the data sets (see "
            f"help('secateur.models.data')); it is {name!r}"
        )
    return Path(name)


def read(name: str) -> dict[str, np.ndarray]:
    """The arrays of one file below the data folder.

    Raises
    ------
    SecateurError : no such file, or it is damaged
    """
    try:
        return load_npz(folder() / name)
    except SecateurError as error:
        raise SecateurError(f"{error}; see help('secateur.models.data')") from None


def cifar10(seed: int) -> Split:
    """CIFAR-10, images (count, 3, 32, 32) float32, 0 to 255."""
    return _images("cifar10", 1.0)


def cifar10_validation(seed: int) -> Split:
    """2,000 images of CIFAR-10's training set, drawn from ``seed``, held out of the rest."""
    whole = cifar10(seed)
    order = torch.randperm(len(whole.train_y), generator=torch.Generator().manual_seed(seed))
    return _divided(whole, order[:2000], order[2000:])


def gtsrb(seed: int) -> Split:
    """GTSRB, images (count, 3, 32, 32) float32, 0 to 1."""
    return _images("gtsrb", 1 / 255)


def gtsrb_validation(seed: int) -> Split:
    """One track in ten of GTSRB's training set, drawn from ``seed``, held out of the rest.

    The images of a track show one sign from decreasing distances: they must not be on both sides.
    """
    whole = gtsrb(seed)
    track = torch.from_numpy(read("gtsrb/train.npz")["track"].astype(np.int64))
    names = track.unique()
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    held = torch.isin(track, names[order[: len(names) // 10]])
    return _divided(whole, held.nonzero()[:, 0], (~held).nonzero()[:, 0])


def keywords(seed: int) -> Split:
    """Fold ``seed`` of five of the 1,000 keywords, MFCC (count, 1, 49, 10) float32.

    Every class is spread evenly over the folds; the folds themselves do not depend on a seed.
    """
    x, y, fold = _keywords()
    held = fold == seed % FOLDS
    return Split(x[~held], y[~held], x[held], y[held])


def keywords_validation(seed: int) -> Split:
    """As `keywords`, but the fold is left out, and the one after it held out of the rest."""
    x, y, fold = _keywords()
    held = fold == (seed + 1) % FOLDS
    rest = ~held & (fold != seed % FOLDS)
    return Split(x[rest], y[rest], x[held], y[held])


def _keywords() -> tuple[Tensor, Tensor, Tensor]:
    """Samples, labels, and the fold that each belongs to."""
    found = read("mlperf_tiny/kws01_1000.npz")
    codes = found["x"].astype(np.float32) - np.float32(found["zero_point"])
    x = torch.from_numpy(codes * np.float32(found["scale"])).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(found["y"].astype(np.int64))
    generator = torch.Generator().manual_seed(0)
    fold = torch.empty(len(y), dtype=torch.int64)
    for label in y.unique():
        places = (y == label).nonzero()[:, 0]
        shuffled = places[torch.randperm(len(places), generator=generator)]
        fold[shuffled] = torch.arange(len(places)) % FOLDS
    return x, y, fold


def _images(name: str, scale: float) -> Split:
    parts = []
    for half in ("train", "test"):
        found = read(f"{name}/{half}.npz")
        x = torch.from_numpy(found["x"]).permute(0, 3, 1, 2).contiguous().float() * scale
        parts += [x, torch.from_numpy(found["y"].astype(np.int64))]
    return Split(*parts)


def _divided(whole: Split, held: Tensor, rest: Tensor) -> Split:
    x, y = whole.train_x, whole.train_y
    return Split(x[rest], y[rest], x[held], y[held])


def moved(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation: each image (batch, C, H, W) shifted by up to four pixels each way."""
    count, _, height, width = batch.shape
    padded = F.pad(batch, (4, 4, 4, 4))
    dy, dx = torch.randint(0, 9, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(height))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(width))[:, None, None, :]
    samples = torch.arange(count)[:, None, None, None]
    channels = torch.arange(batch.shape[1])[None, :, None, None]
    return padded[samples, channels, rows, columns]


def moved_and_flipped(batch: Tensor, generator: torch.Generator) -> Tensor:
    """`moved`, and every other image mirrored left to right."""
    shifted = moved(batch, generator)
    flip = torch.rand(len(batch), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], shifted.flip(3), shifted)


def mirrored(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation: each image (batch, C, H, W) mirrored left to right."""
    return batch.flip(3)


def blended(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation for distillation: MFCC (batch, 1, frames, C), moved in time and blended.

    Each is moved by up to four frames, and blended with another of the batch, up to half and half.

    Labels do not fit a blend: use it where the dense model answers instead (``distil = 1``).

    References
    ----------
    Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022.
    """
    count, _, frames, _ = batch.shape
    padded = F.pad(batch, (0, 0, 4, 4), mode="replicate")
    start = torch.randint(0, 9, (count,), generator=generator)
    rows = start[:, None] + torch.arange(frames)
    moved_ = padded[torch.arange(count)[:, None], 0, rows][:, None]
    other = moved_[torch.randperm(count, generator=generator)]
    share = torch.rand(count, 1, 1, 1, generator=generator) / 2
    return moved_ * (1 - share) + other * share
