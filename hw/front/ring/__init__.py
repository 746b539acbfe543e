"""The ring in place of the weight memory: its loader, and the walk through it."""
