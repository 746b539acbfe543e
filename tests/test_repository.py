"""What holds for the repository as a whole: packages, imports, versions, sizes of files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import secateur

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sw" / "secateur"
#: Links in the package lead to them.
FOLDERS = ("hw", "sim", "boards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAX_LINES = 450


def tracked(*patterns: str) -> list[Path]:
    """Files under version control or about to be: what a commit of everything would hold."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


def modules() -> list[Path]:
    """All modules of the package, once each."""
    return [path for folder in ("sw", *FOLDERS) for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_folders_of_the_top_level_are_parts_of_the_package() -> None:
    for name in FOLDERS:
        link = PACKAGE / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_every_module_is_in_a_package() -> None:
    for path in modules():
        if path.parent != ROOT / "sw":
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_nothing_imports_the_folders_by_their_bare_names() -> None:
    for path in tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in FOLDERS, f"{path}:{node.lineno} imports {name}"


def test_version_is_the_changelogs_latest() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == secateur.__version__


def test_no_file_is_too_long() -> None:
    texts = tracked("*.py", "*.md", "*.toml", "*.cpp", "*.h", "*.v", "*.vlt", "Makefile")
    lengths = {path: len(path.read_text().splitlines()) for path in texts}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}
    assert ROOT / "pyproject.toml" in lengths


def test_no_test_measures_the_machine() -> None:
    """How fast it is, or how busy: no clock, no rest, no limit to a wait or to an example."""
    for path in [*tracked("tests/**/test_*.py"), *tracked("tests/**/conftest.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert "time" not in imported, f"{path}:{node.lineno} imports time"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                limits = [k.arg for k in node.keywords if k.arg == "timeout"]
                waits = node.func.attr in ("wait", "join", "communicate") and limits
                assert not waits, f"{path}:{node.lineno} waits for a time"
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check


def test_pins_are_plain() -> None:
    """No addresses, no files, no local builds, no editable lines: name==version only."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_the_software_loads_no_amaranth() -> None:
    """The command line reaches hw and sim within functions only."""
    names = [
        ".".join(("secateur", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in FOLDERS
    ]
    found = sorted(name.removesuffix(".__init__") for name in names)
    assert "secateur.pruning.methods.one_shot" in found
    loaded = loaded_by(f"import {', '.join(found)}")
    assert "torch" in loaded
    assert loaded & {"amaranth", "amaranth_boards", "cocotb"} == set()


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("secateur.hw.spec", {"amaranth", "numpy", "torch"}),
        ("secateur.sim.golden", {"amaranth", "torch", "scipy"}),
    ],
)
def test_importing_the_contract_loads_little(module: str, strangers: set[str]) -> None:
    loaded = loaded_by(f"import {module}")
    assert "secateur" in loaded
    assert loaded & strangers == set()


VIOLATIONS = [
    ("hw/spec.py", "import numpy", "hw.spec imports"),
    ("hw/spec.py", "from secateur.hw import extra", "hw.spec imports"),
    ("hw/extra.py", "import torch", "hw imports"),
    ("hw/extra.py", "from secateur import ir", "hw imports"),
    ("pruning/units/mask.py", "import amaranth", "sw imports"),
    ("ir.py", "from secateur.hw import extra", "sw imports"),
    ("ir.py", "import secateur.sim.golden", "sw imports"),
    ("cli/main.py", "import amaranth", "api and the command line"),
    ("cli/main.py", "import secateur.boards", "api and the command line"),
    ("api.py", "from secateur.boards import extra", "api and the command line"),
    ("cli/device.py", "from secateur.boards.measure import fmax", "the device commands"),
    ("cli/boards.py", "import amaranth", "the command line of the boards"),
    ("cli/boards.py", "import secateur.sim.golden", "the command line of the boards"),
    ("sim/golden.py", "from secateur import ir", "sim.golden imports"),
    ("sim/golden.py", "import torch", "sim.golden imports"),
    ("sim/extra.py", "import secateur.boards", "sim imports"),
    ("boards/extra.py", "import torch", "boards imports"),
    ("boards/extra.py", "from secateur.sim import golden", "boards imports"),
    ("boards/extra.py", "from secateur.disk import weights", "boards imports"),
    ("boards/soc/secateur_litex.py", "from secateur.hw import spec", "boards.soc imports"),
    ("boards/flow/top.py", "from secateur.boards.soc import extra", "packages of the boards"),
    ("fx/graph.py", "from secateur.capture import export", "packages of the software"),
    ("image/image.py", "from secateur import target", "packages of the software"),
    ("pruning/units/mask.py", "from secateur.pruning.budget import rows", "packages of the pruner"),
    ("hw/front/fetch.py", "from secateur.hw import engine", "packages of the hardware"),
    ("boards/driver/link.py", "from secateur.boards.flow import top", "packages of the boards"),
]


def contracts(tree: Path, module: str = "", line: str = "") -> dict[str, str]:
    """KEPT or BROKEN by contract, for a copy of the packages with one line added to a module."""
    package = tree / "secateur"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in FOLDERS:
        (package / folder / "extra.py").touch()
    if module:
        with (package / module).open("a") as file:
            file.write(f"\n{line}\n")
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    environment = {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    found = dict(re.findall(r"^(.*\S) (KEPT|BROKEN)", run.stdout, re.MULTILINE))
    assert run.returncode == int("BROKEN" in found.values()), run.stdout + run.stderr
    return found


def test_import_contracts_are_kept(tmp_path: Path) -> None:
    names = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
    assert contracts(tmp_path) == dict.fromkeys(names, "KEPT")


@pytest.mark.parametrize(("module", "line", "contract"), VIOLATIONS)
def test_import_contracts_catch(tmp_path: Path, module: str, line: str, contract: str) -> None:
    found = contracts(tmp_path, module, line)
    broken = [name for name, state in found.items() if state == "BROKEN"]
    assert any(name.startswith(contract) for name in broken), found
