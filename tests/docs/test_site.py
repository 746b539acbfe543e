"""The site builds without a warning; what the pages have in common."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import secateur
from docs.pictures.draw import PICTURES
from docs.tables import networks
from tests.docs.sessions import ROOT
from tests.support.networks import MLPERF_TINY
from tests.test_repository import modules, tracked

DOCS = ROOT / "docs"
TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")]
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "index.md")
README_LINES, CELL = 90, 200


def names(page: Path) -> str:
    """How a test is called."""
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """Where a page links to, without addresses of the web."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in to]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    options = ["-q", "-W", "-n", "--keep-going", "-d", str(tmp_path / "trees"), "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in PAGES:
        html = (tmp_path / "site" / page.relative_to(DOCS)).with_suffix(".html").read_text()
        assert 'class="system-message' not in html, page
    commands = (tmp_path / "site" / "reference" / "commands.html").read_text()
    assert "secateur device run" in commands
    assert "--calibrate" in commands
    api = (tmp_path / "site" / "reference" / "api.html").read_text()
    for name in {*secateur.__all__} - {"__version__"}:
        assert f'id="secateur.{name}"' in api, name


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=names)
def test_links_lead_to_files(page: Path) -> None:
    for to in links(page):
        assert (page.parent / to.partition("#")[0]).exists(), to


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_page_links_to_another(page: Path) -> None:
    assert any(to.partition("#")[0].endswith(".md") for to in links(page))


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=names)
def test_no_cell_is_an_essay(page: Path) -> None:
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            assert max(len(cell.strip()) for cell in line.strip("|").split("|")) <= CELL, line


def test_pages_that_files_name_exist() -> None:
    """With their path, or by their name alone in two backticks."""
    known = {path.name for path in [*TOP, *PAGES]}
    for path in tracked():
        if path.suffix not in (".py", ".md", ".toml", ".c", ".h", ".v") or path.is_symlink():
            continue
        text = path.read_text()
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", text):
            assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)} names {page}"
        if path.suffix == ".py":
            named = set(re.findall(r"``([\w-]+\.md)``", text))
            assert named <= known, f"{path.relative_to(ROOT)} names {named - known}"


@pytest.mark.parametrize("page", [*TOP, *PAGES], ids=names)
def test_files_that_pages_name_exist(page: Path) -> None:
    folders = "sw|hw|sim|boards|tests|docs"
    text = re.sub(r"https?://\S+", "", page.read_text())
    named = re.findall(rf"`((?:{folders})/[\w/.-]+)`", text)
    named += re.findall(rf"(?<![\w/-])((?:{folders})/[\w/-]+\.(?:py|toml))\b", text)
    for name in named:
        assert (ROOT / name).exists(), name


def test_messages_name_no_page_of_the_repository() -> None:
    """A wheel has none of them; docstrings and what writes a page may."""
    for path in modules():
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in prose:
                named = re.search(r"\bdocs/[\w/-]+\.md\b", str(node.value))
                assert not named or path.name == "registers.py", f"{path}:{node.lineno}"


def texts(tree: ast.AST) -> Iterator[str]:
    """Strings of a module; what an f-string fills in is left blank."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(getattr(part, "value", "")) for part in node.values if is_text(part)]
            yield " ".join(parts)
        elif is_text(node):
            yield str(getattr(node, "value", ""))


def is_text(node: ast.AST) -> bool:
    """Whether a node is a string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_troubleshooting_quotes_messages() -> None:
    page = (DOCS / "howto" / "troubleshooting.md").read_text()
    messages = [text for path in modules() for text in texts(ast.parse(path.read_text()))]
    quoted = re.findall(r"^\*\*(.+)\*\*$", page, re.MULTILINE)
    assert len(quoted) > 10
    for quote in quoted:
        parts = [part.strip() for part in quote.split("...")]
        assert any(all(part in message for part in parts) for message in messages), quote


def test_pictures_are_shown_and_described() -> None:
    text = "\n".join(page.read_text() for page in [DOCS / "index.md", *PAGES])
    shown = re.findall(r"```\{figure\} \S*drawn/([a-z-]+)\.svg\n:alt: (.*)\n\n(.+)", text)
    assert {name for name, _, _ in shown} == set(PICTURES)
    assert text.count("```{figure}") == len(shown)
    assert len(PICTURES) >= 10


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("kind", MLPERF_TINY)
def test_readme_has_the_figures_of_the_command(kind: type) -> None:
    table = re.findall(r"^\|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert table[:2] == networks.HEAD.splitlines()
    (shown,) = (line for line in table if line.startswith(f"| {kind.__name__} |"))
    assert shown == networks.row(kind)


def test_readme_quotes_the_pages() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    accuracy = re.search(r"loses ([\d.]+) points of ([\d.]+) %", readme)
    study = (DOCS / "explanation" / "networks.md").read_text()
    assert accuracy
    assert re.search(rf"^\| `uniform-97500`.* {accuracy[1]}, 0", study, re.MULTILINE)
    assert re.search(rf"^\| dense \| 0 to 2 \| {accuracy[2]} %", study, re.MULTILINE)
    boards = (DOCS / "explanation" / "boards.md").read_text()
    clocks = re.findall(r"(\d+) MHz on `([\w-]+)`", readme)
    assert len(clocks) == 3
    for clock, board in clocks:
        (row,) = re.findall(rf"^\| `{board}` \|.*\(1\).*$", boards, re.MULTILINE)
        reached = [float(mhz) for mhz in re.findall(r"([\d.]+) \(\d\)", row)]
        assert int(clock) == int(min(reached)), board


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    # Within another make, it would also say which folders it enters.
    command = ["make", "--no-print-directory"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in ran.stdout.splitlines()] == phony.split()


def test_hooks_run_installed_tools() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {"ruff", "mypy", "codespell"} <= {hook["id"] for hook in local["hooks"]}
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        tool = Path(hook["entry"].split()[0])
        assert tool.parent == Path(".venv/bin")
        assert (Path(sys.executable).parent / tool.name).exists(), hook["id"]


def test_spelling() -> None:
    codespell = Path(sys.executable).parent / "codespell"
    ran = subprocess.run([codespell], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_spelling_is_checked(tmp_path: Path) -> None:
    codespell, config = Path(sys.executable).parent / "codespell", ROOT / "pyproject.toml"
    wrong = "weight"[:4] + "th"
    (tmp_path / "page.md").write_text(f"a requantised {wrong}\n")
    command = [codespell, "--toml", str(config), "page.md"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.startswith(f"page.md:1: {wrong} ==> ")
