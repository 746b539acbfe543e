"""Archives of torch.export for tests: small ones, taken apart, changed and put together again."""

from __future__ import annotations

import functools
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import secateur
from secateur.capture.export import quiet

#: Members by path below the archive's own folder.
Members = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Small(nn.Module):
    """Convolution, BatchNorm, a constant buffer and a size of the batch."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 4, 3)
        self.register_buffer("scale", torch.full((4, 1, 1), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu() * self.scale
        return self.head(y.view(y.shape[0], -1))  # type: ignore[no-any-return]


def inputs(batch: int = 6) -> Tensor:
    """Inputs of ``Small``."""
    return torch.rand(batch, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def saved(model: Any, x: Tensor, *, fixed: bool = False) -> bytes:
    """The archive of a model, or of a program; its batch is dynamic unless ``fixed``."""
    batch = None if fixed else ({0: torch.export.Dim.AUTO},)
    buffer = io.BytesIO()
    with quiet():
        if isinstance(model, nn.Module):
            model = torch.export.export(model, (x,), dynamic_shapes=batch)
        torch.export.save(model, buffer)
    return buffer.getvalue()


@functools.cache
def small() -> nn.Module:
    """A model of fixed weights; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


@functools.cache
def float_archive() -> bytes:
    """The archive of ``small``."""
    return saved(small(), inputs())


@functools.cache
def quantised_archive() -> bytes:
    """The archive of ``small``, quantised."""
    return saved(secateur.quantize(small(), inputs()), inputs())


def members(data: bytes) -> Members:
    """The files in an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def together(parts: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of files, with the right checks of all."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, content in parts.items():
            archive.writestr(f"archive/{path}", content)
    return buffer.getvalue()


def changed(data: bytes, member: str, change: Callable[[Any], object]) -> bytes:
    """The archive with one file of JSON changed in place by a function."""
    parts = members(data)
    value = json.loads(parts[member])
    change(value)
    return together(parts | {member: json.dumps(value).encode()})


def nodes(config: Any) -> Any:
    """The operations in the JSON of a program."""
    return config["graph_module"]["graph"]["nodes"]


def call(target: str, result: str, **arguments: object) -> dict[str, Any]:
    """An operation whose arguments are given as the JSON has them; it gives one tensor."""
    return {
        "target": target,
        "name": result,
        "inputs": [{"name": key, "arg": arg, "kind": 1} for key, arg in arguments.items()],
        "outputs": [{"as_tensor": {"name": result}}],
        "metadata": {},
    }


#: What stands where something else is expected: code, wrong types, sizes beyond all bounds.
HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, 2**63 - 1, 2**64, 10**30, -(2**63), 0.5, 1e308,
    "", "x", "self", "class", "torch", "Infinity", "NaN", "x" * 20_000, "\ud800", "\x1b[31m\n",
    "../../etc/passwd", "a.b.c", "0", "s0", "u99999999", "forward", "__class__", "conv2d", "relu",
    'x"), open("PAYLOAD_RAN", "w"), ("', "__import__('pathlib').Path('PAYLOAD_RAN').touch()",
    "torch.hub.load", "torch.ops.aten.from_file.default", "torch.ops.aten.relu.default",
    "torch.ops.aten.add.Tensor", "_operator.mul", "math.factorial",
    "Mul(Integer(2), Symbol('s77', positive=True, integer=True))", [], {}, [[]], [0], [1, 1], [-1],
    [2**62], {"as_int": -5}, {"as_int": 2**40}, {"as_none": True}, {"as_tensor": {"name": "x"}},
    {"as_expr": {"expr_str": "s77", "hint": {"as_int": 4}}}, {"as_string": "same"},
    {"as_ints": [3, 3]}, {"as_float": "-Infinity"}, {"as_operator": "torch.hub.load"},
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All objects and lists in a value, with their keys."""
    found: list[tuple[Any, Any]] = []
    keys = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(keys):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += _places(inner)
    return found


def mutate(value: Any, rng: random.Random) -> None:
    """Change one to three values anywhere in JSON, in a program mostly what it computes."""
    module = value.get("graph_module", value)
    parts = (value, value, module.get("signature", value), module.get("graph", value))
    nodes = module.get("graph", {}).get("nodes", value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(rng.choice((*parts, nodes, nodes, nodes, nodes)))
        if not places:
            continue
        holder, key = rng.choice(places)
        old, way = holder[key], rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), old)
        elif way == 2 and type(old) in (int, float):
            holder[key] = rng.choice((old + 1, old - 1, old * 1000, -old, float(old), str(old)))
        elif way <= 3:  # what stands under the same key elsewhere
            same = [h[k] for h, k in places if k == key or isinstance(h, list)]
            holder[key] = json.loads(json.dumps(rng.choice(same)))
        else:
            holder[key] = rng.choice(HOSTILE)
