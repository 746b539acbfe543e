"""The version, which the changelog and the package both name."""

__version__ = "0.1.0"
