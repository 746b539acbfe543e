"""Settings of all tests."""

import logging

import torch

# Tiny tensors: threads cost more than they gain. torch.export's trace log, which pytest would
# format line by line, costs half of the time.
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False
