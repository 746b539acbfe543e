"""Single figures as PDF or PNG, printed by Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.report.figures.figure import Figure
from secateur.report.page.contents import Contents
from secateur.report.page.page import html
from secateur.text import first_line, printable

FORMATS = ("pdf", "png")
#: Browsers of the system, tried where Playwright has none of its own.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WIDTH, _SCALE = 1000, 2  # pixels of a figure, and dots of a picture for each
_SECONDS = 60


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium: Playwright's own, or the system's.

    Raises
    ------
    SecateurError : Playwright is missing, or there is no browser
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise SecateurError(
            "PDF and PNG need Playwright, which is missing; pip install 'secateur[report]'"
        ) from None
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        own = Path(playwright.chromium.executable_path).is_file()
        try:
            launched = playwright.chromium.launch(executable_path=None if own else found)
        except Error as error:
            raise SecateurError(
                f"PDF and PNG need Chromium, which does not start ({first_line(error)}); install "
                f"your system's package chromium, or run `playwright install chromium`"
            ) from None
        try:
            yield launched
        finally:
            launched.close()


def write_figure(found: Contents, name: str, output: Path, style: str) -> None:
    """Write one figure of a report.

    Parameters
    ----------
    found : what the report shows
    name : of the figure, as in the address of the page: ``cycles``, ``blocks-3``
    output : file
    style : one of `FORMATS`

    Raises
    ------
    SecateurError : there is no such figure, no browser, or the file cannot be written
    """
    own = find_figure(found, name)
    with browser() as chromium:
        data = printed(chromium, own, style)
    write_atomically(output, data)


def printed(chromium: Any, found: Figure, style: str) -> bytes:
    """A figure as PDF, one page of its size, or as PNG.

    Parameters
    ----------
    chromium : from `browser`
    found : the figure
    style : one of `FORMATS`
    """
    page = chromium.new_page(
        viewport={"width": _WIDTH, "height": found.plot.layout.height},
        device_scale_factor=_SCALE, color_scheme="light",
    )  # fmt: skip
    page.set_default_timeout(1000 * _SECONDS)
    page.set_content(html(Contents(found.title, [], [found])))
    page.wait_for_selector(".plot[data-drawn=yes]")
    page.evaluate("document.body.replaceChildren(document.querySelector('.plot'))")
    plot = page.locator(".plot")
    if style == "png":
        data: bytes = plot.screenshot()
    else:
        box = plot.bounding_box()
        size = {key: f"{box[key]}px" for key in ("width", "height")}
        data = page.pdf(print_background=True, page_ranges="1", **size)
    page.close()
    return data


def find_figure(found: Contents, name: str) -> Figure:
    """A figure of a report by its name.

    Raises
    ------
    SecateurError : there is none, with the names that there are
    """
    figures = {own.name: own for own in (*found.figures, *found.by_layer)}
    if name not in figures:
        known = printable(", ".join(figures), 1000)
        raise SecateurError(f"figure {name!r} is not in this report; choose from {known}")
    return figures[name]
