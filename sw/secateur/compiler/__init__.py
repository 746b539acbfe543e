"""From a network to an image: placement, lanes, windows, programs, and proofs of them."""
