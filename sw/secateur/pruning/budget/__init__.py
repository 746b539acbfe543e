"""Which density each layer gets for a budget of cycles."""
