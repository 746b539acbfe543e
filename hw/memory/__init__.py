"""Memories of every family behind one port list, and the FIFO on top of them."""
