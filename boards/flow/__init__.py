"""From a board and a target to a bitstream: top level, PLL, placement, memory contents."""
