"""What a report shows of a run besides its record: answers, samples, codes of every layer."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils._pytree import tree_map

from secateur.image.image import Image
from secateur.inference import layer_codes
from secateur.pruning.criteria.probe import Inputs
from secateur.pruning.recipes.data.part import BATCH
from secateur.pruning.recipes.state import RunState

EVIDENCE = "evidence.safetensors"
#: Held-out samples whose codes are counted, and samples of other answers that are kept.
COUNTED, KEPT = 32, 24


def evidence(run: RunState) -> bytes:
    """A safetensors file of what the networks did with the held-out samples.

    ``labels``, ``dense`` and ``model``: the answers (samples,), of a classification only;
    ``changed``: numbers of some samples that the pruned network answers otherwise, and
    ``samples``, these inputs, if they are one tensor; ``codes/IMAGE/LAYER``: how often each code
    (256,), as uint8, left the layer.
    """
    test, tensors = run.data.test, dict[str, Tensor]()
    if run.task.classifies:
        tensors |= _answers(run)
    x, _ = test.picked(torch.arange(COUNTED))
    for name in ("dense", "model"):
        for layer, counts in _counts(run.image(name), x).items():
            tensors[f"codes/{name}/{layer}"] = counts
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _answers(run: RunState) -> dict[str, Tensor]:
    test = run.data.test
    found = {"labels": torch.cat([y for _, y in test.epoch(BATCH, seed=0)]).long()}
    for name in ("dense", "model"):
        outputs = run.outputs(f"{name}.int8")
        found |= {} if outputs is None else {name: outputs.argmax(dim=1)}
    (changed,) = torch.nonzero(found["dense"] != found["model"], as_tuple=True)
    some = changed[:: max(1, len(changed) // KEPT)][:KEPT]  # data may be sorted by class
    found["changed"] = some
    samples = test.picked(some)[0] if len(some) else torch.zeros(0)
    return found | ({"samples": samples} if isinstance(samples, Tensor) else {})


def _counts(image: Image, x: Inputs) -> dict[str, Tensor]:
    """How often each code left each layer, from the golden interpreter."""
    return {
        layer: torch.from_numpy(np.bincount(codes.ravel() & 0xFF, minlength=256))
        for layer, codes in layer_codes(image, tree_map(Tensor.numpy, x))
    }
