"""What a report shows of a run besides its record: answers, samples, codes of every layer."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from secateur.image.image import Image
from secateur.inference import layer_codes
from secateur.pruning.recipes.state import RunState

EVIDENCE = "evidence.safetensors"
#: Held-out samples whose codes are counted, and samples of other answers that are kept.
COUNTED, KEPT = 32, 24


def evidence(run: RunState) -> bytes:
    """A safetensors file of what the networks did with the held-out samples.

    ``labels``, ``dense`` and ``model``: the answers (samples,), of a classification only;
    ``changed``: numbers of some samples that the pruned network answers otherwise, and
    ``samples``, these inputs; ``codes/IMAGE/LAYER``: how often each code (256,), as uint8, left
    the layer.
    """
    split, tensors = run.split, dict[str, Tensor]()
    answers = {name: run.outputs(f"{name}.int8") for name in ("dense", "model")}
    labels = split.test_y
    classes = all(outputs.dim() == 2 for outputs in answers.values())
    if classes and labels.dim() == 1 and not labels.is_floating_point():
        tensors["labels"] = labels.long()
        for name, outputs in answers.items():
            tensors[name] = outputs.argmax(dim=1)
        (changed,) = torch.nonzero(tensors["dense"] != tensors["model"], as_tuple=True)
        some = changed[:: max(1, len(changed) // KEPT)][:KEPT]  # data may be sorted by class
        tensors |= {"changed": some, "samples": split.test_x[some].float()}
    for name in answers:
        for layer, counts in _counts(run.image(name), split.test_x[:COUNTED]).items():
            tensors[f"codes/{name}/{layer}"] = counts
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _counts(image: Image, x: Tensor) -> dict[str, Tensor]:
    """How often each code left each layer, from the golden interpreter."""
    return {
        layer: torch.from_numpy(np.bincount(codes.ravel() & 0xFF, minlength=256))
        for layer, codes in layer_codes(image, x.numpy())
    }
