"""PT2E with scales that are powers of two: prepare, annotate, observe, finalize."""
