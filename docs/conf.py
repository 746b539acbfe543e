"""Sphinx's configuration: ``make docs``."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

from pygments.lexers.shell import BashSessionLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "sw")]

import secateur  # noqa: E402
from docs.tables.commands import markdown  # noqa: E402

for name in secateur.__all__:  # imported on first use, which autodoc does not see
    setattr(secateur, name, getattr(secateur, name))

project, author, copyright = "Secateur", "The Secateur developers", "The Secateur developers"
version = release = secateur.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["pictures", "tables"]
html_theme = "furo"
html_title = f"Secateur {version}"
html_show_copyright = False

# Every reference must lead somewhere, but for types of packages whose pages are elsewhere.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!secateur\b).*")]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
# `as_numpydoc` renames the section, but not where numpydoc looks for signatures.
warnings.filterwarnings("ignore", message="Unknown section Members")


class Commands(SphinxDirective):
    """``{commands}``: the whole command line, as Typer has it."""

    def run(self) -> list:  # type: ignore[type-arg]
        """The sections of the page."""
        return self.parse_text_to_nodes(markdown(), allow_section_headings=True)


def as_numpydoc(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Docstrings before numpydoc reads them.

    ``|x|`` is an absolute value and ``*x`` an unpacked one, not markup. ``Members``, the ports of
    a component, is a section that numpydoc lacks.
    """
    for index, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"[|*]", r"\\\g<0>", part) for part in parts[::2]]
        lines[index] = "``".join(parts)
        if line == "-------" and index and lines[index - 1] == "Members":
            lines[index - 1 : index + 1] = ["Attributes", "----------"]


def draw_pictures(app: Sphinx) -> None:
    """Before pages are read."""
    from docs.pictures.draw import draw

    draw(Path(app.srcdir) / "pictures" / "drawn")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_directive("commands", Commands)
    app.add_lexer("shell", BashSessionLexer)  # commands with what they print
    app.connect("autodoc-process-docstring", as_numpydoc, priority=400)
    app.connect("builder-inited", draw_pictures)
