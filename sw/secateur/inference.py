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
from secateur.image.form import given, named_leaves, rebuilt
from secateur.image.image import Image
from secateur.progress import Progress, silent

Array = npt.NDArray[Any]
#: An array, or those of several inputs in tuples, lists and dictionaries.
Inputs = Any


@dataclass(frozen=True)
class Outputs:
    """Results of a batch.

    Of sequences, an inference is one step. The results are those of the last step, or of all if
    the model returns all. ``outputs["logits"]`` are the values of the output of that name.

    Attributes
    ----------
    codes : (batch, ...) or (batch, steps, ...), int8 or uint8; of a model with several outputs
        such arrays in the tuples, lists and dictionaries that the model returns
    values : the same in the model's units, float32
    cycles : per inference
    named : values by name; the first of a tuple or list is "output0", one in a dictionary has its
        key as name, deeper ones have all keys joined by dots
    named_codes : codes by name
    """

    codes: Any
    values: Any
    cycles: int
    named: dict[str, npt.NDArray[np.float32]]
    named_codes: dict[str, Array]

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        """Values of an output.

        Raises
        ------
        SecateurError : there is no output of this name
        """
        if name not in self.named:
            has = ", ".join(map(repr, self.named))
            raise SecateurError(f"no output {name!r}; the model has {has}")
        return self.named[name]


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

    image = signing.load(path, key)
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
            f"{image.name}: the program is refused: layer {layer!r} reads words that it or the "
            f"next input may have written by then, or writes to words of the next input, so the "
            f"results depend on the engine's timing; {again}"
        )
    if image.metadata:
        layers, inputs = image.metadata["layers"], image.metadata["inputs"]
        walk = [m for output in image.metadata["outputs"] for m in output["m"]]
        for key, says, has in (
            ("inputs.words", sum(meta["words"] for meta in inputs), program.input_words),
            ("outputs.m", walk, golden.result_words(program).tolist()),
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


def named_inputs(image: Image, x: Inputs) -> dict[str, Array]:
    """Inputs by name, of equally many samples; the only input of a model is called "x".

    Raises
    ------
    SecateurError : the image has no metadata, or the inputs are not those of the model
    """
    if "inputs" not in image.metadata:
        raise SecateurError(
            f"{image.name}: no metadata, so the input layout is unknown; compile the model again"
        )
    names, needed = image.metadata["arguments"], [p["name"] for p in image.metadata["inputs"]]
    found = given(x, names, needed) if len(names) > 1 else given(x, ["x"], ["x"])
    for name, values in found.items():
        if not isinstance(values, np.ndarray):
            raise SecateurError(
                f"input {name!r} must be a NumPy array, not {type(values).__name__}; give "
                f"np.asarray({name})"
            )
        if values.ndim == 0 or len(values) == 0:
            raise SecateurError(
                f"input {name!r} has shape {values.shape}; give samples first, at least one"
            )
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise SecateurError(f"inputs have different numbers of samples: {listed}; give as many")
    return found


def input_words(image: Image, x: Inputs) -> tuple[npt.NDArray[np.uint8], int]:
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
    found, steps, packed = named_inputs(image, x), 1, []
    one = len(image.metadata["arguments"]) == 1
    for meta in image.metadata["inputs"]:
        name = "x" if one else meta["name"]
        values = found[name]
        if image.metadata.get("states"):
            step = () if "lookup" in meta else (meta["channels"],)
            if values.ndim < 2 or values.shape[1] == 0 or values.shape[2:] != step:
                takes = ", ".join(["batch", "steps", *map(str, step)])
                raise SecateurError(
                    f"input {name!r} has shape {tuple(values.shape)}, the model takes sequences "
                    f"({takes})"
                )
            steps, values = values.shape[1], values.reshape(-1, *step)
        packed.append(host.pack(host.to_codes(values, meta, name), meta, image.n))
    return np.concatenate(packed, axis=1), steps


def outputs_of(image: Image, words: npt.NDArray[np.uint8], steps: int, cycles: int) -> Outputs:
    """Unpack result words.

    Parameters
    ----------
    image : the image
    words : result words (inferences, beats, N)
    steps : inferences per sample
    cycles : per inference
    """
    codes, values = dict[str, Array](), dict[str, npt.NDArray[np.float32]]()
    for meta, beats in host.by_output(words, image.metadata["outputs"]):
        found = host.result_codes(beats, meta)
        if image.metadata.get("states"):
            found = found.reshape(-1, steps, *found.shape[1:])
            found = found if image.metadata["every_step"] else found[:, -1]
        codes[meta["name"]], values[meta["name"]] = found, host.to_floats(found, meta)
    form = image.metadata["returns"]
    names = named_leaves(form)
    return Outputs(
        rebuilt(form, codes.__getitem__),
        rebuilt(form, values.__getitem__),
        cycles,
        {name: values[output] for name, output in names},
        {name: codes[output] for name, output in names},
    )


def run(image: Image, x: Inputs, progress: Progress = silent, batch: int = 256) -> Outputs:
    """Run inputs through the golden interpreter.

    Parameters
    ----------
    image : the image
    x : inputs (batch, C, H, W), (batch, C, L) or (batch, C); for a recurrent model
        (batch, steps, F): floats in the model's units, or int8 or uint8 codes. Several inputs as
        a tuple in the order of the model's arguments, or as a dictionary by their names
    progress : called after every batch, with the number of inputs done so far
    batch : inputs between two calls of ``progress``

    Raises
    ------
    SecateurError : the inputs do not fit the model, or the image is damaged
    """
    from secateur.sim import golden

    program, parts, cycles, done = program_of(image), [], 0, 0
    found = named_inputs(image, x)
    count = len(next(iter(found.values())))
    for begin in range(0, count, batch):
        some = {name: values[begin : begin + batch] for name, values in found.items()}
        packed, steps = input_words(image, some)
        result = golden.run(program, packed, trace=False, steps=steps)
        parts.append(result.results)
        cycles, done = result.cycles, done + len(packed) // steps
        progress("golden", done, count, "")
    return outputs_of(image, np.concatenate(parts), steps, cycles)


def run_on(
    image: Image, x: Inputs, device: Runner, progress: Progress = silent
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
    beats = sum(len(output["m"]) for output in image.metadata["outputs"])
    words, cycles = list[bytes](), list[int]()
    device.check_holds(image.stream)
    for index, inputs in enumerate(packed):
        if index == 0 or (image.metadata.get("states") and index % steps == 0):
            device.restart()
        result, count = device.run(inputs.tobytes(), beats)
        words.append(result)
        cycles.append(count)
        progress("device", (index + 1) // steps, len(packed) // steps, "")
    device.check_holds(image.stream)  # nobody has loaded another one meanwhile
    results = np.frombuffer(b"".join(words), np.uint8).reshape(len(packed), beats, image.n)
    return outputs_of(image, results, steps, max(cycles)), cycles


def traced(image: Image, x: Inputs) -> tuple[Outputs, Iterator[tuple[str, npt.NDArray[np.int64]]]]:
    """Run inputs through the golden interpreter and keep the results of every layer.

    Returns
    -------
    tuple
        Outputs; and an iterator over the layers, of gates that are one layer over each gate: name
        and codes (batch, C, H, W), of sequences (batch * steps, C, H, W).
    """
    from secateur.sim import golden

    packed, steps = input_words(image, x)
    result = golden.run(program_of(image), packed, steps=steps)
    tensors = {tensor["name"]: tensor for tensor in image.metadata["tensors"]}

    def layers() -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        for trace, meta in zip(result.layers, image.metadata["layers"], strict=True):
            yield from host.layer_codes(trace.m, trace.codes, meta, tensors[meta["output"]])

    return outputs_of(image, result.results, steps, result.cycles), layers()


def layer_codes(image: Image, x: Inputs) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Name and codes (batch, C, H, W) of every layer, from the golden interpreter."""
    return traced(image, x)[1]
