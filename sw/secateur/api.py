"""The main functions: compile, run, simulate, verilog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from secateur._version import __version__
from secateur.errors import SecateurError
from secateur.hw.spec import Geometry, words_of
from secateur.image.image import Image
from secateur.inference import (
    Inputs,
    Outputs,
    Runner,
    input_words,
    layer_codes,
    load,
    outputs_of,
    program_of,
    run,
    run_on,
)
from secateur.progress import Progress, silent
from secateur.target import Target

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from secateur.quantisation.calibration import Calibration
    from secateur.quantisation.prepare import Graph

__all__ = [
    "Outputs",
    "Runner",
    "Simulation",
    "build_simulator",
    "compile",
    "layer_codes",
    "load",
    "run",
    "run_on",
    "simulate",
    "verilog",
]


@dataclass(frozen=True)
class Simulation:
    """A run in Verilator, compared with the golden interpreter.

    Attributes
    ----------
    outputs : results of the Verilog; None if some are missing
    cycles : per inference, as the engine counts them
    predicted_cycles : per inference, as the compiler counts them
    mismatches : one line per difference; empty if every pixel of every layer, every result and
        the cycles agree
    layers_compared : layers, summed over all inputs
    images : inputs that were run
    memory_wait : of an engine with a ring, cycles besides in which it waits for its source, the
        longest
    predicted_memory_wait : the same, as the golden interpreter counts them
    """

    outputs: Outputs | None
    cycles: int
    predicted_cycles: int
    mismatches: list[str]
    layers_compared: int
    images: int
    memory_wait: int = 0
    predicted_memory_wait: int = 0


def compile(
    model: torch.nn.Module | ExportedProgram,
    *,
    target: Target | str,
    calibration: Calibration | None = None,
    check: bool = True,
) -> Image:
    """Compile a model to an image.

    Parameters
    ----------
    model : a module or ExportedProgram in float, or the result of ``quantize``, which may have
        been saved and loaded by torch.export; N:1 blocks of zero weights are not stored
    target : a Target, or the name of a preset or TOML file
    calibration : inputs in the model's units, as of ``quantize``; needed for a float model only
    check : run the image on a few inputs (random ones for a quantised model) and compare every
        code of every layer with PyTorch

    Raises
    ------
    SecateurError : the model has an operation that the array cannot run, or does not fit the
        target; or, a bug of Secateur, the image and the quantised model differ
    """
    from torch.export import ExportedProgram

    from secateur.agreement import check_image, some_inputs
    from secateur.capture.export import checked, is_converted, module_of
    from secateur.compiler.compiler import compile_network
    from secateur.lowering.lower import lower
    from secateur.quantisation.calibration import calibration_calls, fitted
    from secateur.quantisation.prepare import quantize
    from secateur.quantisation.sqnr import warn_of_losses

    model = checked(model)
    target = Target.load(target) if isinstance(target, str) else target
    if not isinstance(target, Target):
        raise SecateurError(f"target must be a Target, or the name of one, not {target!r}")
    if not is_converted(model):
        if calibration is None:
            raise SecateurError(
                "the model is in float: give calibration inputs, or quantize it first"
            )
        calls, given = calibration_calls(model, calibration), model
        model = quantize(model, calls)
        tried = fitted(given, model, calls[0])
    else:
        tried = None
    network = lower(model)
    warn_of_losses(network)
    image = compile_network(network, target)
    if check:
        ran = module_of(model) if isinstance(model, ExportedProgram) else model
        graph = cast("Graph", ran)
        check_image(image, graph, some_inputs(graph, network, tried), network)
    return image


def verilog(
    geometry: Geometry,
    image: Image | None = None,
    family: str = "generic",
    interface: str = "stream",
    divisor: int | None = None,
    hard: int | None = None,
) -> str:
    """The engine as Verilog.

    Parameters
    ----------
    geometry : sizes of the array and its memories
    image : content of the weight memory, which is then a ROM; without it, a RAM to be loaded
    family : primitives: ``generic``, ``ecp5``, ``ice40`` or ``asic``; the last two take no image
    interface : ``stream``: the engine's own ports; ``axi`` or ``wishbone``: registers on that bus;
        ``uart``: registers behind a UART
    divisor : clock cycles per bit of the UART; for ``uart`` only
    hard : multipliers that are primitives or left to the synthesis tool; further ones are from
        logic. None: all

    Raises
    ------
    ValueError : family or interface are unknown, or do not go with the other arguments
    """
    texts = verilog_files(geometry, image, family, interface, divisor, hard, apart=False)
    return texts["secateur.v"]


def verilog_files(
    geometry: Geometry,
    image: Image | None,
    family: str,
    interface: str,
    divisor: int | None,
    hard: int | None,
    *,
    apart: bool,
    origin: str = f"Secateur {__version__}",
) -> dict[str, str]:
    """The engine as Verilog, and files for its ROM.

    Parameters
    ----------
    geometry, image, family, interface, divisor, hard : as for `verilog`
    apart : put what is in ROM into files that ``$readmemh`` reads
    origin : what made the file, for its head

    Returns
    -------
    texts by the names of the files

    Raises
    ------
    ValueError : as `verilog`
    """
    from secateur.hw.verilog import to_files

    texts: dict[str, str] = to_files(
        geometry,
        None if image is None else words_of(image.stream, image.n + 1),
        family=family,
        bels=None if hard is None else [None] * hard,
        interface=interface,
        divisor=divisor,
        apart=apart,
        origin=origin,
    )
    return texts


def build_simulator(geometry: Geometry) -> None:
    """Build what `simulate` runs for images of this geometry, unless it is in the cache.

    Raises
    ------
    SecateurError : Verilator cannot build the engine
    """
    from secateur.sim import simulate as bench

    bench.build(geometry)


def _check_place(file: Path) -> None:
    """Refuse a file that cannot be there, before it is made."""
    if not file.resolve().parent.is_dir():
        raise SecateurError(f"{file}: its folder does not exist")
    if file.is_dir():
        raise SecateurError(f"{file}: a folder; give the name of a file")


def _check_rom(image: Image, rom: bool) -> None:
    """Refuse a ROM in place of a ring."""
    if rom and image.geometry.ring:
        raise SecateurError(f"{image.name}: compiled for a ring, which is no ROM; omit rom")


def _counts(cycles: list[int], predicted: int, waits: list[int], waited: list[int]) -> list[str]:
    """Counts of inferences that are not as predicted: cycles, and waits for memory."""
    found = []
    if any(count != predicted for count in cycles):
        found.append(f"cycles {sorted(set(cycles))}, predicted {predicted}")
    if waited and waits != waited[: len(waits)]:
        found.append(f"waits for memory {waits}, predicted {waited}")
    return found


def _waits(program: Any, image: Image, inferences: int) -> list[int]:
    """Cycles in which each inference waits for the source of a ring, if there is one."""
    if image.source is None or not inferences:
        return []
    from secateur.sim.ring import waits

    return [sum(layers) for layers in waits(program, image.source, inferences)]


def simulate(
    image: Image,
    x: Inputs,
    *,
    stalls: float = 0.0,
    seed: int = 0,
    waves: Path | None = None,
    rom: bool = False,
    progress: Progress = silent,
) -> Simulation:
    """Run inputs on the Verilog in Verilator and compare every layer with the golden interpreter.

    Parameters
    ----------
    image : the image
    x : inputs, as for ``run``
    stalls : probability that a port pauses in a cycle, 0 to 0.95
    seed : random seed of the pauses
    waves : FST file to write waveforms to
    rom : put the image into ROM, instead of loading it through the stream
    progress : called before Verilator compiles and runs the engine

    Raises
    ------
    SecateurError : as ``run``; or Verilator cannot build or run the engine
    """
    if waves is not None:
        _check_place(waves)
    _check_rom(image, rom)
    from secateur.sim import golden
    from secateur.sim import simulate as bench

    packed, steps = input_words(image, x)
    restarts = steps if image.metadata.get("states") else 0
    program = program_of(image)
    expected = golden.run(program, packed, sequential=not restarts, steps=max(restarts, 1))
    progress("Verilator", 0, 0, "the first run compiles the engine, about a minute")
    result = bench.simulate(
        image.stream, packed, image.geometry, stalls=stalls, seed=seed, waves=waves, rom=rom,
        steps=restarts, source=image.source,
    )  # fmt: skip
    waits, waited = result.memory_waits, _waits(program, image, 0 if restarts else len(packed))
    compared = bench.compare(result, expected, packed)
    mismatches, outputs = list(compared.mismatches), None
    if stalls == 0:
        mismatches += _counts(result.cycles, expected.cycles, waits, waited)
    if result.results.size == expected.results.size:
        words = result.results.reshape(expected.results.shape)
        outputs = outputs_of(image, words, steps, compared.cycles)
    else:
        wanted = expected.results[..., 0].size
        mismatches.append(f"{len(result.results)} result words instead of {wanted}")
    return Simulation(
        outputs, compared.cycles, expected.cycles, mismatches, compared.layers_compared,
        len(packed) // steps, max(waits, default=0), max(waited, default=0),
    )  # fmt: skip
