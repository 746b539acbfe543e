"""What every command tells its users, those to come included: help, examples, -o and --json."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn

from secateur import __version__, api
from secateur.boards.catalogue.catalogue import BOARDS
from secateur.cli.common import OUTPUTS, bar
from secateur.cli.terminal import console, emit, progress_console
from secateur.errors import SecateurWarning
from tests.support.commands import ALL, ROOT

REPOSITORY = Path(__file__).parents[2]
PANELS = ["Model", "Run", "Prune", "Hardware", "Device", "Files"]
#: Examples that train, place and route, or need a board or another's compiler.
LONG = {"demo", "prune", "example", "study", "explore", "build", "swap", "compare"} | {
    name for name in ALL if name.startswith("device ")
}
SHORT = sorted(set(ALL) - LONG)
JSON = [name for name, given in ALL.items() if "as_json" in given.kinds]
#: What a command says on stderr, without a terminal.
SAID = {
    "estimate": "".join(
        f"estimate {done}/{len(BOARDS)}: {board}\n" for done, board in enumerate(BOARDS, 1)
    ),
    "simulate": "Verilator: the first run compiles the engine, about a minute\n",
}
#: The array of test_cli.py, whose simulator is built once.
SMALL = "n = 4\np = 3\nweight_words = 1024\nbank_words = 512\n"
ENERGIES = """
mac = 1
weight_byte = 2
bank_read_byte = 3
bank_write_byte = 4
requantise = 5
cycle = 6.5
source = "by hand"
"""


def example(name: str) -> list[str]:
    """The words of a command's example after its name."""
    epilog = ALL[name].command.epilog
    assert epilog.startswith(f"Example: secateur {name}")
    return str(epilog).removeprefix(f"Example: secateur {name}").split()


