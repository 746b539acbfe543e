"""Runs the fenced blocks of a page: Python by sybil, commands in a folder, files by their tools.

A shell block holds commands after ``$ `` and what they print, with ``...`` for what varies. A
command that ends with ``# exit status 1`` fails. A block whose first line is a comment with a
file's name is that file. A ``console`` block needs something that is not here, and says what.
``make`` and ``pip`` are not run: targets and extras that a page names must exist.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from secateur.cli.main import main
from secateur.sim.verilator import environment

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
#: Languages of blocks, but for the directives of the site and README's Mermaid.
LANGUAGES = ("python", "shell", "toml", "c", "verilog", "console")
FILE = re.compile(r"(?:#|//|/\*) (\w+\.(?:py|toml|c|v))\b.*\n")
NEEDS = re.compile(r"# needs \w.*\n")
#: Before a block that takes minutes, with a smaller command for the default run.
LONG = re.compile(r"<!-- long, for short: (.+) -->\s*\Z")
BORDER = re.compile("[┏┳┓┡╇┩├┼┤└┴┘━─]+")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def lines_of(text: str) -> list[str]:
    """Lines without what depends on the width of numbers: white space, and borders of tables."""
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    return [line for line in lines if not BORDER.fullmatch(line)]


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what a command printed, up to ``...``, white space and borders."""
    parts = []
    for line in lines_of(shown):
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        words = [re.escape(word) for word in line.split("...")]
        parts.append(".*?".join(words) + "\n")
    text = "".join(f"{line}\n" for line in lines_of(printed))
    return re.fullmatch("".join(parts), text) is not None


def secateur(words: list[str]) -> tuple[int, str]:
    """Exit status and output of a command of Secateur, in this process and folder."""
    output, old = io.StringIO(), sys.argv
    sys.argv = ["secateur", *words]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main()
    except SystemExit as stopped:
        return int(stopped.code or 0), output.getvalue()
    finally:
        sys.argv = old
    raise AssertionError("the command line returns by SystemExit")


def program(words: list[str]) -> tuple[int, str]:
    """Exit status and output of another program."""
    ran = subprocess.run(words, capture_output=True, text=True, env=environment())
    return ran.returncode, ran.stdout + ran.stderr


def pip(words: list[str]) -> tuple[int, str]:
    """``pip install 'secateur[...]'``, not run: the extras must exist."""
    install, name = words
    found = re.fullmatch(r"secateur\[([a-z,]+)\]", name)
    assert install == "install"
    assert found, f"pip install {name}"
    assert set(found[1].split(",")) <= EXTRAS.keys(), name
    return 0, ""


COMMANDS: dict[str, Callable[[list[str]], tuple[int, str]]] = {
    "secateur": secateur,
    "python": lambda words: program([sys.executable, *words]),
    "pip": pip,
    "make": lambda words: (program(["make", "-n", "-C", str(ROOT), *words])[0], ""),
    "ls": lambda words: program(["ls", *words]),
    "openssl": lambda words: program(["openssl", *words]),
}


def run_line(line: str, shown: str | None) -> None:
    """Run a command of a page, and compare what it prints where the page shows it."""
    line, _, note = line.partition("  # exit status ")
    name, *words = shlex.split(line, comments=True)
    assert name in COMMANDS, f"a page may not run {name}; make it a console block"
    status, printed = COMMANDS[name](words)
    assert status == int(note or 0), f"{line}: exit status {status}\n{printed}"
    if shown:
        assert matches(shown, printed), f"{line} printed\n{printed}\nand not\n{shown}"


class Pages:
    """Evaluates blocks; ``long`` runs those that take minutes instead of their stand-ins."""

    def __init__(self, long: bool = False) -> None:
        self.long = long
        self.waiting: list[str] = []
        parsers = [PythonOrFile(doctest_optionflags=OPTIONS)]
        for language in LANGUAGES[1:]:
            parsers.append(CodeBlockParser(language, getattr(self, language)))
        self.sybil = Sybil(parsers)

    def run(self, page: Path) -> int:
        """Evaluate all blocks of a page in the current folder; how many there are."""
        examples = list(self.sybil.parse(page).examples())
        for example in examples:
            example.evaluate()
        return len(examples)

    def shell(self, example: Example) -> None:
        """Commands, in order."""
        before = example.document.text[: example.region.start]
        stand_in = LONG.search(before)
        if stand_in and not self.long:
            run_line(stand_in[1], None)
            return
        text = re.sub(r"\\\n\s*", " ", example.parsed)
        assert text.startswith("$ "), f"{example.path}: a shell block begins with a command"
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            run_line(line, shown)

    def console(self, example: Example) -> None:
        """Not run; it says what it needs."""
        assert NEEDS.match(example.parsed), f"{example.path}: a console block says what it needs"
        self.waiting.append(example.parsed.splitlines()[0])

    def toml(self, example: Example) -> None:
        """A file that can be read."""
        tomllib.loads(example.parsed)
        file_of(example)

    def c(self, example: Example) -> None:
        """A file that gcc takes without a warning."""
        places = (ROOT / "boards" / "driver" / "c", ROOT / "boards" / "soc")
        includes = [f"-I{place}" for place in places]
        flags = ("-std=c99", "-Wall", "-Wextra", "-Werror", *includes, "-c")
        status, printed = program(["gcc", *flags, str(file_of(example)), "-o", "page.o"])
        assert status == 0, printed

    def verilog(self, example: Example) -> None:
        """A file that Verilator lints, with the engine that the page wrote."""
        (module,) = Path().glob("*/secateur.v")
        engine = ["-Wno-fatal", "-Wno-lint", "-Werror-PINMISSING"]
        command = ["verilator", "--lint-only", *engine, str(file_of(example))]
        status, printed = program([*command, str(module)])
        assert status == 0, printed


class PythonOrFile(PythonCodeBlockParser):
    """Python blocks; those that name a file are written to it."""

    def __call__(self, document):  # type: ignore[no-untyped-def]
        for region in super().__call__(document):
            if isinstance(region.parsed, str) and FILE.match(region.parsed):
                region.evaluator = write_file
            yield region


def file_of(example: Example) -> Path:
    """Write the file that a block is."""
    named = FILE.match(example.parsed)
    path = Path(named[1] if named else f"block.{example.region.lexemes['arguments']}")
    path.write_text(example.parsed)
    return path


def write_file(example: Example) -> None:
    """The evaluator of blocks that are files."""
    file_of(example)
