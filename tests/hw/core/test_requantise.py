"""The requantiser against exact rational arithmetic, and that against PyTorch in float64."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
from amaranth.sim import Simulator
from hypothesis import given
from hypothesis import strategies as st

from secateur.hw import spec
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser

N = 4
LOW, HIGH = -(1 << spec.ACC_BITS - 1), (1 << spec.ACC_BITS - 1) - 1


def reference(total: int, bias: int, shift: int, low: int, high: int) -> int:
    """round() of a Fraction rounds half to even."""
    code = round(Fraction(total, 1 << shift) + Fraction(bias, 1 << spec.BIAS_FRACTION))
    return min(max(code, low), high)


@given(
    st.integers(LOW, HIGH),
    st.integers(-(1 << spec.BIAS_BITS - 1), (1 << spec.BIAS_BITS - 1) - 1),
    st.integers(0, 38),
    st.sampled_from([(-128, 127), (0, 255), (-3, 64), (5, 5)]),
)
def test_the_reference_is_what_torch_computes_in_float64(
    total: int, bias: int, shift: int, bounds: tuple[int, int]
) -> None:
    value = torch.tensor(total, dtype=torch.float64) / 2**shift + bias / 2**spec.BIAS_FRACTION
    assert int(torch.round(value).clamp(*bounds)) == reference(total, bias, shift, *bounds)


def random_sum(rng: random.Random, shift: int) -> int:
    """Extremes, and neighbours of ties."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice([LOW, LOW + 1, HIGH, 0, 1, -1])
    if kind == 1:
        return rng.randint(LOW, HIGH)
    tie = (2 * rng.randint(-300, 300) + 1) << shift >> 1
    return min(max(tie + rng.choice([0, 0, 1, -1]), LOW), HIGH)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_exact(signed: bool, steps: int) -> None:
    """Rows of 1 to 5 pixels back to back, as short as the drain can meet them."""
    rng = random.Random(int(signed))
    dut = Requantiser(n=N, steps=steps)
    latency = REQUANTISE_LATENCY // steps
    base = 0
    want: list[list[int]] = []
    got: list[list[int]] = []

    async def bench(ctx) -> None:
        nonlocal base
        for _ in range(300):
            low, high = (-128, 127) if signed else (0, 255)
            if rng.random() < 0.3:
                low, high = rng.randint(low, high), rng.randint(low, high)
            base = rng.choice([0, 8, rng.randint(0, 31)])
            bias = [rng.choice([0, 4, -4, rng.randint(-4096, 4095)]) for _ in range(N)]
            delta = [rng.randint(0, 7) for _ in range(N)]
            ctx.set(dut.shift_base, base)
            ctx.set(dut.signed, signed)
            ctx.set(dut.clip, (high & 0xFF) << 8 | low & 0xFF)
            ctx.set(dut.bias, bias)
            ctx.set(dut.delta, delta)
            await ctx.tick().repeat(N + 3)
            ctx.set(dut.load, 1)
            await ctx.tick()
            ctx.set(dut.load, 0)
            sums = [[random_sum(rng, base + d) for d in delta] for _ in range(rng.randint(1, 5))]
            for tick in range(len(sums) + latency):
                if tick < len(sums):
                    ctx.set(dut.sums, sums[tick])
                if tick >= latency:
                    got.append([int(code) for code in ctx.get(dut.codes)])
                if tick == 3 // steps:
                    ctx.set(dut.bias, [rng.randint(-4096, 4095) for _ in range(N)])
                    ctx.set(dut.delta, [rng.randint(0, 7) for _ in range(N)])
                await ctx.tick()
            want.extend(
                [
                    reference(s, b, base + d, low, high) & 0xFF
                    for s, b, d in zip(row, bias, delta, strict=True)
                ]
                for row in sums
            )

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == want
