"""What the tools give for every board: clocks, cells, sizes."""
