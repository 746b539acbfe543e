"""Layers in strips of rows, for networks whose maps do not fit the banks."""
