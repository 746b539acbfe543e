"""Files for other tools: Verilog and memory images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from secateur._version import __version__
from secateur.api import verilog_files
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.image import signing
from secateur.image.fit import misfit
from secateur.image.image import Image
from secateur.target import Target, check_family, check_primitives
from secateur.text import printable

INTERFACES = ("stream", "axi", "wishbone", "uart")
#: Interfaces with registers on a bus, which the C driver is for.
BUSES = ("axi", "wishbone")
#: The memory of families that holds nothing at power-up.
NO_ROM = {"ice40": "the SPRAM of an iCE40", "asic": "the memory of an ASIC"}
DRIVER = ("secateur.h", "secateur.c", "secateur_registers.h")
#: For a SoC of LiteX, whose bus is Wishbone.
LITEX = ("secateur_litex.py", "secateur_litex.h", "secateur_litex.c")

_CORE = """\
CAPI=2:
name: secateur:engine:secateur_{n}x{p}_{interface}:{version}
description: Block-sparse neural network engine, {n} x {p}, {ports}

filesets:
  rtl:
    files:
      - secateur.v
{memories}    file_type: verilogSource

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


def core(target: Target, interface: str, memories: Iterable[str] = ()) -> str:
    """FuseSoC's description (CAPI2) of the Verilog beside it.

    Parameters
    ----------
    target : the engine
    interface : one of INTERFACES
    memories : files that the Verilog reads; they are copied to where tools run
    """
    return _CORE.format(
        memories="".join(f"      - {m}: {{file_type: user, copyto: {m}}}\n" for m in memories),
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
    *,
    one_file: bool = False,
) -> dict[str, Any]:
    """Write ``secateur.v`` and ``secateur.core``; for a bus also its drivers.

    Parameters
    ----------
    target_name : a preset or a TOML file
    folder : for the files; it is made if it is missing
    image_path : the image in ROM, whose weight memory is also written in every format; None: a RAM
    family : of the primitives; None: the target's
    interface : one of INTERFACES
    divisor : for the interface uart, clock cycles per bit
    key : public key; an image without its signature is then refused
    one_file : keep the contents of a ROM in ``secateur.v``, instead of in files beside it

    Returns
    -------
    the name of the target and the list of files

    Raises
    ------
    SecateurError : unknown target, family or interface, or the image does not fit or is unsigned
    """
    _check_options(interface, divisor, family)
    target = Target.load(target_name)
    family = family or target.family
    check_primitives(target.geometry, family, f"target {target_name!r}")
    _check_ring(target, interface, image_path)
    image = None if image_path is None else _load(image_path, target, family, key)
    options = {"target": target_name, "image": image_path and image_path.name, "family": family}
    options |= {"interface": interface, "divisor": None if divisor is None else str(divisor)}
    texts = verilog_files(
        target.geometry,
        image,
        family,
        interface,
        divisor,
        target.hard,
        apart=not one_file,
        origin=f"Secateur {__version__}: {printable(_command(options, one_file))}",
    )
    _make(folder)
    texts["secateur.core"] = core(target, interface, [n for n in texts if n != "secateur.v"])
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= _drivers(interface)
    contents |= {} if image is None else _memories(image, target.geometry.weight_words)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return {"target": target.name, "files": [str(folder / name) for name in contents]}


def _drivers(interface: str) -> dict[str, bytes]:
    """The files that go with registers on a bus."""
    found: dict[str, bytes] = {}
    if interface in BUSES:
        sources = resources.files("secateur.boards.driver") / "c"
        found |= {name: (sources / name).read_bytes() for name in DRIVER}
    if interface == "wishbone":
        sources = resources.files("secateur.boards.soc")
        found |= {name: (sources / name).read_bytes() for name in LITEX}
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SecateurError(f"{folder}: cannot be made: {error.strerror}") from None


def _memories(image: Image, depth: int) -> dict[str, bytes]:
    """The weight memory of an image in every format, by the names of the files."""
    contents = {f"weights.{style}": images.export(image, style, depth) for style in images.FORMATS}
    return {
        name: memory if isinstance(memory, bytes) else memory.encode()
        for name, memory in contents.items()
    }


def _check_options(interface: str, divisor: int | None, family: str | None) -> None:
    """Refuse an interface or a family that there is not, and a divisor without a UART."""
    if interface not in INTERFACES:
        raise SecateurError(f"interface {interface!r} is not one of {', '.join(INTERFACES)}")
    if interface == "uart" and divisor is None:
        raise SecateurError("--interface uart needs --divisor: clock / baud, e.g. 25")
    if interface != "uart" and divisor is not None:
        raise SecateurError(f"--divisor is for --interface uart, not {interface}; omit it")
    if family is not None:
        check_family(family)


def _check_ring(target: Target, interface: str, image: Path | None) -> None:
    """Refuse what an engine with a ring does not have: registers, and a ROM."""
    if interface not in ("stream", "axi"):
        target.without_ring(f"interface {interface}")
    if target.geometry.ring and image is not None:
        raise SecateurError(
            f"{image}: target {target.name!r} has a ring and no ROM; omit --image: the image "
            f"comes from outside"
        )


def _command(options: Mapping[str, object], one_file: bool) -> str:
    """The command that writes a file again."""
    given = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["secateur verilog", *given, *["--one-file"] * one_file])


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
