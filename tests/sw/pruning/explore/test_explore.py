"""Exploration: the same trials whatever dies, stops, or works beside; and what is refused."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from distributed import LocalCluster

from secateur import api
from secateur.boards.catalogue.catalogue import BOARDS as BOARDS_HERE
from secateur.cli.boards import carriers
from secateur.errors import SecateurError
from secateur.pruning.explore.explore import distributions, explore
from secateur.pruning.explore.plan import Carrier, Plan, load_plan
from secateur.pruning.explore.trial import measured
from secateur.report.energy import estimate
from secateur.target import PRESETS, Target
from tests import killing
from tests.sw.report.made import image_of

DATA = Path(__file__).parents[3] / "data"


@pytest.fixture(autouse=True)
def modules_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", killing.PATHS)


def images(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("trial-*/*.sec"))]


@pytest.mark.long
def test_neither_death_nor_interruption_nor_workers_change_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of a scheduler over TCP, one killed within a trial; and one, stopped between."""
    plan = load_plan(DATA / "tiny-explore.toml")
    killed = tmp_path / "killed"
    monkeypatch.setenv(killing.VARIABLE, str(killed))
    with LocalCluster(
        n_workers=2, threads_per_worker=1, protocol="tcp", host="127.0.0.1",
        dashboard_address=":0", silence_logs=logging.CRITICAL,
    ) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        assert address.startswith("tcp://127.0.0.1:")
        assert not killed.exists()
        two = explore(plan, tmp_path / "two", scheduler=address)
    assert killed.exists()
    assert [trial["number"] for trial in two["trials"]] == [0, 1, 2, 3]
    assert all("problem" not in trial for trial in two["trials"])

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(plan, tmp_path / "one", progress=stop)
    assert not (tmp_path / "one" / "explore.json").exists()
    one = explore(plan, tmp_path / "one")
    assert one["trials"] == two["trials"]
    assert one["front"] == two["front"]
    assert images(tmp_path / "one") == images(tmp_path / "two")
    assert len(images(tmp_path / "one")) == 8
    check(plan, tmp_path / "one", one)


def check(plan: Plan, folder: Path, found: dict[str, Any]) -> None:
    """What the trials are said to have are their images' figures; the front is not beaten."""
    signs = {"accuracy": -1, "cycles": 1, "picojoules": 1}
    points = []
    for trial in found["trials"]:
        place = folder / f"trial-{trial['number']:04}"
        record = json.loads((place / "record.json").read_text())
        image = api.load(place / "model.sec")
        assert trial["accuracy"] == record["columns"]["model"]["accuracy"]
        assert trial["cycles"] == image.cycles <= trial["values"]["budget.cycles"]
        assert trial["picojoules"] == estimate(image)["pruned"]["picojoules"]["total"]
        assert image.metadata["target"] == trial["values"]["target"]
        assert record["recipe"]["prune"]["criterion"] == trial["values"]["prune.criterion"]
        points.append([signs[name] * trial[name] for name in plan.objectives])
    for number, point in enumerate(points):
        beaten = any(
            all(a <= b for a, b in zip(other, point, strict=True)) and other != point
            for other in points
        )
        assert beaten == (number not in found["front"])
    assert json.loads((folder / "explore.json").read_text()) == found
    with pytest.raises(SecateurError, match="holds another exploration"):
        explore(other_seed(plan), folder)


def other_seed(plan: Plan) -> Plan:
    return Plan(**{**vars(plan), "seed": plan.seed + 1})


def test_a_budget_out_of_reach_fails_its_trial_alone(tmp_path: Path) -> None:
    for name in ("tiny-explore.toml", "tiny-one-shot.toml"):
        (tmp_path / name).write_text((DATA / name).read_text())
    file = tmp_path / "tiny-explore.toml"
    text = file.read_text().replace("{ low = 2600, high = 4200, step = 400 }", "[10, 3000]")
    file.write_text(text.replace('target = ["8x8", "8x3"]', 'target = ["8x8"]'))
    plan = load_plan(file, 2)
    # A seed with which each of both budgets is drawn once.
    found = explore(Plan(**{**vars(plan), "seed": 4}), tmp_path / "out")
    by_budget = {trial["values"]["budget.cycles"]: trial for trial in found["trials"]}
    assert set(by_budget) == {10, 3000}
    assert "cycles" in by_budget[10]["problem"]
    assert "accuracy" not in by_budget[10]
    assert found["front"] == [by_budget[3000]["number"]]


BOARDS = {"large": Carrier("8x8", 150.0), "small": Carrier("8x3", 50.0)}


def with_boards(folder: Path, *changes: tuple[str, str]) -> Path:
    """The tiny exploration with boards in the place of targets, and a latency as the budget."""
    recipe = (DATA / "tiny-one-shot.toml").read_text()
    latency = "latency_ms = 0.03\nclock_mhz = 100"
    (folder / "tiny-one-shot.toml").write_text(recipe.replace("cycles = 1500", latency))
    text = (DATA / "tiny-explore.toml").read_text()
    text = text.replace("target = [", "board = [").replace('"8x8", "8x3"', '"large", "small"')
    text = text.replace("[space.budget]\ncycles = { low = 2600, high = 4200, step = 400 }\n", "")
    for change in changes:
        assert change[0] in text
        text = text.replace(*change)
    (folder / "explore.toml").write_text(text)
    return folder / "explore.toml"


