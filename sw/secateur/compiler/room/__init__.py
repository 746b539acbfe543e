"""Whether a network has room on a target, and what would have room."""
