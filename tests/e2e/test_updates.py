"""Patches and signatures as a user meets them on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateur import api
from secateur.target import Target

# the array of tests/sim/test_engine.py, whose simulator is built once
TOML = "n = 4\np = 3\nweight_words = 1024\nbank_words = 128\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of a network before and after a little training, and an input."""
    where = tmp_path_factory.mktemp("updates")
    (where / "t.toml").write_text(TOML)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    x = torch.randn(8, 3, 8, 8)
    np.savez(where / "x.npz", x=x.numpy())
    for name in ("old", "new"):
        image = api.compile(model, target=Target.load(str(where / "t.toml")), calibration=x)
        image.save(where / f"{name}.sec")
        for weight in model.parameters():
            weight.data += 0.004 * torch.randn_like(weight)
    return where


def test_an_update_from_signature_to_inference(secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur("delta old.sec new.sec -o up.secd --json")
    assert status == 0, err
    sizes = json.loads(out)
    assert sizes["patch_bytes"] == (folder / "up.secd").stat().st_size
    assert sizes["image_bytes"] == (folder / "new.sec").stat().st_size
    assert sizes["patch_bytes"] < 0.5 * sizes["image_bytes_compressed"]
    assert secateur("keygen -o k.pem")[0] == 0
    assert secateur("sign new.sec --key k.pem")[0] == 0
    line = "patch old.sec up.secd -o got.sec --key k.pem.pub --signature new.sec.sig --json"
    status, out, err = secateur(line)
    assert status == 0, err
    assert (folder / "got.sec").read_bytes() == (folder / "new.sec").read_bytes()
    (folder / "got.sec.sig").write_bytes((folder / "new.sec.sig").read_bytes())
    assert json.loads(secateur("verify got.sec --key k.pem.pub --json")[1])["verified"]
    for line in ("run got.sec --input x.npz", "simulate got.sec --input x.npz"):
        status, out, err = secateur(f"{line} --key k.pem.pub --json")
        assert status == 0, err
    for line in ("delta old.sec new.sec -o up.secd", "verify got.sec --key k.pem.pub"):
        assert secateur(line)[0] == 0
    assert secateur("patch old.sec up.secd -o got.sec")[0] == 0


BAD = [
    ("run old.sec --input x.npz --key k.pem.pub", "old.sec", "unsigned"),
    ("simulate old.sec --input x.npz --key k.pem.pub", "old.sec", "unsigned"),
    ("verify old.sec --key k.pem.pub", "old.sec", "unsigned"),
    ("run changed.sec --input x.npz --key k.pem.pub", "changed.sec", "altered"),
    ("run new.sec --input x.npz --key none.pem", "none.pem", "No such file"),
    ("run new.sec --input x.npz --key x.npz", "x.npz", "not an Ed25519 key"),
    ("sign new.sec --key k.pem.pub", "k.pem.pub", "private"),
    ("keygen -o k.pem", "k.pem", "File exists"),
    ("delta old.sec x.npz -o o.secd", "x.npz", "not a Secateur image"),
    ("delta none.sec new.sec -o o.secd", "none.sec", "No such file"),
    ("patch new.sec up.secd -o o.sec", "new.sec", "not the file that up.secd was made for"),
    ("patch old.sec cut.secd -o o.sec", "cut.secd", "CRC-32"),
    ("patch old.sec up.secd -o o.sec --key k.pem.pub", "o.sec", "unsigned"),
]


@pytest.mark.parametrize(("line", "names", "says"), BAD)
def test_bad_input_is_one_line(  # type: ignore[no-untyped-def]
    line: str, names: str, says: str, secateur, folder: Path
) -> None:
    if not (folder / "cut.secd").exists():
        for made in ("keygen -o k.pem", "sign new.sec --key k.pem"):
            secateur(made)
        assert secateur("delta old.sec new.sec -o up.secd")[0] == 0
        (folder / "cut.secd").write_bytes((folder / "up.secd").read_bytes()[:-1])
        # sound by its own CRC-32s, but not what was signed
        (folder / "changed.sec").write_bytes((folder / "old.sec").read_bytes())
        (folder / "changed.sec.sig").write_bytes((folder / "new.sec.sig").read_bytes())
    before = set(folder.iterdir())
    status, out, err = secateur(line)
    assert (status, out) == (1, "")
    assert err.startswith("secateur: ")
    assert err.count("\n") == 1
    assert names in err
    assert says in err
    assert set(folder.iterdir()) == before
