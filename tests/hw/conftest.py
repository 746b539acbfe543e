"""Makes ``programs`` (tests/) and ``harness`` (here) importable by the tests."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
