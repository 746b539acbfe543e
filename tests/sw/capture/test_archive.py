"""Archives that try to run code: stock torch runs it, `load_archive` does not."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from secateur.capture.archive.archive import load_archive
from secateur.errors import SecateurError
from tests.support.archives import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    call,
    changed,
    float_archive,
    inputs,
    members,
    nodes,
    saved,
    small,
    together,
)

MARK = "PAYLOAD_RAN"
TOUCH = f"__import__('pathlib').Path('{MARK}').touch()"
#: The same without a dot, which would split a path.
DOTLESS = f'getattr(__import__("os"), "system")("touch {MARK}")'


class Payload:
    """Unpickles to a tensor, after it has run."""

    def __reduce__(self) -> Any:
        return eval, (f"({TOUCH}, __import__('torch').ones(3))[1]",)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def graph(config: Any) -> Any:
    return config["graph_module"]["graph"]


def in_inputs() -> bytes:
    parts = members(float_archive())
    return together(parts | {"data/sample_inputs/model.pt": pickled(((Payload(),), {}))})


def in_size_of_input() -> bytes:
    def change(config: Any) -> None:
        sizes = graph(config)["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": TOUCH, "hint": {"as_int": 6}}}

    return changed(float_archive(), MODEL, change)


def in_size_of_value() -> bytes:
    def change(config: Any) -> None:
        graph(config)["tensor_values"]["relu"]["sizes"][1] = {
            "as_expr": {"expr_str": f"({TOUCH}, 4)[1]", "hint": None}
        }

    return changed(float_archive(), MODEL, change)


def in_weight() -> bytes:
    def change(config: Any) -> None:
        config["config"]["head.bias"] |= {"use_pickle": True, "path_name": "evil"}

    parts = members(changed(float_archive(), WEIGHTS, change))
    return together(parts | {"data/weights/evil": pickled(Payload())})


def in_constant(prefix: str) -> bytes:
    def change(config: Any) -> None:
        config["config"]["extra"] = {
            "path_name": f"{prefix}9", "is_param": False, "use_pickle": True, "tensor_meta": None,
        }  # fmt: skip

    parts = members(changed(float_archive(), CONSTANTS, change))
    content = pickle.dumps(Payload()) if prefix == "opaque_obj_" else pickled(Payload())
    return together(parts | {f"data/constants/{prefix}9": content})


def in_old_weights() -> bytes:
    state = {name: value.detach() for name, value in small().state_dict().items()}
    parts = members(float_archive())
    return together(parts | {"data/weights/model.pt": pickled(state | {"head.bias": Payload()})})


def in_path() -> bytes:
    """A parameter's path ends up in quotes, in generated code."""
    path = f'training"), {DOTLESS}, getattr(self, "training'

    def rename(config: Any) -> None:
        for spec in config["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "head.bias":
                spec["parameter"]["parameter_name"] = path

    def store(config: Any) -> None:
        config["config"][path] = config["config"].pop("head.bias")

    return changed(changed(float_archive(), MODEL, rename), WEIGHTS, store)


def in_target() -> bytes:
    """The call of an operator that makes a file."""

    def change(config: Any) -> None:
        named = {"filename": {"as_string": MARK}, "shared": {"as_bool": True}}
        made = call("torch.ops.aten.from_file.default", "f", **named, size={"as_int": 4})
        nodes(config).insert(0, made)
        value = graph(config)["tensor_values"]["conv2d"]
        graph(config)["tensor_values"]["f"] = value | {
            "sizes": [{"as_int": 4}], "strides": [{"as_int": 1}],
        }  # fmt: skip

    return changed(float_archive(), MODEL, change)


def in_tree() -> bytes:
    """How the model took its inputs names a class to import."""
    enum = json.dumps([{"__enum__": True, "fqn": "evil_module:Evil", "name": "A"}])

    def change(config: Any) -> None:
        signature = config["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = signature["in_spec"].replace('"[]"', json.dumps(enum))

    return changed(float_archive(), MODEL, change)


def in_guard() -> bytes:
    """A guard is Python that a module checks its inputs with."""

    def change(config: Any) -> None:
        config["guards_code"] = [f"{TOUCH} is None"]

    return changed(float_archive(), MODEL, change)


#: Payloads, and what is said of them, or "" where the archive is read without them.
PAYLOADS: dict[str, tuple[Callable[[], bytes], str]] = {
    "example inputs": (in_inputs, ""),
    "size of an input": (in_size_of_input, ""),
    "size of a value": (in_size_of_value, ""),
    "weight": (in_weight, "tensor head.bias: is stored as a pickle, which is code"),
    "opaque constant": (lambda: in_constant("opaque_obj_"), "tensor extra: is stored as a pickle"),
    "pickled constant": (lambda: in_constant("tensor_"), "tensor extra: is stored as a pickle"),
    "weights of older torch": (in_old_weights, "data/weights/model.pt is a pickle of an older"),
    "path of a parameter": (in_path, "expected a path of names as PyTorch allows them"),
    "operator on files": (in_target, "node f (from_file): an operation on weights that is not"),
    "tree of inputs": (in_tree, ""),
    "guard": (in_guard, ""),
}


def stock(data: bytes) -> None:
    """Read an archive as torch does, and run the model."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(io.BytesIO(data)).module()(inputs())


@pytest.mark.parametrize("kind", PAYLOADS)
def test_code_in_an_archive_does_not_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("evil_module.py").write_text(TOUCH)
    make, refused = PAYLOADS[kind]
    Path("evil.pt2").write_bytes(make())
    stock(make())
    assert Path(MARK).exists(), "not a payload: the test proves nothing"
    Path(MARK).unlink()
    before, message = set(tmp_path.iterdir()), ""
    try:
        program = load_archive("evil.pt2")
        program.example_inputs = ((inputs(),), {})  # with which it would check guards
        program.module()(inputs())
        assert secateur.compile(program, target="8x1", calibration=inputs()).cycles > 0
    except SecateurError as error:
        message = str(error)
    assert set(tmp_path.iterdir()) == before
    assert message.startswith("evil.pt2: ") == bool(refused), message
    assert refused in message
    assert message.isprintable()


def test_what_is_left_out(tmp_path: Path) -> None:
    """Machine code, other files and several models beside the program: none is read."""
    extra = {
        "data/aotinductor/model/wrapper.so": b"\x7fELF",
        "extra/notes.txt": b"\xff\xfe",
        "models/other.json": b"not JSON",
        "../../escape.txt": b"out",
        "/etc/absolute": b"out",
    }
    file = tmp_path / "more.pt2"
    file.write_bytes(together(members(float_archive()) | extra))
    assert torch.equal(load_archive(file).module()(inputs()), small()(inputs()))
    assert [path.name for path in tmp_path.iterdir()] == ["more.pt2"]


def test_kinds_of_files_that_are_not_read(tmp_path: Path) -> None:
    parts = members(float_archive())
    without = {k: v for k, v in parts.items() if k != MODEL}
    old = io.BytesIO()
    with zipfile.ZipFile(old, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("version", "8.20")
    double = io.BytesIO(float_archive())
    with warnings.catch_warnings(), zipfile.ZipFile(double, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(archive.namelist()[0], b"again")
    cases = (
        (b"hello", "not a torch.export archive, or damaged (File is not a zip file); save it"),
        (together({"a.txt": b"a"}), "not a torch.export archive: no archive_format in it"),
        (together(without), "no models/model.json in it"),
        (together(without | {"data/aotinductor/model/a.so": b""}), "machine code that AOTInductor"),
        (old.getvalue(), "written by a torch before 2.8, as pickles; save it again"),
        (together(parts, zipfile.ZIP_LZMA), "weight_0 is compressed in another way; save it again"),
        (double.getvalue(), "two files of it are named"),
        (together(parts | {"archive_version": b"1"}), "archive_version is b'1', expected b'0'"),
        (together(parts | {"byteorder": b"big"}), "in the byte order of another machine"),
    )
    for content, message in cases:
        file = tmp_path / "other.pt2"
        file.write_bytes(content)
        with pytest.raises(SecateurError) as caught:
            load_archive(file)
        assert f"{file}: " in str(caught.value)
        assert message in str(caught.value), caught.value


def test_a_tensor_of_another_kind_is_named(tmp_path: Path) -> None:
    """Weights of float64 are refused where they are used, with their name."""
    file = tmp_path / "double.pt2"
    model = torch.nn.Sequential(torch.nn.Linear(4, 3)).double()
    file.write_bytes(saved(model, torch.rand(3, 4).double()))
    with pytest.raises(
        SecateurError, match=r"parameter '0.weight' is torch.float64; convert the module by"
    ):
        secateur.compile(load_archive(file), target="8x1", calibration=torch.rand(4, 4))
