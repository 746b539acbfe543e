"""Cases of a parametrised test that cost more than they add to the others of their kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def long(*values: Any) -> Any:
    """A case for ``make test-long``."""
    return pytest.param(*values, marks=pytest.mark.long)


def quick(cases: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """All cases of one value each; those which are not ``chosen`` are long."""
    cases = list(cases)
    assert set(chosen) <= set(cases), chosen
    return [case if case in chosen else long(case) for case in cases]
