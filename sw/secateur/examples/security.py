"""Smart security: is there a face? R-Net of MTCNN with its pretrained weights, on 24 x 24 pixels.

The network and its weights are in the package facenet-pytorch. The images, 100 faces of Labeled
Faces in the Wild and 100 patches without a face, are in the package scikit-image.

References
----------
Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks",
IEEE Signal Processing Letters 23, 2016.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from secateur.examples.carried import carried
from secateur.pruning.recipes.data.data import Split

SIZE = 24
#: Faces, and as many others, to train.
TRAINED = 50


class RNet(nn.Module):
    """R-Net's answer to "face or not"; its boxes are omitted. Takes (N, 3, 24, 24), -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        found: Tensor = self.dense5_1(self.prelu4(self.dense4(x.flatten(1))))
        return found


def model(seed: int) -> nn.Module:
    """R-Net with its pretrained weights.

    The original flattens maps as (W, H, C): the columns of its dense layer are reordered.
    """
    path = carried("facenet_pytorch", "data/rnet.pt", "facenet-pytorch")
    weights = torch.load(path, weights_only=True)
    dense = weights["dense4.weight"].reshape(128, 3, 3, 64)
    weights["dense4.weight"] = dense.permute(0, 3, 2, 1).reshape(128, 576)
    network = RNet()
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    return network


def data(seed: int) -> Split:
    """Half of the images to train, half to test, as many faces as others in both.

    The images are grey: all three channels are equal.
    """
    path = carried("skimage", "data/lfw_subset.npy", "scikit-image")
    images = torch.from_numpy(np.load(path)[:, :SIZE, :SIZE].astype(np.float32))
    x = (images * 2 - 1)[:, None].repeat(1, 3, 1, 1)
    half = len(x) // 2
    y = (torch.arange(len(x)) < half).long()
    train = torch.arange(len(x)) % half < TRAINED
    return Split(x[train], y[train], x[~train], y[~train])
