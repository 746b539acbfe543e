"""Exploration: many recipes, searched for the front of accuracy and cost, on many processes."""
