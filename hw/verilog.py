"""Verilog export."""

from __future__ import annotations

from amaranth.back import verilog

from .engine import Engine
from .spec import Geometry


def to_verilog(
    geometry: Geometry, init=None, *, family="generic", bels=None, name="secateur"
) -> str:
    """Verilog of an ``Engine``; see there for the parameters and for the ports.

    Ports of nested interfaces are named with two underscores (``image__valid``); clock and reset
    are ``clk`` and ``rst``.
    """
    engine = Engine(geometry, init=init, family=family, bels=bels)
    return verilog.convert(engine, name=name, emit_src=False)