def parameters(command: Any) -> list[Any]:
    """All of them, ``--help``, too."""
    return list(command.get_params(typer.Context(command)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that the examples read."""
    where = tmp_path_factory.mktemp("help")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    x = torch.randn(4, 1, 6, 6)
    np.savez(where / "x.npz", x=x.numpy())
    torch.export.save(torch.export.export(model, (x[:1],)), where / "model.pt2")
    (where / "mine.toml").write_text(ENERGIES)
    (where / "small.toml").write_text(SMALL)
    image = api.compile(model, target="8x8", calibration=x)
    for name in ("model", "old", "new"):
        image.save(where / f"{name}.sec")
    api.compile(model, target=str(where / "small.toml"), calibration=x).save(where / "small.sec")
    return where


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def ready(made: Path, folder: Path, secateur: Any) -> Path:
    """A folder of one's own with these files, a patch, keys and a signature."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    for line in (
        "delta old.sec new.sec -o update.secd",
        "keygen -o key.pem",
        "sign model.sec --key key.pem",
    ):
        assert secateur(line)[0] == 0
    return folder


def test_the_panels_in_their_order(secateur: Any) -> None:
    _, out, _ = secateur("--help")
    titles = [line.split()[1] for line in out.splitlines() if line.startswith("╭─")]
    assert titles == ["Options", *PANELS]
    assert {given.command.rich_help_panel for given in ALL.values()} == set(PANELS)


def test_version_and_module(secateur: Any) -> None:
    assert secateur("--version") == (0, f"secateur {__version__}\n", "")
    command = [sys.executable, "-m", "secateur", "targets", "--jsn"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Usage: secateur targets ")


@pytest.mark.parametrize("name", ALL)
def test_every_text_is_a_sentence(name: str) -> None:
    command = ALL[name].command
    first = command.help.split("\n\n")[0]
    assert first.endswith(".")
    assert first[0].isupper()
    for parameter in parameters(command):
        text = parameter.help
        assert text, parameter.name
        assert text.endswith("."), parameter.name
        assert text[0].isupper() or text[0] == ".", parameter.name


def test_every_text_of_the_whole_is_a_sentence() -> None:
    texts = [parameter.help for parameter in parameters(ROOT)]
    texts += [ROOT.help, ROOT.commands["device"].help]
    assert len(texts) >= 6
    assert all(text and text.endswith(".") for text in texts)


@pytest.mark.parametrize("name", ALL)
def test_the_example_is_right(name: str, secateur: Any) -> None:
    """It is in the help, gives what must be given, and names files that there are."""
    words = example(name)
    ALL[name].command.make_context(name, list(words))
    for word in words:
        assert not word.startswith("docs/") or (REPOSITORY / word).is_file(), word
    status, out, _ = secateur(f"{name} --help")
    assert status == 0
    assert f"Example: secateur {name}" in " ".join(out.split())


def test_the_examples_of_groups(secateur: Any) -> None:
    assert ROOT.epilog == "Example: secateur compile --help"
    assert secateur("compile --help")[0] == 0
    assert ROOT.commands["device"].epilog == ALL["device info"].command.epilog


@pytest.mark.parametrize("name", SHORT)
def test_the_example_works(name: str, secateur: Any, ready: Path) -> None:
    """And writes what ``-o`` names, and nothing else; with ``--json`` it prints one object."""
    words = example(name)
    if name == "simulate":
        shutil.copy(ready / "small.sec", ready / "model.sec")
    output = words[words.index("-o") + 1] if "-o" in words else "\0"
    for path in ready.glob(f"{output}*"):
        path.unlink()  # of `ready`
    before = {path.name for path in ready.iterdir()}
    status, out, err = secateur(" ".join([name, *words]))
    assert (status, err) == (0, SAID.get(name, ""))
    written = {path.name for path in ready.iterdir()} - before
    assert all(name.startswith(output) for name in written)
    assert bool(written) == ("-o" in words)
    assert out
    if name == "verilog":
        return  # takes its time, and test_cli.py reads its JSON
    if name == "keygen":
        (ready / "key.pem").unlink()
    status, out, err = secateur(" ".join([name, *words, "--json"]))
    assert (status, err) == (0, SAID.get(name, ""))
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("name", ALL)
def test_the_output_is_called_output(name: str) -> None:
    """What is written says so; waveforms and reports are written beside the results."""
    for parameter in parameters(ALL[name].command):
        options = [*parameter.opts, *parameter.secondary_opts]
        writes = "writ" in parameter.help.lower()
        assert (parameter.name in OUTPUTS) == writes, parameter.name
        assert ("-o" in options) == (parameter.name == "output")
        if parameter.name == "output":
            assert options == ["-o", "--output"]
        elif parameter.name in OUTPUTS:
            assert options == [f"--{parameter.name}"]


@pytest.mark.parametrize("name", JSON)
def test_json_is_alone(name: str, secateur: Any, folder: Path, monkeypatch: Any) -> None:
    """Whatever the command and its progress print; test_terminal.py has processes and C, too."""

    def noisy(self: Any, context: Any) -> None:
        print("printed")
        console.print("printed by rich")
        progress_console.print("progress")
        with bar() as progress:
            progress.console.print("a stage")
        warnings.warn("warned", SecateurWarning, stacklevel=1)
        emit({"name": self.name}, context.params["as_json"], lambda data: console.print("a table"))
        print("printed after it")

    monkeypatch.setattr("typer.core.TyperCommand.invoke", noisy)
    given = ALL[name]
    (option,) = [p for p in parameters(given.command) if p.name == "as_json"]
    assert option.opts == ["--json"]
    status, out, err = secateur(given.line() + " --json")
    assert status == 0
    assert json.loads(out) == {"name": name.split()[-1]}
    for line in ("printed", "printed by rich", "progress", "a stage", "secateur: warned"):
        assert f"{line}\n" in err, line


@pytest.mark.parametrize("name", JSON)
def test_json_and_tables_come_from_the_same_data(name: str) -> None:
    """The function of a command prints by ``emit`` alone, and passes on what was chosen."""
    function = inspect.unwrap(ALL[name].command.callback)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [ast.unparse(call.func) for call in calls]
    assert not {"print", "console.print", "console.out"} & set(names)
    (emitted,) = [call for call in calls if ast.unparse(call.func) == "emit"]
    assert ast.unparse(emitted.args[1]) == "as_json"


def test_all_that_could_print_json_does() -> None:
    """`device serve` prints a name and stays."""
    assert set(ALL) - set(JSON) == {"device serve"}
