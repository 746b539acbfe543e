"""Real factors of stored tensors, so that their values fill the codes of power-of-two scales."""
