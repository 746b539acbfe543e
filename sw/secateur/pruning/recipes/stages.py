"""The stages of a recipe, from training to the image, in their order: `STAGES`.

A stage is a function of the run's state. It starts from checkpoints of the stages before it, so a
run can be interrupted within any stage, and resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateur.agreement import check_image, some_inputs
from secateur.capture.ports import call_of
from secateur.compiler.compiler import compile_network
from secateur.fx.computed import copied
from secateur.lowering.lower import lower
from secateur.pruning.budget.baselines import keep_all
from secateur.pruning.budget.budget import allocate, make_budgets
from secateur.pruning.budget.costing import CostModel
from secateur.pruning.budget.search import Budgets
from secateur.pruning.criteria.saliency import block_saliency
from secateur.pruning.recipes import checkpoint
from secateur.pruning.recipes.check_image import check_masks
from secateur.pruning.recipes.checks import check_parts, check_range
from secateur.pruning.recipes.cutting import BlockCuts
from secateur.pruning.recipes.state import RunState
from secateur.pruning.recipes.task.device import moved
from secateur.pruning.recipes.task.seen import OnArray
from secateur.pruning.recipes.task.task import evaluate
from secateur.quantisation.prepare import finalize, prepare
from secateur.target import Target

#: Weight memory of the target on which the dense network is compiled, which may not fit the real.
ROOM = 1 << 20


def train(run: RunState) -> None:
    """Check that the budget is in reach, and train the float network: checkpoint "float"."""
    model = run.build()
    check_parts(run, model)
    _check_budget(run, model)
    run.fit("train", model)
    run.keep("float", model)


def _check_budget(run: RunState, model: nn.Module) -> None:
    """Refuse a budget out of reach before any training."""
    trial = copied(model)
    if run.recipe.channels.wanted:
        run.narrow(trial)
        run.results.pop("channel_density")  # the trained model has its own
    costs = CostModel(trial, run.calibration(), run.target)
    layers = block_saliency(trial, costs.n, skip=run.recipe.prune.skip)
    if run.recipe.prune.method != "none":
        found = allocate(costs, layers, _budgets(run, layers))
        limit = found.budgets.cycles
        of = "" if limit is None else f" of {limit:,}"
        takes = f"{found.cost.cycles:,}{of} cycles"
        if found.budgets.time is not None:
            limit = found.budgets.time
            takes = f"{found.cost.time:,} of {limit:,} cycles with waits for the source"
        note = f"can be met (a first allocation takes {takes})"
        run.progress("budget", 1, 1, note)
    elif not run.recipe.train.lasso:  # of which blocks may vanish
        keep_all(costs, layers, _budgets(run, layers))


def _budgets(run: RunState, layers: dict[str, Tensor]) -> Budgets:
    count = sum(saliency.numel() for saliency in layers.values())
    return make_budgets(run.target, count, **vars(run.recipe.budget))


def compile_dense(run: RunState) -> None:
    """Quantise and compile the trained network as it is: ``dense.sec``."""
    geometry = replace(run.target.geometry, weight_words=ROOM)
    _quantise(run, "dense", run.build("float"), replace(run.target, geometry=geometry))


def remove_channels(run: RunState) -> None:
    """Remove channels, if the recipe wants that, and train: checkpoint "narrowed"."""
    if not run.recipe.channels.wanted:
        return
    model = run.build("float")
    report = run.narrow(model)
    run.fit("channels", model)
    run.results["widths"] = {row.name: [row.before, row.after] for row in report.layers}
    run.keep("narrowed", model)


def prune(run: RunState) -> None:
    """Prune blocks to the budget while the network trains: checkpoint "pruned"."""
    recipe = run.recipe
    model = run.build("narrowed" if recipe.channels.wanted else "float")
    early = run.build("early") if recipe.prune.schedule == "rewind" else None
    cuts = BlockCuts(
        model, recipe, run.target, run.data.train, run.task, run.calibration(), early,
        run.augment_of("prune"),
    )  # fmt: skip
    if cuts.order is not None:
        run.results["order"] = {row.name: vars(row) for row in cuts.order.layers}

    def before_batch(done: int, total: int) -> None:
        cuts.before_batch(done, total)
        run.results["allocation"] = cuts.last or run.results["allocation"]

    if recipe.prune.epochs:
        run.fit("prune", model, before_batch=before_batch)
    else:
        before_batch(0, 0)
    run.keep("pruned", model)


def recover(run: RunState) -> None:
    """Train on with the masks fixed: checkpoint "recovered"."""
    model = run.build("pruned")
    run.fit("recover", model)
    run.keep("recovered", model)


def compile_pruned(run: RunState) -> None:
    """Quantise and compile the pruned network: ``model.sec``."""
    _quantise(run, "model", run.build("recovered"), run.target)


def _quantise(run: RunState, name: str, model: nn.Module, target: Target) -> None:
    """Quantise with training, compile, check every code, and score the image ``name``.sec."""
    trained = run.recipe.qat.scale_rate > 0
    calibration = run.calibration()
    prepared = prepare(model, calibration, qat=True, train_scales=trained)
    run.fit("qat", moved(prepared, run.device), name=f"qat {name}")
    moved(prepared, torch.device("cpu")).eval()
    graph = finalize(prepared)
    network = lower(graph)
    image = compile_network(network, target)
    samples = calibration if isinstance(calibration, Tensor) else call_of(model, calibration)
    check_image(image, graph, some_inputs(graph, network, samples), network)
    check = check_masks(image, graph, model)
    image.save(run.folder / f"{name}.sec")
    found, outputs = evaluate(OnArray(image), run.held_out, run.task)
    tensors = {} if outputs is None else {"outputs": outputs}
    checkpoint.write(run.folder / f"{name}.int8.json", tensors, {})
    run.results[f"{name} int8"] = run.figures(found) | {
        "masked_weights": check.masked_weights,
        "image_sha256": hashlib.sha256(image.stream).hexdigest(),
    }
    run.watch(f"{name} int8", found.value)
    note = f"{run.shown(found)}, {image.metadata['cycles']:,} cycles"
    run.progress(f"{name} int8", 1, 1, note)


#: In the order in which they run. A checkpoint counts those that are done.
STAGES: tuple[Callable[[RunState], None], ...] = (
    train,
    compile_dense,
    remove_channels,
    prune,
    recover,
    compile_pruned,
)


def run_stages(run: RunState) -> None:
    """Run the stages that are left.

    Raises
    ------
    SecateurError : the recipe does not work out, at once where that can be known
    """
    check_range(run)
    for stage in STAGES[run.stage :]:
        stage(run)
        run.finish_stage()
