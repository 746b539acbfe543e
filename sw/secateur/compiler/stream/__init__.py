"""Parts of the encoder: registers of layers, configuration words, tables."""
