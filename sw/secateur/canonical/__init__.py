"""Rewrites to the forms that the array knows, and the table of what is supported."""
