"""The page: whole without a browser, safe against names, small, and refused files in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from secateur import api
from secateur.disk.weights import read_weights
from secateur.errors import SecateurError
from secateur.inference import layer_codes
from secateur.pruning.recipes.evidence import COUNTED, EVIDENCE
from secateur.report.page.contents import Contents, contents, of_image
from secateur.report.page.export import find_figure
from secateur.report.page.files import evidence_of
from secateur.report.page.page import html, write_report
from tests import parts
from tests.sw.report.made import EVIL, image_of, make_build, make_run, make_study, renamed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    make_run(folder)
    return folder


class Page(HTMLParser):
    """Elements of a page, their attributes, and the texts of figures and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: list[Any] = []
        self.open = ""
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag if dict(attrs).get("type") != "application/json" else "json"

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open == "json":
            self.json.append(json.loads(data))
        elif self.open not in ("script", "style"):
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def check(page: Page, found: Contents) -> None:
    """Every figure is there once, with its text for all readers, its table and its plot."""
    everything = [*found.figures, *found.by_layer]
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "figure"]
    assert ids == [own.name for own in everything]
    assert len(set(ids)) == len(ids)
    plots = [a for tag, a in page.tags if tag == "div" and a.get("class") == "plot"]
    said = [plot["aria-label"] for plot in plots]
    assert said == [f"{own.title}. {own.text}" for own in everything]
    assert all(own.text.strip() and own.rows and own.plot.data for own in everything)
    assert page.count("table") == page.count("details") == len(everything) == len(page.json)
    assert page.count("tr") == sum(1 + len(own.rows) for own in everything)
    assert all(len(row) == len(own.columns) for own in everything for row in own.rows)
    for own in everything:
        assert own.text in page.texts
    # It loads nothing: no address but those within it, and a policy that forbids all others.
    for _, attributes in page.tags:
        assert not {"src", "srcset", "data"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    policy = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy
    assert str(policy[0]).startswith("default-src 'none';")


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def test_a_run_is_shown_whole(run: Path, tmp_path: Path) -> None:
    found = write_report(run, tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text())
    check(page, found)
    names = {own.name for own in found.figures}
    assert names == {
        "network", "cycles", "memory", "learning", "sensitivity", "robustness", "confusion",
        "answers",
        "noise",
    }  # fmt: skip
    for number in range(len(found.layers)):
        kinds = {own.name.split("-")[0] for own in found.by_layer if own.layer == number}
        assert {"cycles", "codes"} <= kinds
    assert {own.name for own in found.by_layer} >= {"blocks-0", "density-0", "weights-0"}
    assert (tmp_path / "r.html").stat().st_size < 10e6
    record = json.loads((run / "record.json").read_text())
    assert ("accuracy, int8", f"{record['columns']['model']['accuracy']:.2%}") in found.facts
    cycles = api.load(run / "model.sec").cycles
    assert ("cycles per inference", f"{cycles:,}") in found.facts
    learning = find_figure(found, "learning").plot
    drawn = {trace.name: list(trace.y) for trace in learning.data}
    assert drawn == record["results"]["losses"]


def test_the_evidence_is_of_the_record(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    kept, split = read_weights(run / EVIDENCE), parts.data(3)
    assert torch.equal(kept["labels"], split["test_y"])
    for name in ("dense", "model"):
        right = (kept[name] == kept["labels"]).double().mean()
        assert float(right) == record["columns"][name]["accuracy"]
        image = api.load(run / f"{name}.sec")
        for layer, codes in layer_codes(image, split["test_x"][:COUNTED].numpy()):
            values, counts = np.unique(codes % 256, return_counts=True)
            found = kept[f"codes/{name}/{layer}"]
            assert found[values.tolist()].tolist() == counts.tolist()
            assert int(found.sum()) == codes.size
    other = kept["dense"] != kept["model"]
    assert record["agreement"] == 1 - float(other.double().mean())
    assert kept["changed"].numel() == min(24, int(other.sum()))
    assert bool(other[kept["changed"]].all())
    assert len(set(kept["changed"].tolist())) == kept["changed"].numel()
    assert torch.equal(kept["samples"], split["test_x"][kept["changed"]])
    epochs = {name: len(values) for name, values in record["results"]["losses"].items()}
    assert epochs == {"train": 2, "qat dense": 2, "prune": 2, "recover": 1, "qat model": 2}


def test_a_run_may_be_judged_by_any_metric(run: Path, tmp_path: Path) -> None:
    """Of which less is better; then the sensitivity has losses only, and nobody answers."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    record = json.loads((folder / "record.json").read_text())
    record["metric"] = {"name": "package.module:error", "direction": "min"}
    for column, value in (("dense", 0.5), ("model", 0.75)):
        record["columns"][column] = {"package.module:error": value, "cycles": 1000}
    record["agreement"] = None
    for at, row in enumerate(record["sensitivity"]):
        row["loss"] = at
        del row["accuracy"]
    (folder / "record.json").write_text(json.dumps(record))
    evidence = folder / EVIDENCE
    save_file({k: v for k, v in read_weights(evidence).items() if "/" in k}, evidence)
    found = contents(folder)
    check(Page(html(found)), found)
    assert found.facts[:2] == [("error, int8", "0.75"), ("error, int8, dense", "0.5")]
    worst = record["sensitivity"][-1]
    assert f"worst loss is {worst['loss']}" in find_figure(found, "sensitivity").text
    assert {"confusion", "answers"} & {own.name for own in found.figures} == set()


def test_a_study_is_shown_with_its_first_run(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    variants = make_study(folder, run)
    found = contents(folder)
    check(Page(html(found)), found)
    assert [own.name for own in found.figures][:3] == ["front", "variants", "learning"]
    assert {"network", "cycles", "memory", "confusion"} <= {own.name for own in found.figures}
    record = json.loads((run / "record.json").read_text())["columns"]["model"]
    singles = [t for t in find_figure(found, "front").plot.data if t.marker.size == 6]
    assert [list(t.x) for t in singles] == [[record["cycles"]] * 2] * 2
    assert [list(t.y) for t in singles] == [[record["accuracy"]] * 2] * 2
    means = [t for t in find_figure(found, "front").plot.data if t.error_y.array]
    assert [t.y[0] for t in means] == [row["int8"]["mean"] for row in variants.values()]
    assert [t.error_x.array[0] for t in means] == [0.1, 0.1]
    for place in folder.glob("*-[34]"):
        shutil.rmtree(place)
    alone = contents(folder)
    check(Page(html(alone)), alone)
    assert [own.name for own in alone.figures] == ["front", "variants"]


def test_a_build_is_shown(tmp_path: Path) -> None:
    report = make_build(tmp_path / "out")
    found = contents(tmp_path / "out")
    check(Page(html(found)), found)
    assert [own.name for own in found.figures] == ["resources", "clock", "path"]
    assert find_figure(found, "clock").rows == [(5, "41.5", "met"), (6, "30.5", "missed")]
    (bars,) = find_figure(found, "path").plot.data
    assert (list(bars.base), list(bars.x)) == ([0.0, 1.25], [1.25, 2.5])
    assert "RAM: 30 of 30, 100.0%" in find_figure(found, "resources").text
    assert ("clock wanted / after routing", f"36 / {report['fmax_mhz']:g} MHz") in found.facts


def test_an_exploration_is_shown(tmp_path: Path) -> None:
    values = {"target": EVIL, "prune.steps": 3}
    search = {
        "objectives": ["accuracy", "cycles"],
        "trials": [
            {"number": 0, "values": values, "accuracy": 0.5, "cycles": 900},
            {"number": 1, "values": values, "problem": "does not fit"},
            {"number": 2, "values": values, "accuracy": 0.5, "cycles": 800},
            {"number": 3, "values": values, "stopped": "float: accuracy 10.00%, below 20.00%"},
            {"number": 4, "values": values, "stopped": "float: accuracy 10.00%, below 20.00%"},
            *({"number": number, "values": values} for number in (5, 6, 7)),
        ],
        "front": [2],
    }
    (tmp_path / "explore.json").write_text(json.dumps(search))
    found = contents(tmp_path)
    page = Page(html(found))
    check(page, found)
    assert page.count("img") == 0
    beaten, front = find_figure(found, "trials").plot.data
    assert [list(beaten.x), list(beaten.y)] == [[900], [0.5]]
    assert [list(front.x), list(front.y)] == [[800], [0.5]]
    text = "8 trials, of which 1 have failed, 2 were stopped early and 3 are not done."
    assert text in find_figure(found, "trials").text


def test_names_are_texts_and_nothing_else() -> None:
    image = renamed(image_of("resnet8"), EVIL)
    found = of_image(image, EVIL)
    page = Page(html(found))
    check(page, found)
    plain = Page(html(of_image(image_of("resnet8"), "plain")))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.count("img") == page.count("b") == 0
    assert any(EVIL[:20] in text for text in page.texts)
    for text in strings(page.json):
        tags = text.replace("<br>", "").replace("<extra></extra>", "")
        assert "<" not in tags, text


@pytest.mark.parametrize("which", [0, 1, 3, 7, "autoencoder"])
def test_all_kinds_of_networks_are_shown(which: int | str) -> None:
    found = of_image(image_of(which), "any")
    check(Page(html(found)), found)


def test_an_unknown_figure_is_refused_with_the_known(run: Path) -> None:
    with pytest.raises(SecateurError, match=r"figure 'cycle' is not in this report.* cycles, "):
        find_figure(contents(run), "cycle")


def edit(key: str, value: Any) -> Callable[[Path], None]:
    """Put a value into record.json."""

    def change(folder: Path) -> None:
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(record | {key: value}))

    return change


def tensors(**change: Any) -> Callable[[Path], None]:
    """Replace or, with None, remove tensors of the evidence."""

    def alter(folder: Path) -> None:
        file = folder / "evidence.safetensors"
        found = read_weights(file) | {k.replace("_", "/"): v for k, v in change.items()}
        save_file({name: value for name, value in found.items() if value is not None}, file)

    return alter


def cut(name: str) -> Callable[[Path], None]:
    """Keep the first half of a file."""

    def halve(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return halve


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (cut("model.sec"), "model.sec", "compile the model again"),
        (cut("dense.sec"), "dense.sec", "compile the model again"),
        (cut("record.json"), "record.json", "not a JSON file"),
        (cut("evidence.safetensors"), "evidence.safetensors", "not a whole safetensors file"),
        (edit("columns", []), "record.json", "secateur prune"),
        (edit("agreement", "much"), "record.json", "secateur prune"),
        (edit("results", {"losses": {"train": ["x"]}}), "record.json", "secateur prune"),
        (edit("sensitivity", [{"layer": "a", "loss": 1}]), "record.json", "'density'"),
        (edit("metric", {"name": "accuracy", "direction": 1}), "record.json", "max or min"),
        (edit("robustness", 3), "record.json", "secateur prune"),
        (tensors(labels=torch.zeros(3, dtype=torch.long)), "evidence", "secateur prune"),
        (tensors(dense=None), "evidence", "'dense'"),
        (tensors(changed=torch.tensor([-1])), "evidence", "one length"),
        (tensors(codes_model_x=torch.zeros(255, dtype=torch.long)), "evidence", "256 counts"),
        (lambda folder: (folder / "model.sec").unlink(), "run", "no model.sec"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], file: str, message: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    damage(folder)
    with pytest.raises(SecateurError, match=message) as refused:
        contents(folder)
    assert file in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("study.json", "[]", "secateur study"),
        ("study.json", '{"seeds": [1], "variants": {}}', "no variants"),
        ("study.json", '{"seeds": [1], "variants": {"a": {"float": 3}}}', "secateur study"),
        ("study.json", "{", "not a JSON file"),
        ("explore.json", '{"objectives": [], "trials": [{}], "front": []}', "secateur explore"),
        ("report.json", "{}", "secateur build"),
        ("report.json", "[" * 100_000, "not a JSON file"),
        ("record.json", "{}", "no model.sec"),
        ("other.json", "{}", "nothing to report; expected an image, or the folder"),
    ],
)
def test_foreign_folders_are_refused_in_one_line(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(SecateurError, match=message) as refused:
        contents(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_classes_that_no_matrix_can_show_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "evidence.safetensors"
    keys = ("labels", "dense", "model", "changed", "samples")
    found = {key: torch.zeros(1, dtype=torch.long) for key in keys}
    save_file(found, file)
    assert evidence_of(file).samples is not None
    found["model"] += 2048
    save_file(found, file)
    with pytest.raises(SecateurError, match="classes must be 0 to 2047"):
        evidence_of(file)
