"""Import paths of callables: what is wrong with one is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from secateur.callables import function, imported
from secateur.errors import SecateurError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("absent", None, "No module named 'absent'; give package.module:callable, and put"),
        (
            "page",
            "import no_such",
            "^key = 'page:f': page could not be imported: it imports no_such",
        ),
        ("page", "import pag", "page could not be imported: it imports pag, which is not"),
        ("page", "1 / 0", "page could not be imported: ZeroDivisionError: division by zero$"),
        ("page", "raise SystemExit(0)", "page could not be imported: SystemExit: 0$"),
        ("page", "f = 1", "^key = 'page:f' is not callable$"),
        ("page", "g = 1", "page has no 'f'; give package.module:callable"),
    ],
)
def test_modules_that_cannot_be_imported(
    module: str, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    if text is not None:
        (tmp_path / f"{module}.py").write_text(text)
    with pytest.raises(SecateurError, match=message):
        imported("key", f"{module}:f")


def test_a_callable_that_exits_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "leaves", raising=False)
    (tmp_path / "leaves.py").write_text("def f():\n    raise SystemExit(0)\n")
    with pytest.raises(SecateurError, match="'leaves:f' fails when it is called: SystemExit: 0"):
        function("key", "leaves:f")()


def test_the_current_folder_is_searched_for_callables_alone(
    secateur: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And behind what is installed."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    assert secateur("compile model.onnx --target 8x8 -o m.sec")[0] == 1
    assert secateur("compile model.pt2 --target 8x8 -o m.sec")[0] == 1
    assert sys.path == before
    (folder / "torch.py").write_text("f = 1")
    (folder / "model_of_mine.py").write_text("def f(seed): raise ValueError('it ran')")
    status, _, err = secateur("compile model_of_mine:f --target 8x8 -o m.sec")
    assert status == 1
    assert "it ran" in err
    assert sys.path == [*before, str(folder)]


def test_python_m_does_not_search_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("open('it_ran', 'w')")
    command = [sys.executable, "-m", "secateur", "--version"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "it_ran").exists()
