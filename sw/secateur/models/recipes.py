"""The networks that Secateur's own recipes name, with their reference weights.

Every function takes a seed, which the caller has set already, and returns a module in float.
"""

from __future__ import annotations

from torch import nn

from secateur.models.data import folder
from secateur.models.gtsrb import GtsrbNet
from secateur.models.mlperf_tiny import DSCNN, ResNet8, load_weights


def resnet8(seed: int) -> nn.Module:
    """ResNet-8 with the reference weights."""
    model = ResNet8()
    load_weights(model, folder() / "mlperf_tiny/resnet8.safetensors")
    return model


def dscnn(seed: int) -> nn.Module:
    """DS-CNN with the reference weights."""
    model = DSCNN()
    load_weights(model, folder() / "mlperf_tiny/kws_dscnn.safetensors")
    return model


def gtsrb(seed: int) -> nn.Module:
    """The traffic sign network, with random weights."""
    return GtsrbNet()


def resnet8_narrow(seed: int) -> nn.Module:
    """A narrow ResNet-8 with random weights: dense, it takes about 75,000 cycles at 8 x 8."""
    return ResNet8((8, 24, 40))
