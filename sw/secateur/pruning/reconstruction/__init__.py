"""Pruning without training: weights that stay make up for those that leave, layer by layer."""
