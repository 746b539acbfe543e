"""Layers in strips of rows or columns, for networks whose maps do not fit the banks."""
