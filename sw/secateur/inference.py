"""Run an image in the golden interpreter or on hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError
from secateur.image import host
from secateur.image import image as images
from secateur.image.image import Image
from secateur.progress import Progress, silent

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outputs:
    """Results of a batch.

    Of sequences, an inference is one step. The results are those of the last step, or of all if
    the model returns all.

    Attributes
    ----------
    codes : (batch, ...) or (batch, steps, ...), int8 or uint8
    values : the same in the model's units, float32
    cycles : per inference
    """

    codes: Array
    values: npt.NDArray[np.float32]
    cycles: int


class Runner(Protocol):
    """Hardware that holds an image, such as ``secateur.boards.driver.device.Device``."""

    def restart(self) -> None:
        """Reset everything except the image."""

    def check_holds(self, image: bytes) -> None:
        """Refuse another image than that with this stream."""

    def run(self, inputs: bytes, beats: int) -> tuple[bytes, int]:
        """Run one inference.

        Parameters
        ----------
        inputs : input words
        beats : result words to read

        Returns
        -------
        tuple
            Result words, and cycles.
        """


def load(path: Path | str, key: Path | str | None = None) -> Image:
    """Read an image file.

    Parameters
    ----------
    path : the file
    key : public Ed25519 key, a PEM file; an image without its signature is then refused

    Raises
    ------
    SecateurError : the file is missing or damaged; its program is refused or contradicts its
        metadata; or, with ``key``, it is unsigned or signed by another key
    """
    from secateur.image import signing

    image = images.load(path) if key is None else signing.load(path, key)
    program_of(image)
    return image


def program_of(image: Image) -> Any:
    """The decoded program of an image, checked against the metadata.

    Raises
    ------
    SecateurError : ``image`` is not an Image, the program is refused, or the metadata describe
        another program
    """
    from secateur.sim import golden

    if not isinstance(image, Image):
        given = repr(image) if isinstance(image, str | Path) else type(image).__name__
        raise SecateurError(
            f"image must be an Image, not {given}; secateur.load reads files, secateur.compile "
            f"makes one from a model"
        )
    again = "compile the model again"
    try:
        program = golden.parse(image.stream, image.geometry)
    except golden.ImageError as error:
        raise SecateurError(f"{image.name}: the program is refused: {error}; {again}") from None
    for index in golden.hazards(program):
        layer = image.metadata["layers"][index]["name"] if image.metadata else index
        raise SecateurError(
            f"{image.name}: the program is refused: layer {layer!r} reads words that it has "
            f"written itself, so its result depends on the engine's timing; {again}"
        )
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
                    f"{image.name}: metadata field {key} is not the program's ({counts[0]}, "
                    f"expected {counts[1]}); {again}"
                )
    return program


def _check_inputs(x: object) -> None:
    """Refuse what is not an array with samples first."""
    if not isinstance(x, np.ndarray):
        raise SecateurError(
            f"input 'x' must be a NumPy array, not {type(x).__name__}; give np.asarray(x)"
        )
    if x.ndim == 0 or len(x) == 0:
        raise SecateurError(f"input 'x' has shape {x.shape}; give samples first, at least one")


def input_words(image: Image, x: Array) -> tuple[npt.NDArray[np.uint8], int]:
    """Pack inputs.

    Parameters
    ----------
    image : the image
    x : inputs, as for ``run``

    Returns
    -------
    tuple
        Input words (inferences, words, N) as uint8, and inferences per sample: the steps of a
        sequence, else 1.

    Raises
    ------
    SecateurError : the inputs do not fit the model
    """
    _check_inputs(x)
    if "input" not in image.metadata:
        raise SecateurError(
            f"{image.name}: no metadata, so the input layout is unknown; compile the model again"
        )
    meta, steps = image.metadata["input"], 1
    if image.metadata.get("states"):
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != meta["channels"]:
            raise SecateurError(
                f"input 'x' has shape {tuple(x.shape)}, the model takes sequences "
                f"(batch, steps, {meta['channels']})"
            )
        steps, x = x.shape[1], x.reshape(-1, x.shape[2])
    return host.pack(host.to_codes(x, meta), meta, image.n), steps


def outputs_of(image: Image, words: npt.NDArray[np.uint8], steps: int, cycles: int) -> Outputs:
    """Unpack result words.

    Parameters
    ----------
    image : the image
    words : result words (inferences, beats, N)
    steps : inferences per sample
    cycles : per inference
    """
    meta = image.metadata["output"]
    codes = host.result_codes(words, meta)
    if image.metadata.get("states"):
        codes = codes.reshape(-1, steps, *codes.shape[1:])
        codes = codes if image.metadata["every_step"] else codes[:, -1]
    return Outputs(codes, host.to_floats(codes, meta), cycles)


def run(image: Image, x: Array, progress: Progress = silent, batch: int = 256) -> Outputs:
    """Run inputs through the golden interpreter.

    Parameters
    ----------
    image : the image
    x : inputs (batch, C, H, W), (batch, C, L) or (batch, C); for a recurrent model
        (batch, steps, F): floats in the model's units, or int8 or uint8 codes
    progress : called after every batch, with the number of inputs done so far
    batch : inputs between two calls of ``progress``

    Raises
    ------
    SecateurError : the inputs do not fit the model, or the image is damaged
    """
    from secateur.sim import golden

    _check_inputs(x)
    program, parts, cycles, done = program_of(image), [], 0, 0
    for begin in range(0, len(x), batch):
        packed, steps = input_words(image, x[begin : begin + batch])
        result = golden.run(program, packed, trace=False, steps=steps)
        parts.append(result.results)
        cycles, done = result.cycles, done + len(packed) // steps
        progress("golden", done, len(x), "")
    return outputs_of(image, np.concatenate(parts), steps, cycles)


def run_on(
    image: Image, x: Array, device: Runner, progress: Progress = silent
) -> tuple[Outputs, list[int]]:
    """Run inputs on hardware that holds the image.

    Parameters
    ----------
    image : the image
    x : inputs, as for ``run``
    device : a ``secateur.boards.driver.device.Device``, or another Runner
    progress : called with the number of inputs done so far

    Returns
    -------
    tuple
        Outputs, and the cycles of every inference.

    Raises
    ------
    SecateurError : the inputs do not fit the model, or the device holds another image
    """
    packed, steps = input_words(image, x)
    beats = len(image.metadata["output"]["m"])
    words, cycles = list[bytes](), list[int]()
    device.check_holds(image.stream)
    for index, inputs in enumerate(packed):
        if index == 0 or (image.metadata.get("states") and index % steps == 0):
            device.restart()
        result, count = device.run(inputs.tobytes(), beats)
        words.append(result)
        cycles.append(count)
        progress("device", (index + 1) // steps, len(x), "")
    device.check_holds(image.stream)  # nobody has loaded another one meanwhile
    results = np.frombuffer(b"".join(words), np.uint8).reshape(len(packed), beats, image.n)
    return outputs_of(image, results, steps, max(cycles)), cycles


def traced(image: Image, x: Array) -> tuple[Outputs, Iterator[tuple[str, npt.NDArray[np.int64]]]]:
    """Run inputs through the golden interpreter and keep the results of every layer.

    Returns
    -------
    tuple
        Outputs; and an iterator over the layers: name and codes (batch, C, H, W), of sequences
        (batch * steps, C, H, W).
    """
    from secateur.sim import golden

    packed, steps = input_words(image, x)
    result = golden.run(program_of(image), packed, steps=steps)
    tensors = {tensor["name"]: tensor for tensor in image.metadata["tensors"]}

    def layers() -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        for trace, meta in zip(result.layers, image.metadata["layers"], strict=True):
            tensor = tensors[meta["output"]]
            part = meta["first"], meta["channels"], meta.get("region")
            codes = host.unpack(trace.m, trace.codes, tensor, *part)
            yield meta["name"], codes

    return outputs_of(image, result.results, steps, result.cycles), layers()


def layer_codes(image: Image, x: Array) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Name and codes (batch, C, H, W) of every layer, from the golden interpreter."""
    return traced(image, x)[1]
