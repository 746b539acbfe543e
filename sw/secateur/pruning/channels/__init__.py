"""Whole channels: removal, coupling, permutation, identity."""
