"""A user's model as a float graph: PyTorch, recurrent steps, torch.export archives, ONNX."""
