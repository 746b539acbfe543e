"""Tensors of which the first dimension counts more than samples."""
