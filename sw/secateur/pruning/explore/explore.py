"""``secateur explore``: trials in batches, so that no choice depends on who is ready first.

The trials of a batch are all chosen before any of them runs, from the results of the batches
before, each with a seed of its own; and they are told to the sampler in their order. By these
results, too, it is decided which trials are stopped early. So neither the number of workers nor an
interruption changes which trials there are, or their images.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from secateur.disk.lock import held
from secateur.disk.storage import read, write_atomically
from secateur.errors import SecateurError
from secateur.progress import Progress, silent
from secateur.pruning.explore.plan import OBJECTIVES, Plan
from secateur.pruning.explore.stopping import Earlier, bars_of
from secateur.pruning.explore.trial import run_trial
from secateur.pruning.explore.workers import client_of
from secateur.text import first_line

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError:
    raise SecateurError(
        "exploration needs Optuna, which is missing; pip install 'secateur[explore]'"
    ) from None

#: Bytes of a record.
LIMIT = 1 << 26
#: The study's name in its storage.
NAME = "secateur"
#: Why a trial has no objectives: a file of its folder, and its state.
_REASONS = {"stopped": TrialState.PRUNED, "problem": TrialState.FAIL}


def explore(
    plan: Plan,
    folder: Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    storage: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run the trials that are not done yet; write ``explore.json`` after every batch.

    Parameters
    ----------
    plan : from `secateur.pruning.explore.plan.load_plan`
    folder : made if it is missing; a trial that was stopped in it is resumed
    workers : processes that run trials
    scheduler : address of a Dask scheduler, whose workers run them instead
    storage : URL that Optuna knows; None: the journal ``explore.log`` in the folder
    progress : called after every trial

    Returns
    -------
    dict : ``trials`` with ``values`` and objectives, or with ``stopped`` or ``problem``;
        ``front``, numbers of the trials that no other one beats in all objectives

    Raises
    ------
    SecateurError : the folder or the storage holds another exploration, or Dask is missing
    """
    folder = folder.absolute()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with held(folder):
        study = _study(plan, folder, storage)
        with client_of(workers, scheduler) as client:
            for first in range(0, plan.trials, plan.batch):
                _run_batch(plan, folder, study, client, first, progress)
                found = _result(plan, folder, study)
                text = json.dumps(found, indent=1)
                write_atomically(folder / "explore.json", text.encode())
    return found


def _study(plan: Plan, folder: Path, storage: str | None) -> optuna.Study:
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "explore.log")))
    try:
        study = optuna.create_study(
            study_name=NAME,
            storage=journal if storage is None else storage,
            directions=[OBJECTIVES[name] for name in plan.objectives],
            load_if_exists=True,
        )
        other = study.user_attrs.setdefault("plan", plan.digest) != plan.digest
    except Exception as error:  # of whatever database
        where = folder / "explore.log" if storage is None else "--storage"
        raise SecateurError(f"{where}: no storage of Optuna's: {first_line(error)}") from None
    if other:
        raise SecateurError(
            f"{folder}: holds another exploration; choose another folder, or delete it"
        )
    study.set_user_attr("plan", plan.digest)
    return study


def distributions(plan: Plan) -> dict[str, optuna.distributions.BaseDistribution]:
    """The space as Optuna has it: whole numbers where both ends are whole."""
    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for key, value in plan.space.items():
        if isinstance(value, list):
            found[key] = optuna.distributions.CategoricalDistribution(value)
            continue
        whole = all(isinstance(value[end], int) for end in ("low", "high"))
        options = {"low": value["low"], "high": value["high"], "log": value.get("log", False)}
        if whole:
            step = value.get("step", 1)
            found[key] = optuna.distributions.IntDistribution(**options, step=step)
        else:
            step = value.get("step")
            found[key] = optuna.distributions.FloatDistribution(**options, step=step)
    return found


def _run_batch(
    plan: Plan, folder: Path, study: optuna.Study, client: Any, first: int, progress: Progress
) -> None:
    """Choose, run and tell the trials of a batch, but for what is done of these already."""
    numbers = range(first, first + plan.batch)
    for number in numbers[len(study.get_trials(deepcopy=False)) - first :]:
        study.sampler = optuna.samplers.TPESampler(
            seed=plan.seed * 1_000_003 + number, n_startup_trials=2 * plan.batch
        )
        study.ask(distributions(plan))
    trials = study.get_trials(deepcopy=False)
    done = [t for t in trials[:first] if t.state == TrialState.COMPLETE]
    earlier = [] if plan.stop_below is None else [_earlier(trial, folder) for trial in done]
    trials = trials[first : first + plan.batch]
    mark = hashlib.sha256(f"{plan.digest} {folder}".encode()).hexdigest()[:16]
    futures = {
        trial.number: client.submit(
            run_trial, plan, dict(trial.params), _place(folder, trial.number),
            bars_of(plan, trial.params, earlier),
            pure=False, key=f"trial-{trial.number}-{mark}",
        )
        for trial in trials
        if trial.state == TrialState.RUNNING
    }  # fmt: skip
    for number, future in futures.items():
        try:
            found = future.result()
        except Exception as error:  # of Dask, or what no run should raise
            found = {"problem": f"its workers died, or the run did: {first_line(error)}"}
        _tell(plan, study, number, found, folder)
        note = ", ".join(f"{k} {found[k]:,.6g}" for k in plan.objectives if k in found)
        progress("trial", number + 1, plan.trials, note or next(iter(found.values())))


def _place(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:04}"


def _earlier(trial: optuna.trial.FrozenTrial, folder: Path) -> Earlier:
    """What a complete trial had."""
    file = _place(folder, trial.number) / "record.json"
    try:
        return trial.params, json.loads(read(file, LIMIT, "a record"))["results"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SecateurError(f"{file}: not a record; delete {folder} and start again") from None


def _tell(
    plan: Plan, study: optuna.Study, number: int, found: dict[str, Any], folder: Path
) -> None:
    for reason, state in _REASONS.items():
        if reason in found:
            place = _place(folder, number)
            place.mkdir(exist_ok=True)
            write_atomically(place / f"{reason}.txt", found[reason].encode())
            study.tell(number, state=state)
            return
    study.tell(number, [found[name] for name in plan.objectives])


def _result(plan: Plan, folder: Path, study: optuna.Study) -> dict[str, Any]:
    rows = []
    for trial in study.get_trials(deepcopy=False):
        row: dict[str, Any] = {"number": trial.number, "values": dict(trial.params)}
        if trial.state == TrialState.COMPLETE:
            row |= dict(zip(plan.objectives, trial.values, strict=True))
        for reason, state in _REASONS.items():
            if trial.state == state:
                row[reason] = (_place(folder, trial.number) / f"{reason}.txt").read_text()
        rows.append(row)
    return {
        "objectives": list(plan.objectives),
        "trials": rows,
        "front": sorted(trial.number for trial in study.best_trials),
        "folder": str(folder),
    }
