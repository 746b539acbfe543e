"""The four reference networks on real inputs: ``python -m docs.tables.mlperf_tiny``; it needs
SECATEUR_DATA (networks.md).

For each, dense and with a quarter of its blocks by magnitude (no training: the trained ones are in
networks.md): accuracy in int8, bytes, cycles, utilisation, the smallest preset that holds it;
and PyTorch = golden = Verilator on every layer of ten real inputs, on 8 x 8.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from docs.tables.networks import PIXELS
from secateur import api
from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.lowering.lower import lower
from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.models.data import cifar10, folder, keywords, read
from secateur.models.mlperf_tiny import load_weights
from secateur.pruning import prune
from secateur.pruning.recipes.data.data import Data
from secateur.quantisation.prepare import quantize
from secateur.report.summary import summary
from secateur.target import ECP5, PRESETS, Target
from tests.support.networks import skipped
from tests.support.pipeline import Built, check_image, compile_for

SAMPLES = "mlperf_tiny/mlperf_tiny_real_samples.npz"
SHOWN = 10
#: Beside the presets: 8 x 8 on the largest part, one pixel lane with deep banks on the smallest.
OTHERS = {"8x8 on LFE5U-85F": (8, 35840, 2048), "8x1, deep banks": (1, 5120, 8192)}
Inputs = tuple[Tensor, Tensor, Tensor | None]  # to calibrate, to run, and their labels


def images() -> Inputs:
    split = cifar10(0)
    x, _ = Data.of(split, "CIFAR-10").train.some(256, 0)
    return x, split.test_x, split.test_y


def words() -> Inputs:
    """All 1,000: the accuracy set of MLPerf Tiny; calibrated on a fifth of it, without labels."""
    split = keywords(0)
    x, y = torch.cat([split.test_x, split.train_x]), torch.cat([split.test_y, split.train_y])
    return split.test_x, x, y


def persons() -> Inputs:
    """Four images with labels, and photographs of CIFAR-10 for want of more."""
    found = read(SAMPLES)
    x = (torch.from_numpy(found["vww_x"]).permute(0, 3, 1, 2).float() + 128) / 255
    others = F.interpolate(cifar10(0).test_x[:60] / 255, (96, 96), mode="bilinear")
    return torch.cat([x, others]), torch.cat([x, others[: SHOWN - len(x)]]), None


def machines() -> Inputs:
    """Five neighbouring frames of a spectrogram each."""
    found = read(SAMPLES)
    codes = torch.from_numpy(found["ad_x"]).float() - float(found["ad_zero_point"])
    frames = codes * float(found["ad_scale"])
    windows = frames.unfold(1, 5, 1).permute(0, 1, 3, 2).flatten(2).flatten(0, 1)
    return windows[::5], windows[::97], None


NETWORKS: dict[str, tuple[type[nn.Module], str, Callable[[], Inputs]]] = {
    "ResNet-8": (ResNet8, "resnet8", images),
    "DS-CNN": (DSCNN, "kws_dscnn", words),
    "MobileNetV1": (MobileNetV1, "vww96_mobilenetv1_025", persons),
    "Autoencoder": (Autoencoder, "ad01_autoencoder", machines),
}


def figures(name: str, density: float, simulate: bool) -> dict[str, Any]:
    """What one network does on the array."""
    kind, weights, load = NETWORKS[name]
    calibration, x, y = load()
    model = kind()
    load_weights(model, folder() / f"mlperf_tiny/{weights}.safetensors")
    if density < 1:
        prune(model, density=density, n=8, skip=skipped(model))
    graph = quantize(model.eval(), calibration)
    built = Built(graph, lower(graph), x[:SHOWN])
    image = compile_for(built, PIXELS)
    found = summary(image)
    began = time.monotonic()
    outputs = torch.from_numpy(api.run(image, x.numpy()).values)
    seconds = time.monotonic() - began
    row = {
        "cycles": found["cycles"],
        "utilisation": found["bound_cycles"] / found["cycles"],
        "bytes": found["stream_bits"] // 8,
        "layers": {layer["name"]: layer["cycles"] for layer in found["layers"]},
        # Without training, a pruned network's answers mean nothing.
        "accuracy": float((outputs.argmax(1) == y).double().mean())
        if y is not None and density == 1
        else None,
        "inputs": len(x),
        "golden_seconds": round(seconds, 1),
        "codes_compared": check_image(built, image, PIXELS.geometry),
        "presets": _presets(built),
    }
    if simulate:
        result = api.simulate(image, built.x.numpy())
        row |= {"mismatches": len(result.mismatches), "layers_compared": result.layers_compared}
    return row


def _presets(built: Built) -> dict[str, int]:
    """Cycles on every array that holds the network."""
    cycles = {}
    for name, target in (PRESETS | _others()).items():
        if target.geometry.ring:
            continue
        try:
            cycles[name] = summary(compile_for(built, target))["cycles"]
        except SecateurError:
            continue  # it does not fit
    return cycles


def _others() -> dict[str, Target]:
    targets = {}
    for (name, (p, words, banks)), device in zip(
        OTHERS.items(), ("LFE5U-85F", "LFE5U-25F"), strict=True
    ):
        # 512 words of a bank take two block RAMs, 1,024 of the weights four, the tables four.
        assert p * 2 * banks // 512 + words // 256 + 4 <= ECP5[device][0]
        geometry = Geometry(n=8, p=p, weight_words=words, bank_words=banks)
        targets[name] = Target(name=name, geometry=geometry, device=device)
    return targets


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-verilator", action="store_true")
    simulate = not parser.parse_args().no_verilator
    logging.disable(logging.WARNING)
    np.seterr(all="raise")
    table = {
        name: {
            label: figures(name, density, simulate)
            for label, density in (("dense", 1.0), ("quarter", 0.25))
        }
        for name in NETWORKS
    }
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
