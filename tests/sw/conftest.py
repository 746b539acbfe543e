"""Makes ``networks`` (tests/) and ``naive_layers`` (here) importable by the tests."""

import logging
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# Tiny tensors: threads cost more than they gain. torch.export's trace log, which pytest would
# format line by line, costs half of the time.
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False
