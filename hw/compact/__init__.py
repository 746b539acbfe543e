"""The datapath of the compact engine: one multiplier per lane and channel, one requantiser."""
