"""The page in Chromium, and figures printed by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur.errors import SecateurError
from secateur.report.page.contents import Contents, contents
from secateur.report.page.export import browser, find_figure, printed
from secateur.report.page.page import write_report
from tests.sw.report.made import EVIL, image_of, make_build, make_run, make_study, renamed

#: Until all plots that are not hidden are drawn.
DRAWN = """[...document.querySelectorAll(".plot")].filter(plot => plot.offsetParent)
    .every(plot => plot.dataset.drawn === "yes")"""

#: The layers that are to be seen.
SHOWN = "[...document.querySelectorAll('.layer')].filter(s => !s.hidden).map(s => s.id)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    try:
        with browser() as found:
            yield found
    except SecateurError as error:
        pytest.skip(f"needs Chromium: {error}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a study, whose folder it is in; of a build; of an image with evil names."""
    where = tmp_path_factory.mktemp("browser")
    make_run(where / "run")
    (where / "study").mkdir()
    make_study(where / "study", where / "run")
    make_build(where / "build")
    renamed(image_of("resnet8"), EVIL).save(where / "evil.sec")
    reports = {name: where / f"{name}.html" for name in ("study", "build", "evil")}
    for name, file in reports.items():
        write_report(where / (f"{name}.sec" if name == "evil" else name), file)
    return reports


class Opened:
    """A page that is open, and all that it complained of or asked for."""

    def __init__(self, chromium: Any, file: Path, scheme: str, width: int) -> None:
        self.problems: list[str] = []
        size = {"width": width, "height": 800}
        self.page = chromium.new_page(viewport=size, color_scheme=scheme)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append("a dialog"))
        self.page.on("request", self._asked)
        self.page.goto(file.as_uri())
        self.page.wait_for_function(DRAWN)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.problems.append(request.url)

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("study", 1200, "light"),
        ("study", 360, "dark"),
        ("build", 1200, "dark"),
        ("evil", 360, "light"),
    ],
)
def test_every_figure_is_drawn(
    chromium: Any, made: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    opened = Opened(chromium, made[name], scheme, width)
    layers = opened.run("document.querySelectorAll('.layer').length")
    assert bool(layers) == (name != "build")
    for number in range(layers):
        opened.page.select_option("#choice select", str(number))
        opened.page.wait_for_function(DRAWN)
        assert (
            opened.run("[...document.querySelectorAll('.layer')].filter(s => !s.hidden).length")
            == 1
        )
    plots = opened.run("""[...document.querySelectorAll(".plot")].map(plot => [
        plot.parentElement.id, plot.dataset.drawn,
        plot.querySelectorAll(".trace, .hm, image").length,
    ])""")
    assert plots
    assert [plot for plot in plots if plot[1] != "yes" or not plot[2]] == []
    # Nothing is wider than the window, but what scrolls for itself.
    assert opened.run("document.documentElement.scrollWidth") <= width
    paper, ink = opened.run("""[getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector(".plot .main-svg text")).fill]""")
    assert brightness(paper) > 200 if scheme == "light" else brightness(paper) < 60
    assert abs(brightness(paper) - brightness(ink)) > 150
    assert opened.problems == []
    opened.page.close()


def brightness(colour: str) -> float:
    """Mean of red, green and blue of ``rgb(...)``."""
    parts = colour.removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(float, parts)) / 3


def test_a_click_on_a_layer_shows_its_figures(chromium: Any, made: dict[str, Path]) -> None:
    opened = Opened(chromium, made["study"], "light", 1200)
    assert opened.run(SHOWN) == ["layer-0"]
    opened.page.locator("#network").scroll_into_view_if_needed()
    # Where Plotly has drawn the layer, and nothing else.
    x, y = opened.run("""(() => {
        const plot = document.querySelector("#network .plot"), layout = plot._fullLayout;
        const trace = plot.data.find(trace => (trace.customdata || []).includes(1));
        const at = trace.customdata.indexOf(1), box = plot.getBoundingClientRect();
        return [box.left + layout.xaxis._offset + layout.xaxis.d2p(trace.x[at]),
                box.top + layout.yaxis._offset + layout.yaxis.d2p(trace.y[at])];
    })()""")
    opened.page.mouse.move(x, y)
    opened.page.mouse.click(x, y)
    opened.page.wait_for_function("!document.getElementById('layer-1').hidden")
    opened.page.wait_for_function(DRAWN)
    assert opened.run(SHOWN) == ["layer-1"]
    assert opened.run("document.activeElement.id") == "layer-1"
    assert opened.page.input_value("#choice select") == "1"
    assert opened.problems == []
    opened.page.close()


def test_without_scripts_texts_and_tables_remain(chromium: Any, made: dict[str, Path]) -> None:
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(made["study"].as_uri())
    assert page.locator("#layer-1 figcaption p").first.is_visible()
    page.locator("#layer-1 summary").first.click()
    assert page.locator("#layer-1 table").first.is_visible()
    page.close()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    file = tmp_path_factory.mktemp("printed") / "model.sec"
    image_of(0).save(file)
    return contents(file)


def test_a_figure_is_printed(chromium: Any, found: Contents) -> None:
    png = printed(chromium, find_figure(found, "cycles"), "png")
    assert png.startswith(b"\x89PNG")
    height = find_figure(found, "cycles").plot.layout.height
    assert int.from_bytes(png[20:24], "big") == 2 * height
    pdf = printed(chromium, find_figure(found, "memory"), "pdf")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") == 1
