"""What the compact engine has in place of the array of lanes: one multiplier a lane."""
