"""The real networks against what is published about them, and on real samples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.models import DSCNN, Autoencoder, GtsrbNet, MobileNetV1, ResNet8, data, recipes
from secateur.models.mlperf_tiny import load_weights

DATA = os.environ.get("SECATEUR_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="SECATEUR_DATA names no folder of data sets")
FILES = {
    ResNet8: "resnet8",
    DSCNN: "kws_dscnn",
    MobileNetV1: "vww96_mobilenetv1_025",
    Autoencoder: "ad01_autoencoder",
}


def macs(model: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates of an inference."""
    counted = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        weight: Tensor = layer.weight  # type: ignore[assignment]
        counted += weight[0].numel() * output[0].numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model.eval()(x)
    return counted


@pytest.mark.parametrize(
    ("kind", "shape", "outputs", "expected"),
    [
        # Multiply-accumulates by hand, layer by layer.
        (
            ResNet8, (3, 32, 32), (10,),
            1024 * 9 * (3 * 16 + 2 * 16 * 16) + 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
            + 64 * (9 * (32 * 64 + 64 * 64) + 32 * 64) + 640,
        ),
        (DSCNN, (1, 49, 10), (12,), 125 * (40 * 64 + 4 * (9 * 64 + 64 * 64)) + 768),
        (
            MobileNetV1, (3, 96, 96), (2,),
            48**2 * (27 * 8 + 9 * 8 + 8 * 16) + 24**2 * (9 * 16 + 16 * 32 + 9 * 32 + 32 * 32)
            + 12**2 * (9 * 32 + 32 * 64 + 9 * 64 + 64 * 64)
            + 36 * (9 * 64 + 64 * 128 + 5 * (9 * 128 + 128 * 128))
            + 9 * (9 * 128 + 128 * 256 + 9 * 256 + 256 * 256) + 512,
        ),
        (Autoencoder, (640,), (640,), 2 * (640 * 128 + 3 * 128 * 128 + 128 * 8)),
        (
            GtsrbNet, (3, 32, 32), (43,),
            1024 * 9 * (3 * 16 + 16 * 16) + 256 * 9 * (16 * 32 + 32 * 32)
            + 64 * 9 * (32 * 64 + 64 * 64) + 64 * 43,
        ),
    ],
)  # fmt: skip
def test_shapes_and_work(
    kind: type[nn.Module], shape: tuple[int, ...], outputs: tuple[int, ...], expected: int
) -> None:
    model = kind()
    assert model.eval()(torch.rand(2, *shape)).shape == (2, *outputs)
    assert macs(model, torch.rand(1, *shape)) == expected


