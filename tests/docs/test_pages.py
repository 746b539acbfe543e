"""Every fenced block of README, tutorials and how-tos runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil.example import SybilFailure

from secateur.cli.terminal import console
from tests.docs.sessions import LANGUAGES, ROOT, Pages, matches, run_line
from tests.support.long import long

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted([*DOCS.glob("start/*.md"), *DOCS.glob("howto/*.md")])]
#: Pages of which the blocks take longest: in the long tests.
SLOW = [
    DOCS / "howto" / f"{name}.md"
    for name in ("larger-models", "other-tasks", "prune-to-a-budget", "soc", "stream-frames")
]
FENCE = re.compile(r"^```(\S+)", re.MULTILINE)
#: Blocks that cannot run here, by what they need.
NOT_RUN = {
    "Chromium": 1,
    "a board": 3,
    "a build": 1,
    "a network": 1,
    "mine.toml and hours": 1,
    "several machines": 1,
    "minutes of place and route": 4,
    "minutes of place and route, and a board": 2,
}


def names(page: Path) -> str:
    """How a test is called."""
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of a session: modules in it can be imported, and are forgotten."""
    monkeypatch.chdir(tmp_path)
    # The console keeps the width that it has found when it was made.
    monkeypatch.setattr(console, "_width", 100)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize(
    "page", [long(page) if page in SLOW else page for page in PAGES], ids=names
)
def test_blocks_run(page: Path, folder: Path) -> None:
    assert Pages().run(page)


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [page for page in PAGES if "<!-- long" in page.read_text()], ids=names
)
def test_long_blocks_run(page: Path, folder: Path) -> None:
    assert Pages(long=True).run(page)


def test_every_block_has_a_language_that_runs() -> None:
    for page in PAGES:
        text = page.read_text()
        languages = {name for name in FENCE.findall(text) if not name.startswith("{")}
        allowed = {*LANGUAGES, "mermaid"} if page.parent == ROOT else set(LANGUAGES)
        assert languages <= allowed, page
        assert len(re.findall(r"^```$", text, re.MULTILINE)) == len(FENCE.findall(text)), page
        assert not re.search(r"^    \S", re.sub(r"(?s)^```.*?^```", "", text, flags=re.M), re.M), (
            f"{page}: an indented block is not run; fence it"
        )


def test_blocks_that_are_not_run() -> None:
    """What they need, and how many of them there are."""
    found: dict[str, int] = {}
    for page in PAGES:
        for needs in re.findall(r"^```console\n# needs (.*)$", page.read_text(), re.MULTILINE):
            found[needs] = found.get(needs, 0) + 1
    assert found == NOT_RUN


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b", "a b\n", True),
        ("a b", "a c\n", False),
        ("a ... d", "a b c d", True),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\ne", "a\nb\nc\nd", False),
        ("a", "a\nb", False),
        ("1.5", "125", False),
    ],
)
def test_comparison_of_output(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


@pytest.mark.parametrize(
    ("language", "block"),
    [
        ("python", ">>> 1 + 1\n3"),
        ("python", "raise ValueError"),
        ("shell", "secateur targets"),
        ("shell", "$ secateur targets\nnothing"),
        ("toml", "n = "),
        ("c", "/* page.c */\nint f(void) { }"),
        ("verilog", "// page.v\nmodule page(input a); nothing b(.c(a)); endmodule"),
        ("console", "$ secateur device info --port /dev/ttyUSB0"),
    ],
)
def test_blocks_that_are_wrong(language: str, block: str, folder: Path) -> None:
    Path("build").mkdir()
    Path("build/secateur.v").write_text("module secateur; endmodule\n")
    page = folder / "page.md"
    page.write_text(f"# Page\n\n```{language}\n{block}\n```\n")
    with pytest.raises((AssertionError, SybilFailure, ValueError)):
        Pages().run(page)


def test_long_blocks_have_a_stand_in(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(
        "<!-- long, for short: secateur targets -->\n```shell\n$ secateur inspect no.sec\n```\n"
    )
    assert Pages().run(page) == 1
    with pytest.raises(AssertionError):
        Pages(long=True).run(page)


def test_what_a_page_must_not_do(folder: Path) -> None:
    run_line("secateur inspect no.sec  # exit status 1", "secateur: no.sec...")
    for line, shown in (
        ("rm -rf x", None),
        ("secateur inspect no.sec", None),
        ("secateur targets", "nothing"),
        ("pip install 'secateur[none]'", None),
        ("make no-such-target", None),
    ):
        with pytest.raises(AssertionError):
            run_line(line, shown)