def test_a_board_stands_for_its_target_and_its_clock(tmp_path: Path) -> None:
    plan = load_plan(with_boards(tmp_path), boards=BOARDS | {"other": Carrier("8x16", 1.0)})
    assert plan.boards == BOARDS
    for name, target, mhz in (("large", "8x8", 150.0), ("small", "8x3", 50.0)):
        recipe = plan.recipe_with({"board": name, "prune.criterion": "l2"})
        assert (recipe.target, recipe.budget.clock_mhz) == (target, mhz)
        assert (recipe.budget.latency_ms, recipe.prune.criterion) == (0.03, "l2")
        assert plan.clock_of({"board": name}) == mhz
    other = load_plan(with_boards(tmp_path), boards=BOARDS | {"small": Carrier("8x3", 40.0)})
    assert other.digest != plan.digest
    by_cycles = load_plan(DATA / "tiny-explore.toml")
    assert by_cycles.clock_of({"target": "8x3"}) == 100.0
    assert by_cycles.recipe_with({"budget.cycles": 3000}).budget.clock_mhz is None


def test_the_boards_of_the_command_have_presets() -> None:
    found = carriers()
    assert found["ulx3s-25f-8x8"] == Carrier("8x8-25f", 125.0)
    assert found.keys() <= BOARDS_HERE.keys()
    for name, carrier in found.items():
        assert PRESETS[carrier.target].geometry == BOARDS_HERE[name].geometry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"small"', '"tiny"'), "space.board must be some of large, small, not 'tiny'"),
        (('["large", "small"]', "[3]"), "space.board must be some of large, small, not 3"),
        (('["large", "small"]', "{low = 1, high = 2}"), "must be some of large, small, not {"),
        (("[space]", "[space]\ntarget = ['8x8']"), "omit space.target, clock_mhz"),
        (("batch = 2", "batch = 2\nclock_mhz = 9"), "omit space.target, clock_mhz"),
    ],
)
def test_wrong_boards_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SecateurError) as refused:
        load_plan(with_boards(tmp_path, change), boards=BOARDS)
    assert message in str(refused.value)


def test_without_boards_none_is_known(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="must be some of none, not 'large'"):
        load_plan(with_boards(tmp_path))


def test_ranges_are_whole_where_their_ends_are() -> None:
    plan = load_plan(DATA / "tiny-explore.toml")
    space = {"a": {"low": 1, "high": 8, "log": True}, "b": {"low": 0.0, "high": 1}, "c": [1, "x"]}
    found = distributions(Plan(**{**vars(plan), "space": space}))
    assert found == {
        "a": optuna.distributions.IntDistribution(1, 8, log=True),
        "b": optuna.distributions.FloatDistribution(0.0, 1),
        "c": optuna.distributions.CategoricalDistribution([1, "x"]),
    }


def test_milliseconds_and_memory_are_those_of_the_target() -> None:
    image = copy.deepcopy(image_of(0))
    found = measured(0.5, image, Target(name="own", geometry=image.geometry, hard=28), 50.0)
    assert found["milliseconds"] == image.cycles / 50e3
    image.metadata["layers"][0]["memory_wait"] = {"next": 500}
    again = measured(0.5, image, Target(name="own", geometry=image.geometry), 50.0)
    assert again["milliseconds"] == (image.cycles + 500) / 50e3
    assert again["cycles"] == image.cycles
    assert found["multipliers"] == 28
    assert found["memory_bits"] == 72 * (1 << 16) + 8 * 64 * 4096
    assert found["rom_bytes"] == len(image.words) * 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials = 4", "trials = 3"), "trials must be a multiple of batch = 2, not 3"),
        (("batch = 2", "batch = 0"), "batch must be a whole number, not 0"),
        (("batch = 2", "bunch = 2"), "unknown key bunch"),
        (('"accuracy", "cycles", ', '"speed", '), "objectives must be some of accuracy, cycles"),
        (('target = ["8x8", "8x3"]', "target = []"), "space.target must be a list of values, or"),
        (("low = 2600, ", ""), "space.budget.cycles.high must be a list of values"),
        (("low = 2600", "low = 5000"), "low and high must be numbers, low below high"),
        (("step = 400", "step = 0"), "step must be above 0"),
        (("criterion = ", "criterium = "), "criterium"),
        (('"l2", ', '"l3", '), "prune.criterion must be one of"),
        (('recipe = "tiny-one-shot.toml"', "recipe = 3"), "recipe must be the path of a recipe"),
        (
            ("batch = 2", "batch = 2\nclock_mhz = 0"),
            "clock_mhz must be a number above 0 and below 1,000,000, not 0",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    for name in ("tiny-explore.toml", "tiny-one-shot.toml"):
        (tmp_path / name).write_text((DATA / name).read_text())
    file = tmp_path / "tiny-explore.toml"
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(SecateurError) as refused:
        load_plan(file)
    assert message in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_no_scheduler_and_no_storage_are_one_line(tmp_path: Path) -> None:
    plan = load_plan(DATA / "tiny-explore.toml")
    with pytest.raises(SecateurError, match="nowhere://x: no Dask scheduler"):
        explore(plan, tmp_path / "a", scheduler="nowhere://x")
    with pytest.raises(SecateurError, match="--storage: no storage of Optuna's"):
        explore(plan, tmp_path / "b", storage="nothing")
