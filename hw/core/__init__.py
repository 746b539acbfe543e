"""The array: banks, lanes, drain, tables."""
