"""``python -m secateur.boards.measure``."""

from secateur.boards.measure.measure import main

main()
