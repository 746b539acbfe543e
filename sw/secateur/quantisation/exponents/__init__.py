"""Exponents chosen by the error behind the layers that read a tensor."""
