"""The command that searches: explore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.callables import find_in_current_folder
from secateur.cli.boards import carriers
from secateur.cli.common import Commands, Json, SchedulerAddress, bar, stage_bar
from secateur.cli.tables import table
from secateur.cli.terminal import Data, console, emit

exploring = Commands("Prune")


@exploring.command(epilog="Example: secateur explore mine.toml --workers 4 -o explore-out")
def explore(
    file: Annotated[Path, typer.Argument(help="TOML file: recipe, space, objectives, trials.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")] = Path(
        "explore-out"
    ),
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all; overrides the file.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run trials.")] = 1,
    scheduler: SchedulerAddress = None,
    storage: Annotated[
        str | None,
        typer.Option(help="URL of an Optuna storage; by default a journal in the folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search boards, targets, budgets and keys of a recipe for the front of accuracy and cost.

    Resumes from where it was stopped. The trials do not depend on the number of workers.
    """
    from secateur.pruning.explore.explore import explore as search
    from secateur.pruning.explore.plan import load_plan

    plan = load_plan(file, trials, carriers())
    find_in_current_folder()  # modules that the recipe names
    with bar() as progress:
        data = search(
            plan, output, workers=workers, scheduler=scheduler, storage=storage,
            progress=stage_bar(progress),
        )  # fmt: skip
    emit(data, as_json, show_explored)


def show_explored(data: Data) -> None:
    """The front, by the first objective."""
    names, trials = data["objectives"], data["trials"]
    keys = list(trials[0]["values"])
    rows = table("Trials that no other one beats in all", "trial", *names, *keys)
    for number in data["front"]:
        trial = trials[number]
        values = (f"{trial[name]:,.6g}" for name in names)
        rows.add_row(str(number), *values, *(str(trial["values"][key]) for key in keys))
    console.print(rows)
    failed = [trial for trial in trials if "problem" in trial]
    for trial in failed[:10]:
        console.print(f"trial {trial['number']} failed: {trial['problem']}")
    stopped = sum("stopped" in trial for trial in trials)
    console.print(f"{len(trials)} trials, {len(failed)} failed, {stopped} stopped early.")
    console.print(f"Results: {data['folder']}/explore.json")
