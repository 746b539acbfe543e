"""Saliency: which units matter."""
