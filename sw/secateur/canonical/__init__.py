"""Rewrites to the forms that the array has, and the table of supported operators."""
