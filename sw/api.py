"""The main functions over all parts: compile, run, simulate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from secateur import host
from secateur import image as images
from secateur.errors import SecateurError
from secateur.hw.spec import Geometry
from secateur.image import Image
from secateur.target import Target

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

__all__ = [
    "Outputs",
    "Simulation",
    "compile",
    "layer_codes",
    "load",
    "run",
    "run_on",
    "simulate",
    "verilog",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outputs:
    """Results of a batch: ``codes`` (batch, ...) int8 or uint8, ``values`` float32, and the cycles
    of one inference. Of sequences, an inference is a step; codes are those of the last one, or
    (batch, steps, ...) if the model returns all."""

    codes: Array
    values: npt.NDArray[np.float32]
    cycles: int


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


class Runner(Protocol):
    """Hardware that holds an image."""

    def restart(self) -> None:
        """Forget all but the image."""

    def run(self, inputs: bytes, beats: int) -> tuple[bytes, int]:
        """Result words and cycles of one inference."""


def load(path: Path | str, key: Path | str | None = None) -> Image:
    """Read an image file; with ``key``, a public Ed25519 key in PEM, only a signed one.

    Raises
    ------
    SecateurError : the file is missing or damaged; its program is refused, or is not what its
        metadata say; with ``key``, unsigned or signed by another
    """
    from secateur import signing

    image = images.load(path) if key is None else signing.load(path, key)
    _program(image)
    return image


def compile(
    model: torch.nn.Module | ExportedProgram,
    *,
    target: Target | str,
    calibration: torch.Tensor | None = None,
) -> Image:
    """Compile a model to an image.

    Parameters
    ----------
    model : a module or ExportedProgram in float, or what ``quantize`` returns (as it is, or saved
        by torch.export). Zeros in the weights are the pruning.
    target : a Target, or the name of a preset or TOML file
    calibration : inputs, samples first, in the model's own units; only for a float model

    Raises
    ------
    SecateurError : the model has something the array cannot run, or does not fit the target
    """

    from secateur.compiler import compile_network
    from secateur.export import check_model, is_converted
    from secateur.lower import lower
    from secateur.quantise import quantize

    check_model(model)
    target = Target.load(target) if isinstance(target, str) else target
    if not isinstance(target, Target):
        raise SecateurError(f"target must be a Target, or the name of one, not {target!r}")
    if not is_converted(model):
        if calibration is None:
            raise SecateurError(
                "the model is in float: give calibration inputs, or quantise it first"
            )
        model = quantize(model, calibration)
    return compile_network(lower(model), target)


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


def _program(image: Image) -> Any:
    """The decoded image: what its metadata say of the program is so."""
    from secateur.sim import golden

    if not isinstance(image, Image):
        given = repr(image) if isinstance(image, str | Path) else type(image).__name__
        raise SecateurError(
            f"image must be an Image, not {given}; secateur.load reads files, secateur.compile "
            f"makes one of a model"
        )
    again = "compile the model again"
    try:
        program = golden.parse(image.stream, image.geometry)
    except golden.ImageError as error:
        raise SecateurError(f"{image.name}: the program is refused: {error}; {again}") from None
    if image.metadata:
        layers, output = image.metadata["layers"], image.metadata["output"]
        for key, says, has in (
            ("input.words", image.metadata["input"]["words"], program.input_words),
            ("output.m", output["m"], golden.result_words(program).tolist()),
            (
                "layers.rows",
                [meta["rows"] for meta in layers],
                [len(x.rows) for x in program.layers],
            ),
        ):
            if says != has:
                counts = [len(x) if isinstance(x, list) else x for x in (says, has)]
                raise SecateurError(
                    f"{image.name}: its metadata: {key} is not the program's ({counts[0]}, "
                    f"expected {counts[1]}); {again}"
                )
    return program


def _check_inputs(x: object) -> None:
    """Refuse what is no array with samples first."""
    if not isinstance(x, np.ndarray):
        raise SecateurError(
            f"input 'x' must be a NumPy array, not {type(x).__name__}; give np.asarray(x)"
        )
    if x.ndim == 0 or len(x) == 0:
        raise SecateurError(f"input 'x' has shape {x.shape}; give samples first, at least one")


def _packed(image: Image, x: Array) -> tuple[npt.NDArray[np.uint8], int]:
    """Input words of all inferences, and the inferences of a sequence."""
    _check_inputs(x)
    if "input" not in image.metadata:
        raise SecateurError(f"{image.name}: has no metadata, so its input layout is unknown")
    meta, steps = image.metadata["input"], 1
    if image.metadata.get("states"):
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != meta["channels"]:
            raise SecateurError(
                f"input 'x' has shape {tuple(x.shape)}, the model takes sequences "
                f"(batch, steps, {meta['channels']})"
            )
        steps, x = x.shape[1], x.reshape(-1, x.shape[2])
    return host.pack(host.to_codes(x, meta), meta, image.n), steps


def _outputs(image: Image, words: npt.NDArray[np.uint8], steps: int, cycles: int) -> Outputs:
    meta = image.metadata["output"]
    codes = host.result_codes(words, meta)
    if image.metadata.get("states"):
        codes = codes.reshape(-1, steps, *codes.shape[1:])
        codes = codes if image.metadata["every_step"] else codes[:, -1]
    return Outputs(codes, host.to_floats(codes, meta), cycles)


def run(
    image: Image, x: Array, progress: Callable[[int], None] | None = None, batch: int = 256
) -> Outputs:
    """Run inputs through the golden interpreter.

    Parameters
    ----------
    image : the image
    x : (batch, C, H, W), (batch, C, L) or (batch, C), of a recurrent model (batch, steps, F):
        floats in the model's units, or int8/uint8 codes
    progress : called with the images done so far
    batch : images between two calls of ``progress``

    Raises
    ------
    SecateurError : the inputs do not fit the model, or the image is damaged
    """
    from secateur.sim import golden

    _check_inputs(x)
    program, parts, cycles, done = _program(image), [], 0, 0
    for begin in range(0, len(x), batch):
        packed, steps = _packed(image, x[begin : begin + batch])
        result = golden.run(program, packed, trace=False, steps=steps)
        parts.append(result.results)
        cycles, done = result.cycles, done + len(packed) // steps
        if progress is not None:
            progress(done)
    return _outputs(image, np.concatenate(parts), steps, cycles)


def run_on(
    image: Image, x: Array, device: Runner, progress: Callable[[int], None] | None = None
) -> tuple[Outputs, list[int]]:
    """Run inputs on hardware that holds the image; outputs, and the cycles of every inference.

    Parameters
    ----------
    image, x, progress : as for ``run``
    device : a ``secateur.boards.device.Device``, or what does the same

    Raises
    ------
    SecateurError : the inputs do not fit the model
    """
    packed, steps = _packed(image, x)
    beats = len(image.metadata["output"]["m"])
    words, cycles = list[bytes](), list[int]()
    for index, inputs in enumerate(packed):
        if index == 0 or (image.metadata.get("states") and index % steps == 0):
            device.restart()
        result, count = device.run(inputs.tobytes(), beats)
        words.append(result)
        cycles.append(count)
        if progress is not None:
            progress((index + 1) // steps)
    results = np.frombuffer(b"".join(words), np.uint8).reshape(len(packed), beats, image.n)
    return _outputs(image, results, steps, max(cycles)), cycles


def layer_codes(image: Image, x: Array) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Name and codes (batch, C, H, W) of every layer, from the golden interpreter; of sequences
    (batch * steps, C, H, W)."""
    from secateur.sim import golden

    packed, steps = _packed(image, x)
    result = golden.run(_program(image), packed, steps=steps)
    tensors = {tensor["name"]: tensor for tensor in image.metadata["tensors"]}
    for trace, meta in zip(result.layers, image.metadata["layers"], strict=True):
        tensor = tensors[meta["output"]]
        codes = host.unpack(trace.m, trace.codes, tensor, meta["first"], meta["channels"])
        yield meta["name"], codes


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
    from secateur.sim import golden, verilator
    from secateur.sim import simulate as bench

    packed, steps = _packed(image, x)
    restarts = steps if image.metadata.get("states") else 0
    program = _program(image)
    expected = golden.run(program, packed, sequential=not restarts, steps=max(restarts, 1))
    try:
        result = bench.simulate(
            image.stream, packed, image.geometry, stalls=stalls, seed=seed, waves=waves, rom=rom,
            steps=restarts,
        )  # fmt: skip
    except verilator.SimulationError as error:
        raise SecateurError(error.line) from None
    compared = bench.compare(result, expected, packed)
    mismatches = list(compared.mismatches)
    if stalls == 0 and any(cycles != expected.cycles for cycles in result.cycles):
        mismatches.append(f"cycles {sorted(set(result.cycles))}, predicted {expected.cycles}")
    outputs = None
    if result.results.size == expected.results.size:
        words = result.results.reshape(expected.results.shape)
        outputs = _outputs(image, words, steps, compared.cycles)
    else:
        mismatches.append(
            f"{len(result.results)} result words instead of {expected.results[..., 0].size}"
        )
    return Simulation(
        outputs, compared.cycles, expected.cycles, mismatches, compared.layers_compared, len(x)
    )
