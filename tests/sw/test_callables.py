"""Import paths of callables: what is wrong with one is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from secateur.callables import imported
from secateur.errors import SecateurError


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
