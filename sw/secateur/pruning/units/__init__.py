"""What is pruned as one: blocks, filters, channels, single weights; and masks of them."""
