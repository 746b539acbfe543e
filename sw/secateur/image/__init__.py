"""The image file: stream, metadata, host packing, decoder, updates, signatures."""
