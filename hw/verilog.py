"""Verilog export."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Sequence

from amaranth.back import verilog
from amaranth.hdl import Value
from amaranth.lib import wiring

from secateur.hw import source
from secateur.hw.engine import Engine
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.memory import asic_ram
from secateur.hw.ring import memory_words
from secateur.hw.soc.soc import BUSES, Soc
from secateur.hw.spec import Geometry
from secateur.hw.stream_top import StreamEngine

#: Rules of Verilator that the back end's style breaks, and why that is right: values are extended
#: and cut as Amaranth defines it, and tests compare what is meant with what is simulated; one file
#: holds all modules; see ``start_processes``.
_WAIVERS = [f"verilator lint_off {rule}" for rule in ("WIDTH", "DECLFILENAME", "INITIALDLY")]


def to_verilog(geometry: Geometry, init: Sequence[int] | None = None, **options) -> str:
    """Verilog of the engine in one file.

    Parameters
    ----------
    geometry, init : see ``Engine``
    **options : those of ``to_files`` but ``apart``
    """
    name = options.get("name", "secateur")
    return to_files(geometry, init, **options)[f"{name}.v"]


def to_files(
    geometry: Geometry,
    init: Sequence[int] | None = None,
    *,
    family: str = "generic",
    bels: Sequence[str | None] | None = None,
    compact: bool | None = None,
    name: str = "secateur",
    interface: str = "stream",
    divisor: int | None = None,
    apart: bool = False,
    origin: str = "Secateur",
) -> dict[str, str]:
    """Verilog of the engine, with a bus or a UART around it or without.

    Ports of an engine's nested interfaces are named with two underscores (``image__valid``). Clock
    and reset are ``clk`` and ``rst``, with "axi" ``aclk`` and ``aresetn``. For family "asic"
    nothing has a value at power-up.

    Parameters
    ----------
    geometry, init, family, bels, compact : see ``Engine``
    name : of the module
    interface : "stream" (see ``StreamEngine``), "axi" or "wishbone" (``Soc``), "uart"
        (``UartEngine``)
    divisor : cycles of a bit on the line, for "uart" only
    apart : put the contents of a ROM into files beside the source, which ``$readmemh`` reads
    origin : what made the file, for its head

    Returns
    -------
    texts by the names of the files: ``NAME.v``, and those of a ROM

    Raises
    ------
    ValueError : a parameter is out of range, or two do not go together
    """
    if (divisor is not None) != (interface == "uart"):
        raise ValueError(f"divisor must be given for interface 'uart' alone, not {divisor!r}")
    settings = {"init": init, "family": family, "bels": bels}
    top = _top(geometry, interface, settings, compact=compact, divisor=divisor)
    text = verilog.convert(top, name=name, emit_src=False)
    files: dict[str, str] = {}
    if family != "ecp5":
        text = source.in_any_memory(text)
    if family == "asic":
        text = source.without_initial_values(text)
        text += asic_ram.definitions(text)
    else:
        text, files = source.fill_memories(text, apart=f"{name}.engine.memory" if apart else None)
    head = _head(top, name=name, interface=interface, files=list(files), origin=origin)
    text = source.introduce(
        source.complete_cases(source.start_processes(text)), name, _ports(top, interface), head
    )
    return {f"{name}.v": text} | files


def _top(
    geometry: Geometry, interface: str, settings: dict, *, compact: bool | None, divisor: int | None
) -> wiring.Component:
    """The component of an interface."""
    if interface == "stream":
        return StreamEngine(Engine(geometry, compact=compact, **settings))
    if interface in BUSES:
        return Soc(geometry, bus=interface, **settings)
    if interface == "uart":
        return UartEngine(geometry, divisor=divisor, **settings)
    known = ", ".join(["stream", *BUSES, "uart"])
    raise ValueError(f"interface must be one of {known}, not {interface!r}")


def _ports(top: wiring.Component, interface: str) -> list[str]:
    """Names of the ports: clock and reset, then in the order of the members."""
    own = ["__".join(map(str, path)) for path, _, _ in top.signature.flatten(top)]
    return own if interface == "axi" else ["clk", "rst", *own]


def _head(
    top: wiring.Component, *, name: str, interface: str, files: list[str], origin: str
) -> list[str]:
    """The comment in front of a file: what the module is, and what its ports are."""
    engine = top.engine
    size, family = engine.geometry, engine.family
    soft = 0 if engine.bels is None else size.multipliers - len(engine.bels)
    clock = "aclk; reset: aresetn, low" if interface == "axi" else "clk; reset: rst, high"
    lines = [
        f"Module {name}: a block-sparse engine of {size.n} x {size.p} multipliers for networks.",
        f"Written by {origin}.",
        "",
        f"N = {size.n}, P = {size.p}, {size.tables} tables, {soft} multipliers from logic; "
        f"family {family}.",
        f"Memories: weights of {memory_words(size)} words of {size.word_bits} bits, {size.p} banks "
        f"of {size.bank_words} words of {8 * size.n} bits.",
        f"Weights: {_contents(engine.init, size)}.",
    ]
    lines += [f"Parameter {file[:-4].upper()}: path of {file}, for $readmemh." for file in files]
    lines += [
        f"Clock: {clock}, synchronous, for one cycle or more.",
        "",
        "Ports, besides clock and reset:",
    ]
    for path, member, value in top.signature.flatten(top):
        kind = "input " if member.flow == wiring.In else "output"
        lines.append(f"  {kind} {len(Value.cast(value)):4}  {'__'.join(map(str, path))}")
    members = _members(type(engine if interface == "stream" else top))
    return [*lines, "", "What they are:", *(f"  {line}" for line in members), "", *_WAIVERS]


def _contents(init: Sequence[int] | None, size: Geometry) -> str:
    """What the weight memory holds."""
    if size.ring:
        return f"a ring, for images of up to {size.weight_words} words"
    if init is None:
        return "a RAM, which takes an image"
    data = b"".join(word.to_bytes(size.word_bytes, "little") for word in init)
    return f"a ROM with the image of SHA-256 {hashlib.sha256(data).hexdigest()}"


def _members(component: type) -> list[str]:
    """The members in a component's docstring, as they stand there."""
    doc = inspect.getdoc(component)
    found = re.search(r"^Members\n-+\n(.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    return found[1].splitlines()
