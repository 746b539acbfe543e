"""The report as one HTML file, which loads nothing."""

from __future__ import annotations

from pathlib import Path

from secateur._version import __version__
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.report.figures.figure import Figure
from secateur.report.page.contents import Contents, contents

try:
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs
except ImportError:
    raise SecateurError(
        "reports need Jinja2 and Plotly, which are missing; pip install 'secateur[report]'"
    ) from None

_FOLDER = Path(__file__).parent


def write_report(path: Path, output: Path) -> Contents:
    """Write the report of an image or a folder.

    Parameters
    ----------
    path : as of `secateur.report.page.contents.contents`
    output : HTML file

    Raises
    ------
    SecateurError : there is nothing to report, it is damaged, or ``output`` cannot be written
    """
    found = contents(path)
    write_atomically(output, html(found).encode("utf-8", "backslashreplace"))
    return found


def html(found: Contents) -> str:
    """The page. Names from files are escaped: in HTML by Jinja2, in figures by `label`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string((_FOLDER / "page.html").read_text())
    return page.render(
        contents=found,
        css=Markup((_FOLDER / "page.css").read_text()),
        script=Markup((_FOLDER / "page.js").read_text()),
        plotly=Markup(get_plotlyjs()),
        data=data,
        version=__version__,
    )


def data(found: Figure) -> Markup:
    """A figure's JSON, which cannot end the element that it is in."""
    return Markup(found.plot.to_json().replace("<", "\\u003c"))
