"""Files for other tools: Verilog and memory images."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from secateur._version import __version__
from secateur.api import verilog
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image.image import Image
from secateur.target import Target, check_family, check_primitives

INTERFACES = ("stream", "axi", "wishbone", "uart")
#: Those with registers on a bus, for which there is a driver in C.
BUSES = ("axi", "wishbone")
DRIVER = ("secateur.h", "secateur.c", "secateur_registers.h")

_CORE = """\
CAPI=2:
name: secateur:engine:secateur_{n}x{p}_{interface}:{version}
description: Block-sparse neural network engine, {n} x {p}, {ports}

filesets:
  rtl:
    files:
      - secateur.v
    file_type: verilogSource

targets:
  default:
    filesets: [rtl]
    toplevel: secateur
  lint:
    description: Lint of the Verilog by Verilator
    filesets: [rtl]
    toplevel: secateur
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wno-fatal]
"""
_PORTS = {
    "stream": "valid/ready streams",
    "axi": "AXI4-Lite and AXI4-Stream",
    "wishbone": "Wishbone and AXI4-Stream",
    "uart": "a UART",
}


def check_fit(image: Image, target: Target, name: str) -> None:
    """Refuse an image that the target's engine would refuse.

    Raises
    ------
    SecateurError : N or P differ, a memory is too small, or there are not the tables or the modes
    """
    geometry = target.geometry
    if (image.n, image.p) != (geometry.n, geometry.p):
        raise SecateurError(
            f"{name}: compiled for {image.n}x{image.p}, the target {target.name} is "
            f"{geometry.n}x{geometry.p}; compile the model for it"
        )
    for what, needed, there in (
        ("weight memory", len(image.words), geometry.weight_words),
        ("banks", image.bank_words, geometry.bank_words),
    ):
        if needed > there:
            raise SecateurError(
                f"{name}: needs {needed} words of {what}, the target {target.name} has {there}"
            )
    if image.tables > geometry.tables:
        raise SecateurError(
            f"{name}: needs {image.tables} activation tables, the target {target.name} "
            f"has {geometry.tables}"
        )
    modes = {
        source["mode"] for layer in image.metadata.get("layers", ()) for source in layer["sources"]
    }
    if not geometry.extended and modes & {"maximum", "gate"}:
        raise SecateurError(
            f"{name}: has maximum pooling or products of tensors, which the lanes of the target "
            f"{target.name} do not do (extended = false); compile the model for it"
        )


def core(target: Target, interface: str) -> str:
    """FuseSoC's description (CAPI2) of the Verilog beside it."""
    return _CORE.format(
        n=target.geometry.n,
        p=target.geometry.p,
        interface=interface,
        version=__version__,
        ports=_PORTS[interface],
    )


def write_verilog(
    target_name: str,
    folder: Path,
    image_path: Path | None,
    family: str | None = None,
    interface: str = "stream",
    divisor: int | None = None,
) -> dict[str, Any]:
    """Write ``secateur.v`` and ``secateur.core``, with an image the weight memory in every format,
    and for a bus the C driver.

    ``family`` is the target's if None; ``divisor`` is for a uart alone. Returns the list of files.

    Raises
    ------
    SecateurError : unknown target, family or interface, or the image does not fit
    """
    if interface not in INTERFACES:
        raise SecateurError(f"interface {interface!r} is not one of {', '.join(INTERFACES)}")
    if (divisor is not None) != (interface == "uart"):
        raise SecateurError(
            "the interface uart, and no other, takes a divisor: clock cycles of a bit, clock / baud"
        )
    if family is not None:
        check_family(family)
    target = Target.load(target_name)
    family = family or target.family
    image = None
    check_primitives(target.geometry, family, f"target {target_name!r}")
    if image_path is not None and family == "ice40":
        raise SecateurError(
            f"{image_path}: the SPRAM of an iCE40 holds nothing at power-up; leave --image away "
            f"and load the image through the interface"
        )
    if image_path is not None and family == "asic":
        raise SecateurError(
            f"{image_path}: the memories of an ASIC hold nothing at power-up; leave --image away "
            f"and load the image through the interface"
        )
    if image_path is not None:
        image = images.load(image_path)
        check_fit(image, target, str(image_path))
    text = verilog(target.geometry, image, family, interface, divisor)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SecateurError(f"{folder}: cannot be made: {error.strerror}") from None
    contents = {"secateur.v": text, "secateur.core": core(target, interface)}
    if interface in BUSES:
        sources = resources.files("secateur.boards.driver") / "c"
        contents |= {name: (sources / name).read_text() for name in DRIVER}
    written = [folder / name for name in contents]
    for path, content in zip(written, contents.values(), strict=True):
        write_atomically(path, content.encode())
    if image is not None:
        for style in images.FORMATS:
            memory = images.export(image, style, target.geometry.weight_words)
            path = folder / f"weights.{style}"
            write_atomically(path, memory if isinstance(memory, bytes) else memory.encode())
            written.append(path)
    return {"target": target.name, "files": [str(path) for path in written]}
