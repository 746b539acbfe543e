"""Real networks: the four of MLPerf Tiny, and one for traffic signs. `data` has their data."""

from secateur.models.gtsrb import GtsrbNet
from secateur.models.mlperf_tiny import DSCNN, Autoencoder, MobileNetV1, ResNet8

__all__ = ["DSCNN", "Autoencoder", "GtsrbNet", "MobileNetV1", "ResNet8"]
