"""Three uses on small hardware, each a recipe with real data: ``secateur example NAME``."""
