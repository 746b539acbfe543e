"""``python -m secateur``: the command line."""

from __future__ import annotations

import os
import sys

if sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]  # Python's own with -m; as for the installed command, it is not searched

from secateur.cli.main import main

if __name__ == "__main__":
    main()
