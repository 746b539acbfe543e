"""What all passes over torch.fx graphs share."""
