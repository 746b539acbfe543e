"""More activation functions than the array has tables."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from secateur import api
from secateur.compiler.stream.tables import Slots, assign
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Geometry
from secateur.image import delta, signing
from secateur.report.summary import summary
from secateur.target import Target
from tests.support.pipeline import Built, build, check_image, compile_for

FUNCTIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus, nn.ELU, nn.SELU, nn.Hardswish,
    nn.LogSigmoid,
)  # fmt: skip


def check(uses: list[int], slots: Slots) -> int:
    """What a table is looked up in holds it, in three inferences; returns the fills of one."""
    held: list[int | None] = list(slots.start)
    for _ in range(3):
        for table, slot, fills in zip(uses, slots.slot, slots.fills, strict=True):
            if fills:
                held[slot] = table
            assert held[slot] == table
    return sum(slots.fills)


def fewest(uses: list[int], slots: int) -> int:
    """By a search over all contents of all slots; nothing is known of a slot with -1."""
    found = []
    numbers = [-1] * slots + sorted(set(uses))
    for start in set(itertools.combinations(numbers, slots)):
        costs = {start: 0}
        for table in uses:
            after: dict[tuple[int, ...], int] = {}
            for held, cost in costs.items():
                full = table in held
                for slot in range(1 if full else slots):
                    new = held if full else (*held[:slot], table, *held[slot + 1 :])
                    after[new] = min(after.get(new, cost + 1), cost + (not full))
            costs = after
        found += [
            cost
            for held, cost in costs.items()
            if all(one in (-1, other) for one, other in zip(start, held, strict=True))
        ]
    return min(found)


def test_few_fills() -> None:
    """At most one in a hundred more than the fewest, of small sequences."""
    rng, best, ours = random.Random(0), 0, 0
    for _ in range(150):
        tables, slots = rng.randint(2, 6), rng.randint(1, 3)
        uses = [rng.randrange(tables) for _ in range(rng.randint(1, 12))]
        ours += check(uses, assign(uses, slots))
        best += fewest(uses, slots)
    assert best > 200
    assert best <= ours <= 1.01 * best


@pytest.mark.parametrize("tables", range(1, 20))
def test_all_but_one_slot_keep_their_tables(tables: int) -> None:
    """Tables that are used once each: none is filled if there is room, else few of them are."""
    uses = list(range(tables))
    slots = assign(uses, 8)
    assert check(uses, slots) == (0 if tables <= 8 else tables - 7)
    if tables <= 8:
        assert slots.start == slots.slot == tuple(uses)


class Chain(nn.Module):
    """A convolution and a function, again and again; the last function is the first one, too."""

    def __init__(self) -> None:
        super().__init__()
        self.functions = nn.ModuleList(function() for function in FUNCTIONS)
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in FUNCTIONS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, function in zip(self.convs, self.functions, strict=True):
            x = function(conv(x))
        return x


def target(tables: int, *, extended: bool = True) -> Target:
    geometry = Geometry(
        n=2, p=2, weight_words=4096, bank_words=256, tables=tables, extended=extended
    )
    return Target(name="made", geometry=geometry)


@pytest.fixture(scope="module")
def built() -> Built:
    torch.manual_seed(0)
    return build(Chain(), torch.randn(8, 2, 4, 4))


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("tables", [8, 3, 1])
def test_a_network(built: Built, tables: int, extended: bool) -> None:
    to = target(tables, extended=extended)
    image = compile_for(built, to)
    check_image(built, image, to.geometry)
    assert image.tables == tables
    # A fill more for every slot less. Layers that look up the same slot may save a word each.
    fill = 1 + spec.TABLE_ENTRIES // 2 * (1 + spec.table_cycles(2))
    most = compile_for(built, target(8)).cycles + (8 - tables) * fill
    assert most - len(FUNCTIONS) < image.cycles <= most
    fills = [layer["fill"] for layer in image.metadata["layers"] if "fill" in layer]
    assert len(fills) == len(FUNCTIONS) - tables + 1
    assert set(fills) <= {fill - 1, fill}
    assert summary(image)["fill_cycles"] == sum(fills)


def test_in_verilator(built: Built) -> None:
    """The cycles, every code of every layer, and tables that are right again in each inference."""
    image = compile_for(built, target(3))
    report = api.simulate(image, built.x[:3].numpy())
    assert report.mismatches == []
    assert report.cycles == image.cycles


def test_files(built: Built, tmp_path: Path) -> None:
    """Patches and signatures of images whose tables come and go."""
    old = compile_for(built, target(3))
    torch.manual_seed(0)
    tuned = Chain()
    with torch.no_grad():
        tuned.convs[4].weight[0, 0, 1] += 0.05
    new = compile_for(build(tuned, built.x), target(3))
    files = []
    for name, image in (("old", old), ("new", new)):
        image.save(tmp_path / f"{name}.sec")
        files.append((tmp_path / f"{name}.sec").read_bytes())
    assert old.stream != new.stream
    patch = delta.make(*files)
    assert len(patch) < len(files[1]) / 3
    assert delta.apply(files[0], patch) == files[1]
    signing.keygen(tmp_path / "key", tmp_path / "key.pub")
    signing.sign(tmp_path / "new.sec", tmp_path / "key")
    assert signing.load(tmp_path / "new.sec", tmp_path / "key.pub").stream == new.stream


class Same(nn.Module):
    """One function of one range, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.sigmoid(y) + torch.sigmoid(y.flip(2))


def test_equal_tables_are_one() -> None:
    torch.manual_seed(0)
    same = build(Same(), torch.randn(8, 2, 4, 4))
    assert sum(layer.table is not None for layer in same.network.layers) == 2
    image = compile_for(same, target(8))
    check_image(same, image, target(8).geometry)
    assert image.tables == 1


class Steps(nn.Module):
    """A recurrent layer among functions: states live on while tables change."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 4), nn.Linear(4, 2)
        self.inner = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.inner(nn.functional.silu(self.before(x)))
        return nn.functional.softplus(self.after(nn.functional.gelu(y[:, -1])))


def test_sequences() -> None:
    torch.manual_seed(0)
    steps = build(Steps(), torch.randn(4, 5, 3))
    assert compile_for(steps, target(8)).tables > 3
    image = compile_for(steps, target(3))
    check_image(steps, image, target(3).geometry)
    report = api.simulate(image, steps.x[:2].numpy())
    assert report.mismatches == []


def test_an_array_without_tables(built: Built) -> None:
    with pytest.raises(SecateurError, match=r"layers 'convs.0', .* the target has none: choose"):
        compile_for(built, target(0))
