"""Reports on an image: summary, energy, comparison with other engines."""
