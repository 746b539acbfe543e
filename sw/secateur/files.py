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
from secateur.image import signing
from secateur.image.fit import misfit
from secateur.image.image import Image
from secateur.target import Target, check_family, check_primitives

INTERFACES = ("stream", "axi", "wishbone", "uart")
#: Interfaces with registers on a bus, which the C driver is for.
BUSES = ("axi", "wishbone")
#: The memory of families that holds nothing at power-up.
NO_ROM = {"ice40": "the SPRAM of an iCE40", "asic": "the memory of an ASIC"}
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

    Parameters
    ----------
    image : the image
    target : the target
    name : of the image, for the message

    Raises
    ------
    SecateurError : N or P differ, a memory is too small, or tables or modes are missing
    """
    problem = misfit(image.stream, target.geometry, f"target {target.name}")
    modes = {
        source["mode"] for layer in image.metadata.get("layers", ()) for source in layer["sources"]
    }
    if problem is None and not target.geometry.extended and modes & {"maximum", "gate"}:
        problem = (
            f"uses max pooling or products of two tensors, which the lanes of the target "
            f"{target.name} do not support (extended = false); compile the model for it"
        )
    if problem is not None:
        raise SecateurError(f"{name}: {problem}")


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
    key: Path | None = None,
) -> dict[str, Any]:
    """Write ``secateur.v`` and ``secateur.core``; for a bus also the C driver.

    Parameters
    ----------
    target_name : a preset or a TOML file
    folder : for the files; it is made if it is missing
    image_path : the image in ROM, whose weight memory is also written in every format; None: a RAM
    family : of the primitives; None: the target's
    interface : one of INTERFACES
    divisor : for the interface uart, clock cycles per bit
    key : public key; an image without its signature is then refused

    Returns
    -------
    the name of the target and the list of files

    Raises
    ------
    SecateurError : unknown target, family or interface, or the image does not fit or is unsigned
    """
    if interface not in INTERFACES:
        raise SecateurError(f"interface {interface!r} is not one of {', '.join(INTERFACES)}")
    if interface == "uart" and divisor is None:
        raise SecateurError("--interface uart needs --divisor: clock / baud, e.g. 25")
    if interface != "uart" and divisor is not None:
        raise SecateurError(f"--divisor is for --interface uart, not {interface}; omit it")
    if family is not None:
        check_family(family)
    target = Target.load(target_name)
    family = family or target.family
    check_primitives(target.geometry, family, f"target {target_name!r}")
    image = None if image_path is None else _load(image_path, target, family, key)
    text = verilog(target.geometry, image, family, interface, divisor, target.hard)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SecateurError(f"{folder}: cannot be made: {error.strerror}") from None
    contents = {"secateur.v": text.encode(), "secateur.core": core(target, interface).encode()}
    if interface in BUSES:
        sources = resources.files("secateur.boards.driver") / "c"
        contents |= {name: (sources / name).read_bytes() for name in DRIVER}
    if image is not None:
        for style in images.FORMATS:
            memory = images.export(image, style, target.geometry.weight_words)
            contents[f"weights.{style}"] = memory if isinstance(memory, bytes) else memory.encode()
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return {"target": target.name, "files": [str(folder / name) for name in contents]}


def _load(path: Path, target: Target, family: str, key: Path | None) -> Image:
    """The image for a ROM, if the family has one and it fits."""
    if family in NO_ROM:
        raise SecateurError(
            f"{path}: {NO_ROM[family]} holds nothing at power-up; omit --image and load the image "
            f"through the interface"
        )
    image = signing.load(path, key)
    check_fit(image, target, str(path))
    return image
