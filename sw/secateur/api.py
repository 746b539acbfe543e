"""The main functions over all parts: compile, run, simulate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.image.image import Image
from secateur.inference import (
    Array,
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
from secateur.target import Target

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

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
    """What Verilator did beside the golden interpreter.

    ``mismatches`` lists differences, empty if every pixel of every layer, every result and the
    cycles agree. ``layers_compared`` counts layers over all images. ``outputs`` is None if results
    are missing. ``cycles`` are the engine's own count, ``predicted_cycles`` the compiler's.
    """

    outputs: Outputs | None
    cycles: int
    predicted_cycles: int
    mismatches: list[str]
    layers_compared: int
    images: int


def compile(
    model: torch.nn.Module | ExportedProgram,
    *,
    target: Target | str,
    calibration: torch.Tensor | None = None,
    check: bool = True,
) -> Image:
    """Compile a model to an image.

    Parameters
    ----------
    model : a module or ExportedProgram in float, or what ``quantize`` returns (as it is, or saved
        by torch.export). Zeros in the weights are the pruning.
    target : a Target, or the name of a preset or TOML file
    calibration : inputs, samples first, in the model's own units; only for a float model
    check : run the image on a few inputs, of a converted model random ones, and compare every code
        of every layer with PyTorch

    Raises
    ------
    SecateurError : the model has something the array cannot run, or does not fit the target; or,
        a fault of Secateur, the image computes something else than the quantised model
    """
    from torch.export import ExportedProgram

    from secateur.agreement import check_image, some_inputs
    from secateur.capture.export import check_model, is_converted, module_of
    from secateur.compiler.compiler import compile_network
    from secateur.lowering.lower import lower
    from secateur.quantisation.prepare import calibration_batches, quantize

    check_model(model)
    target = Target.load(target) if isinstance(target, str) else target
    if not isinstance(target, Target):
        raise SecateurError(f"target must be a Target, or the name of one, not {target!r}")
    if not is_converted(model):
        if calibration is None:
            raise SecateurError(
                "the model is in float: give calibration inputs, or quantise it first"
            )
        tried, model = calibration_batches(calibration)[0], quantize(model, calibration)
    else:
        tried = None
    network = lower(model)
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
) -> str:
    """The engine as Verilog.

    Parameters
    ----------
    geometry : sizes
    image : initial contents of the weight memory, then a ROM; without it a RAM that is loaded
    family : ``generic``, ``ecp5`` or ``asic``; for the last, no image
    interface : ``stream``: the engine's own ports; ``axi`` or ``wishbone``: with registers on that
        bus, ``docs/soc.md``; ``uart``: with registers behind a UART, ``docs/link.md``
    divisor : of the UART, clock cycles of a bit
    """
    from secateur.hw.verilog import to_verilog

    words = None
    if image is not None:
        words = [int.from_bytes(word.tobytes(), "little") for word in image.words]
    text = to_verilog(geometry, words, family=family, interface=interface, divisor=divisor)
    return str(text)


def build_simulator(geometry: Geometry) -> None:
    """Build what `simulate` runs for images of this geometry, unless it is in the cache.

    Raises
    ------
    SecateurError : Verilator cannot build the engine
    """
    from secateur.sim import simulate as bench

    bench.build(geometry)


def simulate(
    image: Image,
    x: Array,
    *,
    stalls: float = 0.0,
    seed: int = 0,
    waves: Path | None = None,
    rom: bool = False,
) -> Simulation:
    """Run inputs on the Verilog in Verilator and compare every layer with the golden interpreter.

    Parameters
    ----------
    image : the image; loaded through the stream, or built into the engine with ``rom``
    x : as for ``run``
    stalls : probability with which each port pauses in a cycle, drawn from ``seed``
    waves : an FST file to write waveforms to
    rom : initialise the weight memory with the image

    Raises
    ------
    SecateurError : as ``run``, or Verilator cannot build or run the engine
    """
    if waves is not None and not waves.resolve().parent.is_dir():
        raise SecateurError(f"{waves}: its folder does not exist")
    from secateur.sim import golden
    from secateur.sim import simulate as bench

    packed, steps = input_words(image, x)
    restarts = steps if image.metadata.get("states") else 0
    program = program_of(image)
    expected = golden.run(program, packed, sequential=not restarts, steps=max(restarts, 1))
    result = bench.simulate(
        image.stream, packed, image.geometry, stalls=stalls, seed=seed, waves=waves, rom=rom,
        steps=restarts,
    )  # fmt: skip
    compared = bench.compare(result, expected, packed)
    mismatches = list(compared.mismatches)
    if stalls == 0 and any(cycles != expected.cycles for cycles in result.cycles):
        mismatches.append(f"cycles {sorted(set(result.cycles))}, predicted {expected.cycles}")
    outputs = None
    if result.results.size == expected.results.size:
        words = result.results.reshape(expected.results.shape)
        outputs = outputs_of(image, words, steps, compared.cycles)
    else:
        mismatches.append(
            f"{len(result.results)} result words instead of {expected.results[..., 0].size}"
        )
    return Simulation(
        outputs, compared.cycles, expected.cycles, mismatches, compared.layers_compared, len(x)
    )
