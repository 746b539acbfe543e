"""Trials that are stopped early: those behind earlier ones that cost no more.

Optuna's pruners know one objective, in which a cheap trial with a little less accuracy is a bad
one. Here a trial has a bar for each of its models that is scored before there is an image: a
percentile of what that model had in earlier trials with no larger budget, on no larger target. The
bars of a batch are fixed when it is chosen, so they do not depend on which trial is ready first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from secateur.errors import SecateurError
from secateur.pruning.explore.parts import parts_of
from secateur.pruning.explore.plan import Plan
from secateur.target import Target

#: Models of a run that are scored, in their order; the last one, of the image, stops nothing.
MODELS = ("float", "dense int8", "narrowed", "pruned", "recovered")
#: Earlier trials that a bar needs.
LEAST = 4
#: What a trial had: values of the recipe's keys, and ``results`` of its record.
Earlier = tuple[Mapping[str, Any], Mapping[str, Any]]


def bars_of(plan: Plan, values: Mapping[str, Any], earlier: Sequence[Earlier]) -> dict[str, float]:
    """The least accuracy of each model of a trial; a model without a bar is not there.

    Parameters
    ----------
    plan : of the exploration
    values : of the recipe's keys
    earlier : complete trials of the batches before
    """
    if plan.stop_below is None:
        return {}
    try:
        most = _known_costs(plan, values)
    except SecateurError:
        return {}  # the trial itself says why it cannot run
    others = [results for other, results in earlier if _no_more(_known_costs(plan, other), most)]
    found: dict[str, float] = {}
    for name in MODELS:
        accuracies = [results[name]["accuracy"] for results in others if name in results]
        if len(accuracies) >= LEAST:
            found[name] = float(np.percentile(accuracies, plan.stop_below))
    return found


def _known_costs(plan: Plan, values: Mapping[str, Any]) -> dict[str, float]:
    """What is known before a trial runs: its budget, and the objectives of its target."""
    recipe = plan.recipe_with(values)
    budget = recipe.budget
    cycles: list[float] = [] if budget.cycles is None else [budget.cycles]
    if budget.latency_ms is not None and budget.clock_mhz is not None:
        cycles.append(budget.latency_ms * 1000 * budget.clock_mhz)
    limits = {
        "limit of cycles": min(cycles, default=None),
        "limit of bytes": budget.rom_bytes,
        "limit of density": budget.density,
        "period": 1 / plan.clock_of(values) if "milliseconds" in plan.objectives else None,
    }
    parts = asdict(parts_of(Target.load(recipe.target)))
    known = {key: value for key, value in limits.items() if value is not None}
    return known | {key: value for key, value in parts.items() if key in plan.objectives}


def _no_more(costs: Mapping[str, float], most: Mapping[str, float]) -> bool:
    """Whether each cost that has a limit is known, and within it."""
    return all(key in costs and costs[key] <= limit for key, limit in most.items())
