"""What archives may hold, and how much of it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.archive import load_archive
from secateur.errors import SecateurError
from secateur.limits import Limits
from tests.archives import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    changed,
    float_archive,
    inputs,
    members,
    quantised_archive,
    saved,
    small,
    together,
)


class Odd(nn.Module):
    """A name with a dash, a layer used twice, shared and expanded weights, a result in a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("a-b", nn.Conv2d(1, 4, 1))
        self.head = nn.Linear(16, 3)
        self.again = self.head
        self.wide = nn.Parameter(torch.full((1, 1, 1), 0.5).expand(4, 1, 1))
        self.constant = torch.tensor(2.0)

    def forward(self, x: Tensor) -> dict[str, list[Tensor | None]]:
        y = (self.get_submodule("a-b")(x) * self.wide * self.constant).relu_().flatten(1)
        return {"logits": [self.head(y) + self.again(y), None]}


def derived() -> bytes:
    """A batch that is twice a size."""
    batch = ({0: 2 * torch.export.Dim("n", min=2, max=50)},)
    return saved(torch.export.export(small(), (inputs(),), dynamic_shapes=batch), inputs())


def odd() -> bytes:
    torch.manual_seed(0)
    return saved(Odd().eval(), inputs())


def decomposed() -> bytes:
    return saved(torch.export.export(small(), (inputs(),)).run_decompositions(), inputs())


