"""Wheel and sdist of a clone, and the package as others see it: installed, imported, followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import secateur
from tests.test_repository import FOLDERS, PACKAGE, ROOT, tracked

DATA = (
    "py.typed",
    "boards/driver/c/secateur.c",
    "boards/driver/c/secateur.h",
    "boards/driver/c/secateur_registers.h",
    "boards/soc/secateur_litex.c",
    "boards/soc/secateur_litex.h",
    "report/page/page.css",
    "report/page/page.html",
    "report/page/page.js",
)
#: One module of every folder of the top level, and some of all floors.
IMPORTS = (
    "secateur",
    "secateur.api",
    "secateur.pruning",
    "secateur.hw.engine",
    "secateur.sim.golden",
    "secateur.boards.catalogue.catalogue",
    "secateur.boards.flow.build",
    "secateur.boards.driver.device",
    "secateur.cli.main",
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; its log is the message where it fails."""
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=plain | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules() -> set[str]:
    """Files of the package, relative to it, as a clone has them."""
    own = {path.relative_to(PACKAGE).as_posix() for path in tracked("sw/secateur/**.py")}
    linked = {path.relative_to(ROOT).as_posix() for path in tracked("hw", "sim", "boards")}
    return own | {name for name in linked if name.endswith(".py")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a commit of everything would hold, in a folder called ``secateur``."""
    root = tmp_path_factory.mktemp("packaging") / "secateur"
    for path in tracked():
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name in FOLDERS:
        (root / "sw" / "secateur" / name).symlink_to(Path("..", "..", name))
    return root


@pytest.fixture(scope="module")
def built(clone: Path) -> tuple[Path, Path]:
    """Wheel, made from the sdist, and sdist."""
    place = clone.parent / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "-o", place, clone, cwd=clone.parent)
    (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_all_of_the_package(built: tuple[Path, Path]) -> None:
    names = {name for name in zipfile.ZipFile(built[0]).namelist() if ".dist-info/" not in name}
    recipes = {path.relative_to(PACKAGE).as_posix() for path in tracked("sw/secateur/**.toml")}
    assert recipes
    assert names == {f"secateur/{name}" for name in modules() | recipes | set(DATA)}


def test_the_sdist_has_all_of_the_package_and_its_licence(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {f"sw/secateur/{name}" for name in modules() | set(DATA)} <= files
    assert {"LICENSE", "README.md", "pyproject.toml"} <= files


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], clone: Path) -> Path:
    """An environment with the wheel, and everything else but the clone from this environment."""
    place = clone.parent / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
        "--target", site, built[0], cwd=place,
    )  # fmt: skip
    # Where path files of that folder count for nothing, this checkout's among them.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def test_the_wheel_works_from_any_folder(installed: Path, clone: Path) -> None:
    """Also from the one that holds a clone called ``secateur``."""
    python = installed / "bin" / "python"
    code = f"import {', '.join(IMPORTS)}; print(secateur.__version__, secateur.__file__)"
    for folder in (installed, clone.parent):
        version, place = run(python, "-c", code, cwd=folder).split()
        assert version == secateur.__version__
        assert Path(place).is_relative_to(installed)


def test_the_wheels_command_writes_verilog_and_the_driver(installed: Path, tmp_path: Path) -> None:
    command = [installed / "bin" / "python", "-c", "from secateur.cli.main import main; main()"]
    out = run(
        *command, "verilog", "--target", "8x1", "--interface", "axi", "-o", "out", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    names = {Path(name).name for name in json.loads(out)["files"]}
    assert {"secateur.v", "secateur.c", "secateur.h", "secateur_registers.h"} <= names


def test_an_editable_install_is_right_beside_a_clone_of_that_name(clone: Path) -> None:
    code = "import secateur; print(secateur.__file__, secateur.compile.__module__)"
    path = {"PYTHONPATH": str(clone / "sw")}  # what an editable install adds
    place, module = run(sys.executable, "-c", code, cwd=clone.parent, **path).split()
    assert Path(place) == clone / "sw" / "secateur" / "__init__.py"
    assert module == "secateur.api"


def test_an_editor_resolves_every_import(clone: Path) -> None:
    """By pyright, which most editors run; what it says of types is mypy's matter."""
    names = [*IMPORTS, "secateur.nowhere"]
    (clone.parent / "editor.py").write_text("".join(f"import {name}\n" for name in names))
    settings = clone.parent / "pyrightconfig.json"
    settings.write_text(json.dumps({"extraPaths": [str(clone / "sw")], "include": ["editor.py"]}))
    found = subprocess.run(
        [Path(sys.executable).parent / "basedpyright", "--outputjson", "-p", settings],
        cwd=clone.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(found.stdout)["generalDiagnostics"]
    unresolved = [one["message"] for one in said if "Missing" in one.get("rule", "")]
    assert len(unresolved) == 1
    assert "secateur.nowhere" in unresolved[0]
