"""Files of models that are not archives of torch.export: what they are, and how to convert them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from secateur.text import printable

_HEAD = 8
_TFLITE = (
    "a TensorFlow Lite model; convert it: python -m tf2onnx.convert --tflite {file} --dequantize "
    "--output model.onnx, and compile that with --calibrate, since its scales are not powers of two"
)
_HDF5 = (
    "an HDF5 file, of Keras perhaps; convert it: python -m tf2onnx.convert --keras {file} "
    "--output model.onnx"
)
_SCRIPT = (
    "a TorchScript file; convert it: torch.onnx.export(torch.jit.load({file!r}), (x,), "
    "'model.onnx', dynamo=False), where x is a batch of inputs"
)
_PICKLE = (
    "a pickle of torch.save, which is never unpickled; give the code that makes the model and "
    "loads these weights: package.module:callable"
)


def foreign(path: Path | str) -> str:
    """What a file is and how to convert it; "" if it is not known.

    Only its first bytes and the names in it are looked at.
    """
    file = printable(path, 200)
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(_HEAD)
        if head[4:8] == b"TFL3":
            return _TFLITE.format(file=file)
        if head.startswith(b"\x89HDF"):
            return _HDF5.format(file=file)
        if head.startswith(b"\x80"):
            return _PICKLE
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return ""
    if "data.pkl" not in names:
        return ""
    return _SCRIPT.format(file=file) if "constants.pkl" in names else _PICKLE
