"""Facts about parts: their sites, their packages, their PLLs."""
