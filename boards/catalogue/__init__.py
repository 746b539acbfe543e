"""The boards: pins, clocks, parts."""
