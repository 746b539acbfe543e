"""Recipes of other tasks than classification, on other devices than the processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from secateur import api
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.pruning.explore.study import load_study, run_study
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.task.device import device_of
from tests import tasks

FILE = Path(__file__).parents[3] / "data" / "task.toml"
#: Model, data, loss and metric by task, and the metric's direction.
TASKS = {
    "segmentation": ("segmenter", "scenes", "pixels", "overlap", "max"),
    "anomalies": ("autoencoder", "machine", "reconstruction", "area", "max"),
    "regression": ("fused", "sensors", "errors", "worst", "min"),
}


def written(tmp_path: Path, task: str, *changes: tuple[str, str]) -> Path:
    model, data, loss, metric, direction = TASKS[task]
    text = FILE.read_text()
    for old, new in (
        ("MODEL", model), ("DATA", data), ("LOSS", loss),
        ('METRIC"', f'{metric}"\ndirection = "{direction}"'), *changes,
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / f"{task}.toml"
    file.write_text(text)
    return file


def values_of(image: Any, x: Any) -> Any:
    if isinstance(x, dict):
        values = api.run(image, {name: value.numpy() for name, value in x.items()}).values
        return {name: torch.from_numpy(value) for name, value in values.items()}
    return torch.from_numpy(api.run(image, x.numpy()).values)


@pytest.mark.parametrize("task", TASKS)
def test_every_stage_of_a_task(task: str, tmp_path: Path) -> None:
    """The metric of the image is that of its outputs, computed anew."""
    model, data, _, metric, direction = TASKS[task]
    name = f"tests.tasks:{metric}"
    folder = tmp_path / "out"
    ran = CliRunner().invoke(app, ["prune", str(written(tmp_path, task)), "-o", str(folder)])
    assert ran.exit_code == 0, ran.output + repr(ran.exception)
    record = json.loads((folder / "record.json").read_text())
    found = record["columns"]["model"][name]
    loaded = getattr(tasks, data)(3)
    held = loaded["test"] if "test" in loaded else [(loaded["test_x"], loaded["test_y"])]
    for key in ("dense", "model"):
        image = api.load(folder / f"{key}.sec")

        def run(x: Any = None, of: Any = image, **named: Any) -> Any:
            return values_of(of, x if x is not None else named)

        expected = getattr(tasks, metric)(run, held)
        assert record["columns"][key][name] == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        untrained = getattr(tasks, metric)(getattr(tasks, model)(3).eval(), held)
    assert found < untrained / 2 if direction == "min" else found > (1 + untrained) / 2
    assert record["metric"] == {"name": name, "direction": direction}
    assert record["budget"]["spent"]["blocks"] <= record["budget"]["limits"]["blocks"]
    assert record["agreement"] is None
    assert "loss" not in record["columns"]["model"]
    assert all(row["loss"] > 0 for row in record["sensitivity"])
    assert len(record["sensitivity"]) > 1
    assert f"{metric} " in ran.output
    assert f"{found:.4g}" in ran.output
    assert "accuracy" not in ran.output.lower()


def test_a_task_is_interrupted_and_resumed_to_the_same_image(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "segmentation"))
    whole = run_recipe(recipe, tmp_path / "whole")
    for number in range(1, 12, 4):
        calls = 0

        def stop(*progress: object, number: int = number) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "out", resume=number > 1, progress=stop)
    record = run_recipe(recipe, tmp_path / "out", resume=True)
    assert record["results"] == whole["results"]


def test_a_gate_has_the_units_and_the_direction_of_the_metric(tmp_path: Path) -> None:
    """Fewer blocks make the error larger; in hundredths of it, as for accuracy, it would pass."""
    file = written(tmp_path, "regression", ("density = 0.5", "density = 0.2"))
    folder = str(tmp_path / "out")
    command = ["prune", str(file), "-o", folder, "--resume", "--no-training", "--max-drop"]
    assert CliRunner().invoke(app, [*command, "100"]).exit_code == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    name = "tests.tasks:worst"
    dense, pruned = (record["columns"][key][name] for key in ("dense", "model"))
    assert pruned > dense
    assert CliRunner().invoke(app, [*command, str((pruned - dense) * 1.01)]).exit_code == 0
    failed = CliRunner().invoke(app, [*command, str((pruned - dense) * 0.99)])
    assert failed.exit_code == 1
    assert f"{name} rose by {pruned - dense:.4g}, from {dense:.4g}" in str(failed.exception)


def test_a_study_of_an_error(tmp_path: Path) -> None:
    """What is lost of an error is what it has risen by."""
    written(tmp_path, "regression", ("epochs = 6", "epochs = 1"))
    file = tmp_path / "study.toml"
    file.write_text('recipe = "regression.toml"\nseeds = [3]\n')
    found = run_study(load_study(file), tmp_path / "out")
    row = found["variants"]["recipe"]
    assert row["drop"]["mean"] == row["int8"]["mean"] - row["dense int8"]["mean"]
    shown = CliRunner().invoke(app, ["study", str(file), "-o", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "agreement" not in row


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        ("regression", "worst", "words", "metric = 'tests.tasks:words' must return one number"),
        ("regression", '"min"', '"less"', "training.direction must be 'max' or 'min', not 'less'"),
        ("regression", "sensitivity = [0.5]", "fgsm = [0.1]", "verify.fgsm changes inputs that"),
        ("regression", "sensitivity = [0.5]", "corruptions = [1]", "verify.corruptions changes"),
        ("anomalies", "sensitivity = [0.5]", "corruptions = [1]", "corruptions take images"),
        (
            "regression",
            "batch = 16",
            'batch = 16\ndistillation = "kl"',
            r"prune.distil compares classes, .* not outputs \(16, 1\); give training.distillation",
        ),
        ("anomalies", "batch = 16", 'distillation = "l1"', "'kl' or 'mse', not 'l1'"),
        (
            "anomalies",
            "reconstruction",
            "looking_in",
            "looking_in' fails when it is call",
        ),
        (
            "anomalies",
            'loss = "tests.tasks:reconstruction"\n',
            "",
            "must be class numbers below",
        ),
        (
            "segmentation",
            'loss = "tests.tasks:pixels"\n',
            "",
            "must return a tensor .samples,",
        ),
        ("anomalies", "seed = 3", 'seed = 3\ndevice = "tpu"', "device must be 'auto' or 'cpu' or"),
        (
            "anomalies",
            "seed = 3",
            'seed = 3\ndevice = "cuda"',
            "device = 'cuda': PyTorch finds none here; give 'auto', or one of 'cpu'",
        ),
    ],
)
def test_refused_tasks(
    task: str, old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    file = written(tmp_path, task, (old, new))
    with pytest.raises(SecateurError, match=message) as caught:
        run_recipe(load_recipe(file), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "float.json").exists()


def test_an_image_can_be_attacked_through_its_own_loss(tmp_path: Path) -> None:
    """An autoencoder has one input: its reconstruction is attacked."""
    change = ("sensitivity = [0.5]", "fgsm = [0.0, 0.3]")
    recipe = load_recipe(written(tmp_path, "anomalies", change))
    record = run_recipe(recipe, tmp_path / "out")
    clean, attacked = record["robustness"]
    assert clean["dense"] != attacked["dense"]
    assert {row["what"] for row in record["robustness"]} == {"fgsm"}


def test_the_device_of_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in (
        (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=cuda: found)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda found=mps: found)
        assert device_of("auto").type == expected
        assert device_of("cpu").type == "cpu"