@pytest.mark.parametrize(
    ("kind", "shape", "layers"),
    [
        (ResNet8, (3, 32, 32), {"c.3": 32, "c.6": 16}),
        (DSCNN, (1, 49, 10), {"c0": (49, 10)}),
        (MobileNetV1, (3, 96, 96), {"c0": 96, "dw.1": 48, "dw.3": 24, "dw.5": 12, "dw.11": 6}),
    ],
)
def test_padding_is_tensorflows(
    kind: type[nn.Module], shape: tuple[int, ...], layers: dict[str, int | tuple[int, int]]
) -> None:
    """'same': the smaller half comes first, the larger behind, all zeros."""
    model = kind().eval()
    seen: dict[str, Tensor] = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: inputs[0]})
        )
    model(torch.rand(1, *shape) + 1)
    for name, given in layers.items():
        conv, x = model.get_submodule(name), seen[name]
        assert isinstance(conv, nn.Conv2d)
        sizes = (given, given) if isinstance(given, int) else given
        for axis in (0, 1):
            size, kernel = sizes[axis], conv.kernel_size[axis]
            total = (-(-size // 2) - 1) * 2 + kernel - size
            first = total // 2
            assert x.shape[2 + axis] == size + total
            inner = x.narrow(2 + axis, first, size)
            assert x.count_nonzero() == inner.count_nonzero()
            assert conv.padding == (0, 0)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(DSCNN(16).state_dict(), file)
    with pytest.raises(SecateurError, match=r"weights\.safetensors: not the weights of this model"):
        load_weights(DSCNN(), file)
    with pytest.raises(SecateurError, match=r"none\.safetensors: cannot be read: No such"):
        load_weights(DSCNN(), tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:2000])
    with pytest.raises(SecateurError, match=r"cut\.safetensors: not a whole safetensors file"):
        load_weights(DSCNN(16), tmp_path / "cut.safetensors")
    load_weights(DSCNN(16), file)


def test_data_without_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    with pytest.raises(SecateurError, match="SECATEUR_DATA must name the folder"):
        data.cifar10(0)
    monkeypatch.setenv("SECATEUR_DATA", str(tmp_path))
    with pytest.raises(SecateurError, match=r"train\.npz: cannot be read"):
        data.cifar10(0)


def made_up(folder: Path) -> None:
    """Small data sets in the layout that the loaders read."""
    rng = np.random.default_rng(0)
    for name, count in (("cifar10", 2100), ("gtsrb", 200)):
        (folder / name).mkdir()
        for half in ("train", "test"):
            arrays = {
                "x": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
                "y": (np.arange(count) % 10).astype(np.uint8),
                "track": (np.arange(count) // 10).astype(np.uint16),
            }
            np.savez(folder / name / f"{half}.npz", **arrays)
    (folder / "mlperf_tiny").mkdir()
    codes = rng.integers(-128, 128, (60, 49, 10, 1), dtype=np.int8)
    y = np.arange(60) % 12
    np.savez(folder / "mlperf_tiny/kws01_1000.npz", x=codes, y=y, scale=0.5, zero_point=3)


def test_loaders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_up(tmp_path)
    monkeypatch.setenv("SECATEUR_DATA", str(tmp_path))
    raw = np.load(tmp_path / "cifar10/train.npz")["x"]
    whole = data.cifar10(0)
    assert torch.equal(whole.train_x[7, 2], torch.from_numpy(raw[7, :, :, 2]).float())
    assert data.gtsrb(0).train_x.max() <= 1
    held = data.cifar10_validation(1)
    assert len(held.test_y) == 2000
    assert len(held.train_y) == 100
    joined = torch.cat([held.train_x, held.test_x]).flatten(1).sum(1).sort().values
    assert torch.equal(joined, whole.train_x.flatten(1).sum(1).sort().values)
    # A track is held out whole: its ten images are together.
    signs = data.gtsrb_validation(0)
    track = np.load(tmp_path / "gtsrb/train.npz")
    pixels = torch.from_numpy(track["x"].astype(np.float32)).sum((1, 2, 3))
    held_out = (signs.test_x * 255).round().sum((1, 2, 3))
    owners = {int(track["track"][int((pixels == v).nonzero()[0])]) for v in held_out}
    assert len(owners) == 2
    assert len(held_out) == 20
    folds = [data.keywords(seed) for seed in range(5)]
    assert sum(len(fold.test_y) for fold in folds) == 60
    assert all(len(fold.test_y) + len(fold.train_y) == 60 for fold in folds)
    nested = data.keywords_validation(0)
    assert torch.equal(nested.test_x, folds[1].test_x)
    assert len(nested.train_y) == 60 - len(folds[0].test_y) - len(folds[1].test_y)
    codes = np.load(tmp_path / "mlperf_tiny/kws01_1000.npz")["x"].astype(np.float64)
    total = float(sum(fold.test_x.double().sum() for fold in folds))
    assert total == ((codes - 3) * 0.5).sum()


def test_augmentations_move_and_mirror() -> None:
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) + 1
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(30):
        y = data.moved_and_flipped(x, generator)
        for image, original in zip(y, x, strict=True):
            # Every pixel that is not padding is one of the original, in the same channel.
            for channel in range(3):
                found = image[channel][image[channel] > 0]
                assert torch.isin(found, original[channel]).all()
            rows = image[0][image[0] > 0]
            seen.add(bool((rows[1:] - rows[:-1])[0] < 0))
    assert seen == {True, False}


def test_blends_are_of_moved_samples() -> None:
    """Constant samples: moving changes nothing, a blend is between two of them."""
    x = torch.tensor([0.0, 10.0, 10.0, 10.0]).reshape(4, 1, 1, 1).expand(4, 1, 49, 10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        y = data.blended(x, generator)
        assert y.shape == x.shape
        assert y[0].max() <= 5
        assert y[1:].min() >= 5
        assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    ramp = torch.arange(49.0).reshape(1, 1, 49, 1).expand(1, 1, 49, 10)
    starts = {round(float(data.blended(ramp, generator)[0, 0, 10, 0])) for _ in range(200)}
    assert starts == set(range(6, 15))


@needs_data
@pytest.mark.parametrize("kind", FILES)
def test_reference_weights_load(kind: type[nn.Module]) -> None:
    load_weights(kind(), data.folder() / f"mlperf_tiny/{FILES[kind]}.safetensors")


@needs_data
def test_reference_accuracy() -> None:
    """Wrong padding, layout or scale would cost ten points and more."""
    images = data.cifar10(0)
    keywords = [data.keywords(seed) for seed in range(5)]
    x = torch.cat([fold.test_x for fold in keywords])
    y = torch.cat([fold.test_y for fold in keywords])
    for model, samples, labels, floor in (
        (recipes.resnet8(0), images.test_x, images.test_y, 0.74),
        (recipes.dscnn(0), x, y, 0.90),
    ):
        with torch.no_grad():
            right = model.eval()(samples).argmax(1) == labels
        assert right.double().mean().item() > floor
