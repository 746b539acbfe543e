"""Recipes: stages, training, checkpoints, studies."""
