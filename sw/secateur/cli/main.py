"""The command line: arguments in, tables or JSON out. The work is elsewhere."""

from __future__ import annotations

import io
import logging
import signal
import sys
import warnings
from typing import Annotated

import typer

from secateur._version import __version__
from secateur.cli.boards import boards
from secateur.cli.device import device
from secateur.cli.estimates import estimates
from secateur.cli.exploring import exploring
from secateur.cli.hardware import hardware
from secateur.cli.model import models
from secateur.cli.pruning import recipes
from secateur.cli.reports import reports
from secateur.cli.running import running
from secateur.cli.updates import updates
from secateur.errors import SecateurError, SecateurWarning
from secateur.text import printable

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
# In the order of the panels in `secateur --help`.
for group in (models, estimates, reports, running, recipes, exploring, hardware, boards):
    app.add_typer(group)
app.add_typer(device, name="device", rich_help_panel=device.panel)
app.add_typer(updates)


def print_version(wanted: bool) -> None:
    """Print the version and exit, if ``wanted``."""
    if wanted:
        print(f"secateur {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: secateur compile --help")
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Prune, quantise and compile PyTorch models for a sparse MAC array, and run them on it."""


def main() -> None:
    """Entry point: bad input is one line on stderr and exit status 1, Ctrl-C status 130."""
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", category=SecateurWarning)
    warnings.showwarning = lambda message, *_, **__: say(message)
    for name in ("torchao", "torch", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: a name may hold characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="secateur", standalone_mode=True)
    except SecateurError as error:
        say(error)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:  # typer's for Ctrl-C
            raise
        say("interrupted")
        sys.exit(INTERRUPTED)


def _terminate(number: int, _: object) -> None:
    """End as by Ctrl-C: temporary folders go, children end; the status is the shell's for it."""
    raise SystemExit(128 + number)


def say(message: object) -> None:
    """Print a line on stderr."""
    print(f"secateur: {printable(message)}", file=sys.stderr)
