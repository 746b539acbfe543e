"""Archives that are refused, each for one reason, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.capture.archive.archive import load_archive
from secateur.errors import SecateurError
from tests.support.archives import CONSTANTS, MODEL, WEIGHTS, call, changed, float_archive, nodes


def _tensor(path: str) -> Callable[[Any], Any]:
    return lambda config: config["config"][path]["tensor_meta"]


def stretched(config: Any) -> None:
    """A bias of three floats that says it is one of 2**40, all the same."""
    _tensor("head.bias")(config).update(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}])


def longer(config: Any) -> None:
    _tensor("head.bias")(config).update(sizes=[{"as_int": 4}])


def together(config: Any) -> None:
    """Tensors of 600 MB each."""
    for path in ("head.bias", "conv.bias"):
        sizes = [{"as_int": 150 << 20}]
        _tensor(path)(config).update(sizes=sizes, strides=[{"as_int": 0}])


def elsewhere(config: Any) -> None:
    _tensor("head.bias")(config)["device"] = {"type": "cuda", "index": 0}


def shared(config: Any) -> None:
    config["config"]["conv.bias"]["path_name"] = config["config"]["norm.bias"]["path_name"]
    _tensor("conv.bias")(config)["dtype"] = 4


def upwards(config: Any) -> None:
    config["config"]["head.bias"]["path_name"] = "../constants/tensor_0"


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


def put(*calls: dict[str, Any]) -> Callable[[Any], None]:
    return lambda config: nodes(config).__setitem__(slice(0, 0), calls)


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


#: A list of numbers repeated; and a tensor of many elements, taken apart.
DOUBLED = call("torch.ops.aten.mul.left_t", "put", l={"as_ints": [1]}, n={"as_int": 2})
LONG = call("torch.ops.aten.zeros.default", "put", size={"as_ints": [1 << 17]})
PARTS = call("torch.ops.aten.unbind.int", "p", self={"as_tensor": {"name": "put"}}) | {
    "outputs": [{"as_tensors": [{"name": "p0"}]}], "name": "parts",
}  # fmt: skip
REFUSED: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "larger than its file": (WEIGHTS, longer, "tensor head.bias: 16 bytes, its file has 12"),
    "too large together": (WEIGHTS, together, "tensor head.bias and those before it: 1,258,"),
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
    "of numbers": (MODEL, put(DOUBLED), "node put (mul): an operation on weights that is not"),
    "in too many parts": (MODEL, put(LONG, PARTS), "more than 65,536 parts of a tensor"),
    "keyword": (MODEL, named("class"), "nodes[0].name: expected a name of letters"),
    "what code calls": (MODEL, named("getattr"), "expected a name of letters"),
    "not ASCII": (MODEL, named("\uff53elf"), "expected a name of letters"),
    "code": (MODEL, named("x\nimport os"), "expected a name of letters"),
    "method": (MODEL, at("forward"), "expected a path of names"),
    "state": (MODEL, at("head._parameters"), "expected a path of names"),
    "dunder path": (MODEL, at("__dict__.x"), "expected a path of names"),
    "keyword in path": (MODEL, at("head.class"), "expected a path of names"),
    "operator as value": (MODEL, argued("as_operator", "torch.hub.load"), "as_operator is not"),
    "object": (MODEL, argued("as_custom_obj", {}), "as_custom_obj is not supported as an argument"),
    "graph": (MODEL, argued("as_graph", {}), "as_graph is not supported as an argument"),
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
