"""Samples of a recipe, in whatever form they come, as batches that can be gone through again."""
