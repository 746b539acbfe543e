"""torch.export archives, read without running anything that is in them."""
