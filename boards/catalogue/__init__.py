"""The boards: pins, clocks, dice."""
