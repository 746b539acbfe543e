"""Recipes: one run through everything, interrupted and resumed, refused, gated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from secateur import api
from secateur.callables import imported
from secateur.cli.main import app
from secateur.errors import SecateurError
from secateur.pruning.channels.reorder import reorder
from secateur.pruning.criteria.criteria import criterion_of
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes import checkpoint, run
from secateur.pruning.recipes.cutting import BlockCuts
from secateur.pruning.recipes.data.data import Data, Split
from secateur.pruning.recipes.evidence import EVIDENCE
from secateur.pruning.recipes.recipe import load_recipe
from secateur.pruning.recipes.run import run_recipe
from secateur.pruning.recipes.state import RunState
from tests import parts

TINY = Path(__file__).parents[3] / "data" / "tiny.toml"


def digest(folder: Path) -> str:
    return hashlib.sha256(api.load(folder / "model.sec").stream).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run_recipe(load_recipe(TINY), folder)
    assert torch.equal(torch.get_rng_state(), state)
    return folder


def test_the_image_meets_the_budget(whole: Path) -> None:
    record = json.loads((whole / "record.json").read_text())
    image = api.load(whole / "model.sec")
    assert image.metadata["cycles"] <= 1500
    assert image.metadata["cycles"] >= 0.97 * 1500
    assert record["budget"]["spent"]["cycles"] == image.metadata["cycles"]
    assert record["columns"]["dense"]["cycles"] > 2 * 1300
    split = parts.data(3)
    outputs = api.run(image, split["test_x"].numpy()).values
    right = (torch.from_numpy(outputs).argmax(1) == split["test_y"]).double().mean()
    assert record["results"]["model int8"]["accuracy"] == float(right)
    assert record["results"]["model int8"]["masked_weights"] > 0
    assert record["results"]["model int8"]["image_sha256"] == digest(whole)
    assert record["environment"]["torch"] == torch.__version__
    assert record["gate"] is None
    assert {row["what"] for row in record["robustness"]} == {
        "fgsm", "pgd", "noise", "blur", "contrast",
    }  # fmt: skip
    assert not list(whole.glob("*.pkl")) + list(whole.glob("*.pt"))


def test_interrupted_and_resumed_it_makes_the_same_image(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the second epoch of pruning, and after the first of the last training."""
    recipe, calls = load_recipe(TINY), 0
    brightened = parts.brightened

    def stop_in_an_epoch(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # One batch to check it; then 16 batches an epoch: train, QAT of dense, prune.
        if calls == 1 + 16 * (2 + 2 + 1) + 5:
            raise KeyboardInterrupt
        return brightened(x, generator)

    def stop_after_an_epoch(stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == ("qat model", 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(parts, "brightened", stop_in_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path)
    seen: list[str] = []
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(
            recipe, tmp_path, resume=True,
            progress=lambda *a: (seen.append(a[0]), stop_after_an_epoch(*a))[0],
        )  # fmt: skip
    assert seen == ["prune", "pruned", "recover", "recovered", "qat model"]
    assert not (tmp_path / "model.sec").exists()
    torch.manual_seed(6)
    run_recipe(recipe, tmp_path, resume=True)
    assert digest(tmp_path) == digest(whole)
    first = json.loads((whole / "record.json").read_text())
    second = json.loads((tmp_path / "record.json").read_text())
    first.pop("folder")
    second.pop("folder")
    assert first == second
    assert (tmp_path / EVIDENCE).read_bytes() == (whole / EVIDENCE).read_bytes()


def test_the_gate_fails_the_command(whole: Path, tmp_path: Path) -> None:
    """A finished run, in which the dense network is said to be right always."""
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors, data = checkpoint.read(tmp_path / "running.json")
    data["results"]["dense int8"]["accuracy"] = 1.0
    data["results"]["model int8"]["accuracy"] = 0.985
    checkpoint.write(tmp_path / "running.json", tensors, data)
    command = ["prune", str(TINY), "-o", str(tmp_path), "--resume", "--max-drop"]
    passed = CliRunner().invoke(app, [*command, "1.5"])
    assert passed.exit_code == 0
    assert "98.50%" in passed.output
    failed = CliRunner().invoke(app, [*command, "1.4"])
    assert failed.exit_code == 1
    assert isinstance(failed.exception, SecateurError)
    assert "accuracy fell by 1.50 points" in str(failed.exception)
    assert "accuracy fell" in json.loads((tmp_path / "record.json").read_text())["gate"]


def test_another_budget_does_not_resume(whole: Path) -> None:
    other = load_recipe(TINY, budget={"cycles": 1600})
    with pytest.raises(SecateurError, match="another folder, or delete it"):
        run_recipe(other, whole, resume=True)


def test_a_budget_out_of_reach_is_refused_before_training(tmp_path: Path) -> None:
    stages: list[str] = []
    recipe = load_recipe(TINY, budget={"cycles": 100})
    with pytest.raises(SecateurError, match="100 cycles cannot be reached: "):
        run_recipe(recipe, tmp_path / "out", progress=lambda stage, *_: stages.append(stage))
    assert stages == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sed = 3", r"unknown key sed; did you mean seed\? a recipe has model, data"),
        ("seed = 3", "zzz = 3", "unknown key zzz; a recipe has model, data"),
        (
            "reorder = true",
            'normalise = "lamp"',
            r"prune.normalise; did you mean prune.normalize\?",
        ),
        ("batch = 10", 'optimiser = "sgd"', r"optimiser; did you mean training.optimizer\?"),
        ("[quantize]", "[quantise]", r"unknown key quantise; did you mean quantize\?"),
        ("steps = 3", 'steps = "3"', "prune.steps must be int"),
        ("batch = 10", "batch = -1", "training.batch must be int, 0 or more, not -1"),
        ("[verify]", "[verify", "not a TOML file"),
        ('build = "tests.parts:model"', "", "model.build is missing"),
        ('criterion = "taylor"', 'schedule = "late"', "or 'rewind', not 'late'"),
        ('criterion = "taylor"', 'schedule = "rewind"', "must be a multiple of prune.steps"),
        ("steps = 3", 'steps = 2\nrewind_to = 3\nschedule = "rewind"', "must be an epoch of train"),
        ("steps = 3", "steps = 0", "prune.steps must be at least 1"),
        ("steps = 3", "copies = -1", "prune.copies must be int, 0 or more, not -1"),
        ('criterion = "taylor"', 'method = "all"', "'element' or 'none', not 'all'"),
        ("[prune]", "[channels]\nfit = true\ndensity = 0.5\n[prune]", "omit channels.density"),
        ('criterion = "taylor"', 'criterion = "tailor"', "prune.criterion must be one of l1"),
        ("batch = 10", "batch = 0", "training.batch must be at least 1"),
        ("batch = 10", 'precision = "half"', "must be 'float32' or 'bfloat16', not 'half'"),
        ("learning_rate = 5e-3", "learning_rate = nan", "recover.learning_rate must be float"),
        ("learning_rate = 5e-3", "learning_rate = -1", "recover.learning_rate must be float"),
        ("learning_rate = 5e-3", "distil = 1.5", "recover.distil must be a share"),
        ("learning_rate = 5e-3", "temperature = 0", "recover.temperature must be above 0"),
        ("corruptions = [3]", "corruptions = [9]", "severities 1 to 5"),
        ("sensitivity = [0.5]", "sensitivity = [1.5]", "densities to 1"),
        ("corruptions = [3]", "low = 2.0\nhigh = 1.0", "verify.low must be below verify.high"),
        ("corruptions = [3]", "low = nan", "verify.low must be float, .*not nan"),
        ("corruptions = [3]", "low = 0.5", "are 0.5 and 1, the held-out samples range from 0 to 1"),
        ("pgd_steps = 2", "pgd_steps = 0", "verify.pgd_steps must be at least 1"),
        ("[train]", "[train]\ndistil = 0.5", "train.distil must be 0: there is no dense"),
        ("learning_rate = 1e-3", "lasso = 0.1", "qat.lasso must be 0: give it to prune"),
        (
            "cycles = 1500",
            "density = 0.5\n[channels]\nfit = true",
            "channels.fit finds the widths for cycles, .* not for budget.density",
        ),
        ('criterion = "taylor"', 'method = "none"', "the network takes .* cycles and .* bytes"),
        (
            "cycles = 1500",
            "cycles = 500\n[channels]\nfit = true",
            "cannot be met with one density .*: [0-9,]+ cycles and .* are the least; .* second",
        ),
        ("tests.parts:data", "tests.parts:large_labels", "class numbers below 4"),
        ("tests.parts:data", "tests.parts:other_size", "samples of .* to train, of"),
        ("tests.parts:model", "tests.parts:no", "model.build = 'tests.parts:no'"),
        ("[qat]", '[qat]\naugment = "tests.parts:no"', "qat.augment = 'tests.parts:no'"),
        ("tests.parts:model", "tests.parts:not_callable", "is not callable"),
        ("tests.parts:data", "tests.parts:model", "train_x must be a tensor"),
        ('build = "tests.parts:model"', 'build = "mine"', "build = 'mine' names no callable; give"),
        ("tests.parts:model", "tests.parts:Net", "'tests.parts:Net' is a class; give a function"),
        ("tests.parts:model", "tests.parts:seedless", "TypeError: .*give a function of the seed"),
        ("tests.parts:data", "tests.parts:doubles", "train_x is torch.float64; give float32"),
        (
            "tests.parts:data",
            "tests.parts:colours",
            r"build = '.*:model' does not take the samples of data.load, of shape \(3, 8",
        ),
        (
            "tests.parts:data",
            "tests.parts:failing",
            "^data.load = '.*:failing' fails when it is called: KeyError: 'missing'$",
        ),
        ("brightened", "nothing", "data.augment must return a batch .*, not NoneType"),
        ("brightened", "cropped", r"data.augment must .* not torch.float32 \(10, 2, 8, 7\)"),
        ("batch = 10", 'batch = 10\nloss = "tests.parts:losses"', "training.loss = .* one number"),
        ("batch = 10", 'batch = 10\nloss = "tests.parts:constant"', "a tensor with gradient"),
        ('criterion = "taylor"', 'normalize = "foo"', "prune.normalize must be 'share' or 'lamp'"),
        (
            "[prune]",
            "[channels]\ndensity = 0.0\n[prune]",
            "channels.density must be a share above 0",
        ),
        ("samples = 40", "samples = 0", "prune.samples must be at least 1"),
        ("samples = 64", "samples = 0", "quantize.samples must be at least 1"),
        ('criterion = "taylor"', 'criterion = "batchnorm"', r"^\[prune\] layer 'second'"),
    ],
)
def test_refused_recipes(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "recipe.toml"
    text = TINY.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    stages: list[str] = []
    with pytest.raises(SecateurError, match=message) as caught:
        run_recipe(load_recipe(file), tmp_path / "out", progress=lambda *a: stages.append(a[0]))
    assert "\n" not in str(caught.value)
    assert "train" not in stages


def test_copies_need_an_augmentation(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(TINY.read_text().replace("steps = 3", "steps = 3\ncopies = 1"))
    assert load_recipe(file).prune.copies == 1
    file.write_text(file.read_text().replace('augment = "tests.parts:brightened"\n', ""))
    with pytest.raises(SecateurError, match=r"prune\.copies must be 0 without prune\.augment or"):
        load_recipe(file)


def test_a_stage_has_its_own_augmentation(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "recipe.toml"
    own = '[recover]\naugment = "tests.parts:counted"'
    file.write_text(TINY.read_text().replace("[recover]", own))
    recipe = load_recipe(file)
    monkeypatch.setattr(parts, "COUNTED", [])
    run_recipe(recipe, tmp_path / "out")
    images = len(parts.data(recipe.seed)["train_y"])
    checked = recipe.training.batch
    assert sum(parts.COUNTED) == checked + recipe.recover.epochs * images > checked


@pytest.mark.long
def test_rewinding_goes_back_to_early_weights(tmp_path: Path) -> None:
    """Right after the last cut: all weights that are left are those of the first epoch."""
    text = TINY.read_text().replace(
        "epochs = 2\nsteps = 3", 'epochs = 6\nsteps = 3\nschedule = "rewind"'
    )
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    recipe = load_recipe(file)

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == ("prune", 4):  # the next batch is the first of the last round
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "out", progress=stop)
    early, _ = checkpoint.read(tmp_path / "out" / "early.json")
    seen: list[dict[str, torch.Tensor]] = []
    moved = parts.model(3)
    checkpoint.load_model_state(moved, early)
    original = BlockCuts.before_batch

    def watch(cuts: BlockCuts, done: int, total: int) -> None:
        original(cuts, done, total)
        if done == total * 2 // 3:
            seen.append({k: v.clone() for k, v in cuts.model.state_dict().items()})
            assert cuts.order is not None
            reorder(moved, parts.data(3)["train_x"][:1], cuts.order.orders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockCuts, "before_batch", watch)
        run_recipe(recipe, tmp_path / "out", resume=True)
    (state,) = seen
    for name, value in state.items():
        if not name.endswith("mask"):
            plain = name.replace("parametrizations.weight.original", "weight")
            assert torch.equal(value, moved.state_dict()[plain]), name
    assert not torch.equal(moved.second.weight, early["model.second.weight"])
    assert any((value == 0).any() for name, value in state.items() if name.endswith("mask"))
    run_recipe(recipe, tmp_path / "whole")
    assert digest(tmp_path / "whole") == digest(tmp_path / "out")
    assert api.load(tmp_path / "out" / "model.sec").metadata["cycles"] <= 1500


def test_the_documented_recipe_is_one() -> None:
    recipe = load_recipe(Path("mnist"), budget={"density": 0.5})
    assert (recipe.budget.cycles, recipe.budget.density) == (22_000, 0.5)
    for name in (recipe.model.build, recipe.data.load, recipe.data.augment):
        assert name is not None
        imported("key", name)


def test_samples_are_drawn_from_all_of_a_sorted_set() -> None:
    y = torch.arange(400) // 100
    x = y[:, None].float()
    data = Data.of(Split(x, y, -x, y), "data")
    for part, sign in ((data.train, 1), (data.test, -1)):
        drawn, labels = part.some(40, seed=0)
        assert torch.equal(drawn[:, 0], sign * labels.float())
        assert set(labels.tolist()) == {0, 1, 2, 3}
        assert torch.equal(labels, part.some(40, seed=0)[1])
    assert sorted(data.train.some(999, seed=1)[1].tolist()) == y.tolist()


def test_optimizers_go_on_from_their_files(tmp_path: Path) -> None:
    """Two steps, a file, one step: as three steps."""

    def steps(
        kind: type[torch.optim.Optimizer], counts: list[int], **settings: float
    ) -> torch.Tensor:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = kind(layer.parameters(), lr=0.1, **settings)  # type: ignore[call-arg]
        for index, count in enumerate(counts):
            if index:
                tensors, data = checkpoint.optimizer_state(optimizer)
                state = tensors | checkpoint.model_state(layer)
                checkpoint.write(tmp_path / "c.json", state, data)
                state, data = checkpoint.read(tmp_path / "c.json")
                layer = torch.nn.Linear(3, 2)
                checkpoint.load_model_state(layer, state)
                optimizer = kind(layer.parameters(), lr=0.5, **settings)  # type: ignore[call-arg]
                checkpoint.load_optimizer_state(optimizer, state, data)
            for _ in range(count):
                optimizer.zero_grad()
                layer(torch.ones(1, 3)).square().sum().backward()
                optimizer.step()
        return layer.weight.detach()

    for kind, settings in ((torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})):
        assert torch.equal(steps(kind, [3], **settings), steps(kind, [2, 1], **settings))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


@pytest.mark.parametrize(("name", "value"), [("budget", "75000"), ("verify", "[1]")])
def test_what_must_be_a_table(tmp_path: Path, name: str, value: str) -> None:
    """Also where an option is to take the place of one of its keys."""
    file = tmp_path / "recipe.toml"
    file.write_text(f'target = "8x8"\n{name} = {value}\nmodel.build = "a:b"\ndata.load = "a:c"\n')
    for options in ({}, {"budget": {"cycles": 5}, "max_drop": 1.0}):
        with pytest.raises(SecateurError, match=rf"recipe\.toml: {name} must be a table"):
            load_recipe(file, **options)


def test_weights_that_are_no_safetensors_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    text = TINY.read_text().replace("[model]", '[model]\nweights = "w.pt"')
    assert "w.pt" in text
    file.write_text(text)
    with pytest.raises(SecateurError, match=r"w\.pt: cannot be read: No such file"):
        run_recipe(load_recipe(file), tmp_path / "out")
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(SecateurError, match=r"w\.pt: not a whole safetensors file"):
        run_recipe(load_recipe(file), tmp_path / "out")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    checkpoint.write(path, {"a": torch.ones(3)}, {})
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(SecateurError, match=f"damaged; delete {tmp_path} and start again"):
        checkpoint.read(path)
    path.write_text("{}")
    with pytest.raises(SecateurError, match="not a checkpoint"):
        checkpoint.read(path)


def test_a_run_that_is_verified_again_knows_its_range(whole: Path) -> None:
    """What is verified may change after training; it is checked all the same."""
    wrong = dataclasses.replace(load_recipe(TINY).verify, low=0.5)
    recipe = dataclasses.replace(load_recipe(TINY), verify=wrong)
    with pytest.raises(SecateurError, match="the held-out samples range from 0 to 1"):
        run_recipe(recipe, whole, resume=True)


def test_the_scan_ranks_by_the_criterion_of_the_recipe(whole: Path, monkeypatch) -> None:
    recipe, found = load_recipe(TINY), []
    state = RunState(recipe, whole, lambda *progress: None)
    state.resume()
    monkeypatch.setattr(run, "sensitivity", lambda *a: found.append(a[2]) or [])
    run._sensitivity(state)
    x, y = state.data.train.some(recipe.prune.samples, recipe.seed)
    batches = list(zip(x.split(10), y.split(10), strict=True))
    criterion = criterion_of("taylor", batches=batches, loss=torch.nn.functional.cross_entropy)
    expected = block_saliency(state.build("float"), 8, criterion)
    assert expected.keys() == found[0].keys()
    assert all(torch.equal(value, found[0][name]) for name, value in expected.items())
