"""What is said of an image: summary, energy, comparison with other engines."""
