"""Makes ``networks`` (tests/) and ``naive_layers`` (here) importable by the tests."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
