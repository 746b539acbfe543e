"""What a model takes and returns, as its user sees it: names, and tuples, lists and dictionaries.

The metadata of an image hold the form of the result as JSON: the name of an output, null,
``{"value": number}``, or ``{"kind": "tuple", "items": [...]}``. Kinds are ``tuple``, ``list``,
``dict`` and ``named``, a named tuple; the last two have ``keys``.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from keyword import iskeyword
from typing import Any

import numpy as np

from secateur.errors import SecateurError

#: In the metadata's JSON.
Form = Any
KINDS = ("tuple", "list", "dict", "named")
#: Containers within each other; deeper ones would exhaust Python's stack.
DEPTH = 16


def rebuilt(form: Form, of: Callable[[str], Any]) -> Any:
    """The result in the structure that the model returns.

    Parameters
    ----------
    form : of the result
    of : the value of an output, by its name
    """
    if form is None:
        return None
    if isinstance(form, str):
        return of(form)
    if "value" in form:
        return form["value"]
    items = [rebuilt(item, of) for item in form["items"]]
    if form["kind"] == "dict":
        return dict(zip(form["keys"], items, strict=True))
    if form["kind"] == "named":
        return namedtuple("Outputs", form["keys"])(*items)
    return tuple(items) if form["kind"] == "tuple" else items


def named_leaves(form: Form) -> list[tuple[str, str]]:
    """Name, by its place in the result, of every output in it, and the output; names are unique.

    A place in dictionaries and named tuples is named by the keys on the way, joined by dots; one in
    the outermost tuple or list by ``output`` and its index.
    """
    found, names = [], set[str]()
    for path, output in _leaves(form):
        base = ".".join(path) or "output"
        base = f"output{base}" if path and path[0].isdigit() else base
        name, count = base, 1
        while name in names:
            count += 1
            name = f"{base}#{count}"
        names.add(name)
        found.append((name, output))
    return found


def _leaves(form: Form) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(form, str):
        yield (), form
    elif form is not None and "value" not in form:
        keys = form.get("keys") or [str(index) for index in range(len(form["items"]))]
        for key, item in zip(keys, form["items"], strict=True):
            for path, output in _leaves(item):
                yield (str(key), *path), output


def bad_form(form: Form, names: set[str], depth: int = 0) -> str | None:
    """What is wrong with a form, of a file; None if nothing is.

    Parameters
    ----------
    form : of any JSON
    names : of the outputs
    depth : containers around it
    """
    if form is None or (isinstance(form, str) and form in names):
        return None
    if depth > DEPTH or not isinstance(form, dict):
        return "is not a form of the outputs"
    if set(form) == {"value"}:
        number = isinstance(form["value"], bool | int | float | str)
        return None if number else "holds a value that is not a number"
    items, kind = form.get("items"), form.get("kind")
    keyed = kind in ("dict", "named")
    keys = form.get("keys") if keyed else []
    if kind not in KINDS or not isinstance(items, list) or not isinstance(keys, list):
        return "has a container that is not one"
    if keyed and len(keys) != len(items):
        return "has a container that is not one"
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        return "has keys that are not different texts"
    if kind == "named" and not all(map(_is_field, keys)):
        return "has a field that no named tuple can have"
    return next((bad for item in items if (bad := bad_form(item, names, depth + 1))), None)


def _is_field(key: str) -> bool:
    return key.isidentifier() and not iskeyword(key) and not key.startswith("_")


def given(x: Any, names: list[str], needed: list[str]) -> dict[str, Any]:
    """Inputs by name.

    Parameters
    ----------
    x : an array; of a model with several inputs a tuple or list in the order of its arguments, or
        a dictionary, nested as the model takes them
    names : of the model's inputs
    needed : those that its results depend on; others may be left out

    Raises
    ------
    SecateurError : inputs are missing, or are not the model's
    """
    listed = ", ".join(map(repr, names))
    how = f"give a tuple in this order, or a dictionary: {listed}"
    if isinstance(x, Mapping):
        found = dict(_by_key(x, ()))
        if len(names) == 1 and set(found) == {"x"}:
            found = {names[0]: found["x"]}
        missing = [name for name in needed if name not in found]
        other = [name for name in found if name not in names]
        if missing or other:
            what = f"input {missing[0]!r} is missing" if missing else f"no input {other[0]!r}"
            raise SecateurError(f"{what}; {how}")
        return {name: found[name] for name in names if name in found}
    if len(names) == 1 and not _only_array(x):
        return {names[0]: x}
    values = list(_in_order(x))
    for wanted in (names, needed):
        if len(values) == len(wanted):
            return dict(zip(wanted, values, strict=True))
    raise SecateurError(f"the model takes {len(names)} inputs, not {len(values)}; {how}")


def _only_array(x: Any) -> bool:
    return isinstance(x, tuple | list) and len(x) == 1 and isinstance(x[0], np.ndarray)


def _by_key(x: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(x, Mapping | tuple | list):
        for key, item in x.items() if isinstance(x, Mapping) else enumerate(x):
            yield from _by_key(item, (*path, str(key)))
    elif x is not None:
        yield ".".join(path), x


def _in_order(x: Any) -> Iterator[Any]:
    if isinstance(x, Mapping | tuple | list):
        for item in x.values() if isinstance(x, Mapping) else x:
            yield from _in_order(item)
    elif x is not None:
        yield x
