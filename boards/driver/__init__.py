"""The host's side of the link, in Python and in C."""
