"""Exploration: the same trials whatever dies, stops, or works beside; and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from distributed import LocalCluster

from secateur import api
from secateur.errors import SecateurError
from secateur.pruning.explore.explore import distributions, explore
from secateur.pruning.explore.plan import Plan, load_plan
from secateur.pruning.explore.trial import measured
from secateur.report.energy import estimate
from tests import killing
from tests.sw.report.made import image_of

DATA = Path(__file__).parents[3] / "data"
ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def modules_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'sw'}:{ROOT}")


def images(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.glob("trial-*/*.sec"))]


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
    image = image_of(0)
    found = measured(0.5, image, load_plan(DATA / "tiny-explore.toml"))
    assert found["milliseconds"] == image.cycles / 100e3
    assert found["multipliers"] == 64
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
        (("batch = 2", "batch = 2\nclock_mhz = 0"), "clock_mhz must be a number above 0, not 0"),
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