WHOLE: dict[str, Callable[[], bytes]] = {
    "float": float_archive,
    "quantised": quantised_archive,
    "fixed batch": lambda: saved(small(), inputs(), fixed=True),
    "odd": odd,
    "compressed": lambda: together(members(float_archive()), zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_archives_compile_to_what_torch_makes_of_them(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(WHOLE[kind]())
    expected = torch.export.load(io.BytesIO(WHOLE[kind]()))
    images = [
        secateur.compile(program, target="8x1", calibration=inputs())
        for program in (load_archive(file), expected)
    ]
    assert images[0].stream == images[1].stream
    assert images[0].metadata == images[1].metadata


def test_a_batch_that_is_twice_a_size_is_that_of_the_example(tmp_path: Path) -> None:
    """torch itself cannot always tell what convolutions do with such a batch."""
    file = tmp_path / "model.pt2"
    file.write_bytes(derived())
    image = secateur.compile(load_archive(file), target="8x1", calibration=inputs(5))
    expected = secateur.compile(small(), target="8x1", calibration=inputs(5))
    assert image.stream == expected.stream


def test_operations_that_are_decomposed_are_refused_as_without_a_file(tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    file.write_bytes(decomposed())
    with pytest.raises(SecateurError, match=r"\(node convolution, convolution\): .*; export with"):
        secateur.compile(load_archive(file), target="8x1", calibration=inputs())


def _tensor(path: str) -> Callable[[Any], Any]:
    return lambda config: config["config"][path]["tensor_meta"]


def stretched(config: Any) -> None:
    """A bias of three floats that says it is one of 2**40, all the same."""
    _tensor("head.bias")(config).update(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}])


def longer(config: Any) -> None:
    _tensor("head.bias")(config).update(sizes=[{"as_int": 4}])


def elsewhere(config: Any) -> None:
    _tensor("head.bias")(config)["device"] = {"type": "cuda", "index": 0}


def shared(config: Any) -> None:
    config["config"]["conv.bias"]["path_name"] = config["config"]["norm.bias"]["path_name"]
    _tensor("conv.bias")(config)["dtype"] = 4


def upwards(config: Any) -> None:
    config["config"]["head.bias"]["path_name"] = "../constants/tensor_0"


def nodes(config: Any) -> Any:
    return config["graph_module"]["graph"]["nodes"]


def spec(config: Any, kind: str) -> Any:
    specs = config["graph_module"]["signature"]["input_specs"]
    return next(s[kind] for s in specs if kind in s)


def unfed(config: Any) -> None:
    config["graph_module"]["signature"]["input_specs"] = []


def sized(text: object, hint: object, times: int = 1) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        x = config["graph_module"]["graph"]["tensor_values"]["x"]
        x["sizes"][:1] = [{"as_expr": {"expr_str": text, "hint": hint}}] * times
        x["sizes"] = x["sizes"][: max(times, 4)]

    return change


def called(target: str) -> Callable[[Any], None]:
    return lambda config: nodes(config)[0].update(target=target)


def named(name: object) -> Callable[[Any], None]:
    return lambda config: nodes(config)[0].update(name=name)


def argued(kind: str, value: object) -> Callable[[Any], None]:
    return lambda config: nodes(config)[0]["inputs"][1].update(arg={kind: value})


def padded(amounts: list[int]) -> Callable[[Any], None]:
    return lambda config: nodes(config)[1]["inputs"][-1].update(arg={"as_ints": amounts})


def at(path: str) -> Callable[[Any], None]:
    return lambda config: spec(config, "parameter").update(parameter_name=path)


REFUSED: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "larger than its file": (WEIGHTS, longer, "tensor head.bias: 16 bytes, its file has 12"),
    "of the same element": (WEIGHTS, stretched, "at most 1,024 MB are read; raise the limit"),
    "on another device": (WEIGHTS, elsewhere, "a tensor on cuda; move the model by model.cpu()"),
    "of two types": (WEIGHTS, shared, "shares a file with one of another type"),
    "from elsewhere": (WEIGHTS, upwards, "its file ../constants/tensor_0 is not the name of"),
    "missing constant": (CONSTANTS, lambda c: c["config"].clear(), "buffer scale is not in the"),
    "size without example": (MODEL, sized("s0", None), "expected the size of an example"),
    "dimensions": (MODEL, sized("s0", {"as_int": 6}, 20), "input 'x': 20 dimensions"),
    "higher order": (MODEL, called("torch.ops.higher_order.cond"), "has no operation higher_order"),
    "module": (MODEL, called("torch.hub.load"), "the array has no operation torch.hub.load"),
    "mathematics": (MODEL, called("math.factorial"), "the array has no operation math.factorial"),
    "function": (MODEL, called("_operator.call"), "the array has no operation _operator.call"),
    "dunder": (MODEL, called("torch.ops.aten.__class__.mro"), "no operation aten.__class__.mro"),
    "unknown": (MODEL, called("torch.ops.aten.save.default"), "torch cannot make a graph of it"),
    "of no tensors": (MODEL, called("torch.ops.aten.add.t"), "torch cannot make a graph of it"),
    "keyword": (MODEL, named("class"), "nodes[0].name: expected a name of letters"),
    "what code calls": (MODEL, named("getattr"), "expected a name of letters"),
    "not ASCII": (MODEL, named("\uff53elf"), "expected a name of letters"),
    "code": (MODEL, named("x\nimport os"), "expected a name of letters"),
    "method": (MODEL, at("forward"), "expected a path of names"),
    "state": (MODEL, at("head._parameters"), "expected a path of names"),
    "dunder path": (MODEL, at("__dict__.x"), "expected a path of names"),
    "keyword in path": (MODEL, at("head.class"), "expected a path of names"),
    "operator as value": (MODEL, argued("as_operator", "torch.hub.load"), "as_operator is not an"),
    "object": (MODEL, argued("as_custom_obj", {}), "as_custom_obj is not an argument"),
    "graph": (MODEL, argued("as_graph", {}), "as_graph is not an argument that is read"),
    "huge integer": (MODEL, argued("as_int", 10**40), "expected an integer of 64 bits"),
    "stride": (MODEL, padded([-9, -9]), "layer 'conv' (node conv2d, conv2d): torch"),
    "padding": (MODEL, padded([1, 1, 1, 1]), "torch refuses its arguments"),
    "control": (MODEL, argued("as_string", "\x1b[2J"), "of up to 10,000 characters that print"),
    "schema": (MODEL, lambda c: c.update(schema_version={"major": 7}), "written in schema 7 of"),
    "no input": (MODEL, unfed, "the model has no input"),
    "order": (MODEL, lambda c: nodes(c).reverse(), "nodes[0]: reads 'view', which nothing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, tmp_path: Path) -> None:
    member, change, message = REFUSED[kind]
    file = tmp_path / "bad.pt2"
    file.write_bytes(changed(float_archive(), member, change))
    with pytest.raises(SecateurError) as caught:
        load_archive(file)
    text = str(caught.value)
    assert message in text, text
    assert text.startswith(f"{file}: ")
    assert text.isprintable()
    assert len(text) < 1000


SIZES = (
    "s0**9**9**9", "*".join(["(s0+s1)"] * 40), "(" * 240 + "s0" + ")" * 240, "exit(0)", "u0", "1/0",
    "s0.free_symbols", "Symbol('s0', positive=open('x'))", "\n", "Symbol('s0", 7, None, ["s0"],
)  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_a_size_that_is_not_a_symbol_is_that_of_the_example(text: object, tmp_path: Path) -> None:
    file = tmp_path / "size.pt2"
    file.write_bytes(changed(float_archive(), MODEL, sized(text, {"as_int": 6})))
    program = load_archive(file)
    x = next(node for node in program.graph.nodes if node.name == "x")
    assert x.meta["val"].shape == (6, 1, 2, 2)
    assert all(type(size) is int for size in x.meta["val"].shape)
    assert torch.equal(program.module()(inputs()), small()(inputs()))


def test_limits(tmp_path: Path) -> None:
    """Each bound is met exactly, and named by the option that raises it."""
    file = tmp_path / "model.pt2"
    file.write_bytes(float_archive())
    operations = 7
    load_archive(file, Limits(nodes=operations))
    with pytest.raises(SecateurError, match=r"7 nodes, at most 6 are read; .* --max-nodes"):
        load_archive(file, Limits(nodes=operations - 1))
    bomb = members(float_archive()) | {"extra/zeros": bytes(3 << 20)}
    file.write_bytes(together(bomb, zipfile.ZIP_DEFLATED))
    assert file.stat().st_size < 1 << 20
    load_archive(file, Limits(megabytes=4))
    with pytest.raises(SecateurError, match=r"all that it unpacks to: .* --max-megabytes"):
        load_archive(file, Limits(megabytes=3))
    file.write_bytes(float_archive() + bytes(2 << 20))
    with pytest.raises(SecateurError, match=r"the file: .* at most 1 MB .* --max-megabytes"):
        load_archive(file, Limits(megabytes=1))


def test_values_of_a_graph_have_a_bound(tmp_path: Path) -> None:
    """A padding of a few bytes of JSON would make a map of terabytes."""

    file = tmp_path / "wide.pt2"
    file.write_bytes(changed(float_archive(), MODEL, padded([2**18, 2**18])))
    with pytest.raises(
        SecateurError, match=r"node conv2d.*: \d+,\d{3},\d{3},\d{3},\d{3} bytes, at most 1,024 MB"
    ):
        load_archive(file)


def test_ranges_of_no_size_take_no_time(tmp_path: Path) -> None:
    """torch counts up to the number in the name of a symbol that data decides."""

    def change(config: Any) -> None:
        config["range_constraints"]["u999999999999"] = {"min_val": 0, "max_val": None}

    file = tmp_path / "ranges.pt2"
    file.write_bytes(changed(float_archive(), MODEL, change))
    assert torch.equal(load_archive(file).module()(inputs()), small()(inputs()))
