"""Studies: variants of the tiny recipe with two seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur import api
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.pruning.explore import study
from secateur.pruning.explore.study import load_study, run_study
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.tables import Recipe
from tests import parts
from tests.support.commands import listed

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"
STUDY = Path(__file__).parents[3] / "data" / "tiny-study.toml"
SEEDS = (3, 4)
VARIANTS = ("recipe", "uniform", "channels", "narrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was interrupted once."""
    place = tmp_path_factory.mktemp("study")

    def stop(stage: str, *rest: object) -> None:
        if stage == "uniform-3 recovered":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(load_study(STUDY), place, progress=stop)
    seen: list[str] = []
    run_study(load_study(STUDY), place, progress=lambda stage, *_: seen.append(stage))
    assert seen[0] == "uniform-3 recovered"
    # The dense network of a seed is trained once, but for the variant with a model of its own.
    trained = [stage for stage in seen if stage.endswith(" train")]
    assert set(trained) == {"narrow-3 train", "recipe-4 train", "narrow-4 train"}
    return place


def test_the_table_is_of_the_records(folder: Path) -> None:
    table = json.loads((folder / "study.json").read_text())
    assert table["seeds"] == list(SEEDS)
    assert tuple(table["variants"]) == VARIANTS
    for name, row in table["variants"].items():
        records = [json.loads((folder / f"{name}-{s}" / "record.json").read_text()) for s in SEEDS]
        drops = [
            r["results"]["dense int8"]["accuracy"] - r["results"]["model int8"]["accuracy"]
            for r in records
        ]
        assert row["drop"]["mean"] == statistics.fmean(drops)
        assert row["drop"]["deviation"] == statistics.stdev(drops)
        images = [api.load(folder / f"{name}-{s}" / "model.sec") for s in SEEDS]
        assert row["cycles"]["mean"] == statistics.fmean(i.metadata["cycles"] for i in images)
        assert row["cycles"]["mean"] <= (1500 if name != "narrow" else 2000)
    removed = json.loads((folder / "channels-3" / "record.json").read_text())["results"]["widths"]
    assert removed["second"][1] < removed["second"][0]


@pytest.mark.long
def test_sharing_the_dense_network_changes_nothing(folder: Path, tmp_path: Path) -> None:
    text = TINY.read_text().replace("[prune]", '[prune]\nmethod = "uniform"')
    (tmp_path / "alone.toml").write_text(text)
    run_recipe(load_recipe(tmp_path / "alone.toml"), tmp_path / "alone")
    alone, shared = (api.load(f / "model.sec") for f in (tmp_path / "alone", folder / "uniform-3"))
    assert alone.stream == shared.stream


def test_what_shares_a_dense_network(tmp_path: Path) -> None:
    """All that train it alike; not those that rewind to early weights, which it must keep."""
    (tmp_path / "tiny.toml").write_text(TINY.read_text())
    variants = 'recipe = "tiny.toml"\nseeds = [3]\n'
    for name, text in {
        "uniform": 'prune.method = "uniform"',
        "recovered": "recover.epochs = 9",
        "rewound": 'prune.schedule = "rewind"\nprune.epochs = 3',
        "later": 'prune.schedule = "rewind"\nprune.epochs = 3\nprune.rewind_to = 2',
        "longer": "train.epochs = 3",
        "quantised": "qat.epochs = 3",
    }.items():
        variants += f"[variants.{name}]\n{text}\n"
    (tmp_path / "study.toml").write_text(variants)
    runs = load_study(tmp_path / "study.toml").runs
    digests = {name: recipes[3].dense_digest for name, recipes in runs.items()}
    assert digests["recipe"] == digests["uniform"] == digests["recovered"]
    others = ("recipe", "rewound", "later", "longer", "quantised")
    assert len({digests[name] for name in others}) == len(others)


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe whose data print something."""
    data = parts.data
    monkeypatch.setattr(parts, "data", lambda seed: print("loaded") or data(seed))


def test_the_command_shows_a_finished_run(folder: Path, noisy: None) -> None:
    line = ["prune", str(TINY), "-o", str(folder / "recipe-3"), "--resume"]
    found = CliRunner().invoke(app, [*line, "--json"])
    assert json.loads(found.stdout)["gate"] is None
    assert "loaded" in found.stderr
    assert "loaded" in CliRunner().invoke(app, line).stdout
    assert listed("prune", folder / "recipe-3")
    assert CliRunner().invoke(app, [*line, "--cycles", "9", "--json"]).stdout == ""


def test_the_command_shows_a_finished_study(folder: Path, noisy: None) -> None:
    found = CliRunner().invoke(app, ["study", str(STUDY), "-o", str(folder), "--json"])
    assert found.exit_code == 0
    assert "loaded" in found.stderr
    assert tuple(json.loads(found.stdout)["variants"]) == VARIANTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = [0]", "recipe must be the path of a recipe"),
        ('recipe = "tiny.toml"\nseeds = 3', "seeds must be a list of integers"),
        ('recipe = "tiny.toml"\nseeds = []', "seeds must be a list of integers"),
        ('recipe = "tiny.toml"\nseeds = [0]\nvariant = 1', "unknown key variant"),
        ('recipe = "tiny.toml"\nseeds = [0]\nvariants = 1', "variants must be tables"),
        ('recipe = "tiny.toml"\nseeds = [1, 1]', "seeds must differ"),
        ('recipe = "tiny.toml"\nseeds = [1]\n[variants."../x".prune]', "variant '../x' must be"),
        ('recipe = "none.toml"\nseeds = [0]', "none.toml: cannot be read"),
        (
            'recipe = "tiny.toml"\nseeds = [0]\n[variants.a.prune]\nmethod = "best"',
            "study.toml, variant a: prune.method",
        ),
    ],
)
def test_refused_studies(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.read_text())
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(SecateurError, match=message):
        load_study(tmp_path / "study.toml")


@pytest.mark.parametrize("failing", ["recipe-4", "uniform-4"])
def test_the_gate_is_for_the_recipe_itself(failing: str, folder: Path, monkeypatch) -> None:
    """Its runs must keep to ``max_drop``; a baseline may lose what it loses."""

    def again(recipe: Recipe, place: Path, **options: object) -> dict[str, object]:
        record = json.loads((place / "record.json").read_text())
        return record | ({"gate": "accuracy fell"} if place.name == failing else {})

    monkeypatch.setattr(study, "run_held", again)
    ran = CliRunner().invoke(app, ["study", str(STUDY), "-o", str(folder)])
    assert "uniform" in ran.output
    if failing == "recipe-4":
        assert str(ran.exception) == "recipe-4: accuracy fell"
    else:
        assert ran.exit_code == 0
