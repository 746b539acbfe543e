"""The engine as a peripheral: registers, buses, streams."""
