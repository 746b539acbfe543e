"""The version of the package, which CHANGELOG.md names too."""

__version__ = "0.1.0"
