"""When and how much is pruned: one shot, gradual, iterative, regularised."""
