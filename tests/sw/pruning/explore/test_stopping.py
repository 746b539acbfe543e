"""Trials that are stopped early: by earlier ones that cost no more, never by who is ready first."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.pruning.explore import explore as exploring
from secateur.pruning.explore.explore import explore
from secateur.pruning.explore.plan import Carrier, Plan, load_plan
from secateur.pruning.explore.stopping import LEAST, bars_of
from secateur.pruning.explore.trial import run_trial

DATA = Path(__file__).parents[3] / "data"
BOARDS = {"slow": Carrier("8x3", 50.0), "fast": Carrier("8x3", 100.0)}


def plan_of(**changes: Any) -> Plan:
    plan = load_plan(DATA / "tiny-explore.toml")
    return replace(plan, **{"stop_below": 50.0, "objectives": ("accuracy", "cycles"), **changes})


def values(cycles: int, target: str = "8x3") -> dict[str, Any]:
    return {"target": target, "budget.cycles": cycles, "prune.criterion": "l2"}


def results(**accuracies: float) -> dict[str, Any]:
    return {name: {"accuracy": value, "loss": 1.0} for name, value in accuracies.items()}


def four(given: dict[str, Any], *accuracies: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(given, results(float=value)) for value in accuracies]


def test_a_bar_is_the_percentile_of_earlier_trials() -> None:
    earlier = four(values(3000), 0.5, 0.9, 0.7, 0.6)
    assert bars_of(plan_of(), values(3000), earlier) == {"float": pytest.approx(0.65)}
    assert bars_of(plan_of(stop_below=25.0), values(3000), earlier)["float"] == 0.575
    assert bars_of(plan_of(stop_below=None), values(3000), earlier) == {}
    assert len(earlier) == LEAST
    assert bars_of(plan_of(), values(3000), earlier[1:]) == {}
    recovered = [(values(3000), results(recovered=0.5, pruned=0.25, losses=0.0))] * LEAST
    assert bars_of(plan_of(), values(3000), recovered) == {"pruned": 0.25, "recovered": 0.5}


def test_only_trials_that_cost_no_more_count() -> None:
    earlier = four(values(3000), 0.5, 0.9, 0.7, 0.6)
    assert bars_of(plan_of(), values(2999), earlier) == {}
    assert bars_of(plan_of(), values(4000), earlier) != {}
    # Of the targets those figures count that are objectives.
    small = [(values(3000), results(float=0.5))] * LEAST
    large = [(values(3000, "8x8"), results(float=0.9))] * LEAST
    plan = plan_of(objectives=("accuracy", "multipliers"))
    assert bars_of(plan, values(3000), [*small, *large]) == {"float": 0.5}
    assert bars_of(plan, values(3000, "8x8"), [*small, *large]) == {"float": 0.7}
    assert bars_of(plan_of(), values(3000), [*small, *large]) == {"float": 0.7}


def test_a_trial_that_cannot_run_has_no_bar_and_says_why(tmp_path: Path) -> None:
    plan, wrong = plan_of(), values(3000, "no-target")
    assert bars_of(plan, wrong, four(values(3000), 0.5, 0.9, 0.7, 0.6)) == {}
    assert "no-target" in run_trial(plan, wrong, tmp_path, {})["problem"]


def test_a_slower_board_costs_more_milliseconds() -> None:
    plan = plan_of(objectives=("accuracy", "milliseconds"), boards=BOARDS)
    slow, fast = ({"board": name, "budget.cycles": 3000} for name in BOARDS)
    earlier = [(slow, results(float=0.5))] * LEAST
    assert bars_of(plan, fast, earlier) == {}
    assert bars_of(plan, slow, earlier) == {"float": 0.5}
    assert bars_of(replace(plan, objectives=("accuracy", "cycles")), fast, earlier) != {}


def test_a_latency_is_cycles_at_its_clock() -> None:
    plan = plan_of(boards=BOARDS)
    slow, fast = (
        {"board": name, "budget.clock_mhz": 1.0, "budget.latency_ms": 0.1} for name in BOARDS
    )
    recipe = {key: value for key, value in plan.recipe.items() if key != "budget"} | {"budget": {}}
    plan = replace(plan, recipe=recipe)
    earlier = [(fast, results(float=0.5))] * LEAST
    assert bars_of(plan, slow, earlier) == {}
    assert bars_of(plan, fast, earlier) == {"float": 0.5}
    by_cycles = {"board": "slow", "budget.cycles": 10_000}
    assert bars_of(plan, by_cycles, earlier) == {"float": 0.5}
    assert bars_of(plan, by_cycles | {"budget.cycles": 9_999}, earlier) == {}


def test_a_trial_below_its_bar_stops_and_does_so_again(tmp_path: Path) -> None:
    plan = plan_of()
    for _ in range(2):  # the second resumes
        found = run_trial(plan, values(3000), tmp_path, {"recovered": 0.0, "float": 1.01})
        assert found.keys() == {"stopped"}
        assert found["stopped"].startswith("float: accuracy ")
        assert found["stopped"].endswith("%, below 101.00%")
    assert not list(tmp_path.glob("*.sec"))


class Client:
    """Makes what it was given when a first result is asked for, from either end."""

    def __init__(self, step: int) -> None:
        self.step, self.waiting = step, list[Future]()

    def submit(self, call: Callable[..., Any], *given: Any, **_: object) -> Future:
        self.waiting.append(Future(self, call, given))
        return self.waiting[-1]


@dataclass
class Future:
    client: Client
    call: Callable[..., Any]
    given: tuple[Any, ...]
    found: Any = None

    def result(self) -> Any:
        for future in self.client.waiting[:: self.client.step]:
            future.found = future.call(*future.given)
        self.client.waiting = []
        return self.found


def fake_trial(
    plan: Plan, values: dict[str, Any], folder: Path, bars: dict[str, float]
) -> dict[str, Any]:
    """Cheap trials and such with another criterion are less accurate."""
    accuracy = values["budget.cycles"] / 10_000 - 0.2 * (values["prune.criterion"] == "l2")
    if accuracy < bars.get("recovered", 0.0):
        return {"stopped": f"{accuracy} {bars['recovered']}"}
    folder.mkdir(exist_ok=True)
    (folder / "record.json").write_text(json.dumps({"results": results(recovered=accuracy)}))
    return {"accuracy": accuracy, "cycles": values["budget.cycles"]}


def faked(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def client_of(*_: object) -> Iterator[Client]:
        yield Client(step)

    monkeypatch.setattr(exploring, "client_of", client_of)
    monkeypatch.setattr(exploring, "run_trial", fake_trial)


def explored(
    plan: Plan, folder: Path, step: int, monkeypatch: pytest.MonkeyPatch, stop: int | None = None
) -> dict[str, Any]:
    def progress(stage: str, done: int, total: int, note: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    faked(step, monkeypatch)
    return explore(plan, folder, progress=progress)


def test_neither_order_nor_interruption_changes_what_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"target": ["8x3"], "budget.cycles": [3000, 3400], "prune.criterion": ["l2", "taylor"]}
    plan = plan_of(trials=24, batch=4, seed=3, space=space)
    first = explored(plan, tmp_path / "first", 1, monkeypatch)
    last = explored(plan, tmp_path / "last", -1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        explored(plan, tmp_path / "stopped", 1, monkeypatch, stop=14)
    again = explored(plan, tmp_path / "stopped", -1, monkeypatch)
    assert first["trials"] == last["trials"] == again["trials"]
    assert first["front"] == last["front"] == again["front"]
    stopped = [trial for trial in first["trials"] if "stopped" in trial]
    assert 0 < len(stopped) < 12
    for trial in first["trials"]:
        check(trial, first["trials"][: trial["number"] // 4 * 4])
    assert not {trial["number"] for trial in stopped} & set(first["front"])


def test_the_command_says_how_many_were_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DATA / "tiny-explore.toml").read_text().replace("trials = 4", "trials = 24")
    for old, new in (("batch = 2", "batch = 4\nseed = 3\nstop_below = 50"), (', "8x3"]', "]")):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "explore.toml").write_text(text.replace(', "picojoules"]', "]"))
    (tmp_path / "tiny-one-shot.toml").write_text((DATA / "tiny-one-shot.toml").read_text())
    faked(1, monkeypatch)
    ran = CliRunner().invoke(app, ["explore", str(tmp_path / "explore.toml"), "-o", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    trials = json.loads((tmp_path / "explore.json").read_text())["trials"]
    stopped = sum("stopped" in trial for trial in trials)
    assert stopped
    assert f"24 trials, 0 failed, {stopped} stopped early." in ran.output


def check(trial: dict[str, Any], before: list[dict[str, Any]]) -> None:
    """A trial is stopped by the median of complete trials of the batches before, and not else."""
    own = trial["values"]
    no_more = [
        other["accuracy"]
        for other in before
        if "accuracy" in other and other["cycles"] <= own["budget.cycles"]
    ]
    if "stopped" in trial:
        accuracy, bar = map(float, trial["stopped"].split())
        assert len(no_more) >= LEAST
        assert accuracy < bar == pytest.approx(statistics.median(no_more))
    else:
        assert len(no_more) < LEAST or trial["accuracy"] >= statistics.median(no_more)


def test_a_record_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(trials=4, batch=4)
    explored(plan, tmp_path, 1, monkeypatch)
    (tmp_path / "trial-0002" / "record.json").write_text("[]")
    with pytest.raises(SecateurError, match=r"record\.json: not a record; delete"):
        explored(replace(plan, trials=8), tmp_path, 1, monkeypatch)
