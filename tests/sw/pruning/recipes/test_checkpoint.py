"""Checkpoints on disk: what is damaged is noticed, what belongs to others stays."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from secateur.errors import SecateurError
from secateur.pruning.recipes import checkpoint

TENSORS = {"a": torch.arange(6.0).reshape(2, 3)}
DATA = {"loss": 0.1, "lists": [1, {"b": None}], "text": "\u00e9\ud800"}


def test_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "float.json"
    for data in (DATA, {"loss": math.inf, 3: "three"}, {}):
        checkpoint.write(path, TENSORS, data)
        tensors, found = checkpoint.read(path)
        assert torch.equal(tensors["a"], TENSORS["a"])
        assert found == json.loads(json.dumps(data))
    assert len(list(tmp_path.iterdir())) == 2


def test_only_its_own_older_tensors_go(tmp_path: Path) -> None:
    others = ["float-mine.safetensors", "float-0123.safetensors", "floats-0123456789abcdef.x"]
    for name in others:
        (tmp_path / name).touch()
    for value in (1.0, 2.0):
        checkpoint.write(tmp_path / "float.json", {"a": torch.tensor([value])}, {})
    assert all((tmp_path / name).exists() for name in others)
    assert len(list(tmp_path.iterdir())) == len(others) + 2


def test_other_data_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "float.json"
    checkpoint.write(path, TENSORS, DATA)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(SecateurError, match=r"float\.json: damaged; delete .* and start again"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["../float", "/etc/passwd", 3, None, "\0", ""])
def test_tensors_are_beside_it(name: object, tmp_path: Path) -> None:
    path = tmp_path / "run" / "float.json"
    path.parent.mkdir()
    checkpoint.write(path, TENSORS, DATA)
    head = json.loads(path.read_text()) | {"tensors": name}
    path.write_text(json.dumps(head))
    with pytest.raises(SecateurError, match=r"damaged|not a checkpoint|cannot be read"):
        checkpoint.read(path)
