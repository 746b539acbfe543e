"""Int8 .tflite files with random weights: the four networks of MLPerf Tiny, for Vela to estimate.

Written with the schema classes that Vela carries, because no TensorFlow is needed then. Layers are
those of `secateur.models.mlperf_tiny`, batch norms folded, NHWC, 'same' padding. Weights are
uniform in -127 to 127, scales plausible: Vela's estimate depends on shapes, and on weights by how
far they compress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ethosu.vela.tflite import (
    ActivationFunctionType,
    AddOptions,
    Buffer,
    BuiltinOperator,
    BuiltinOptions,
    Conv2DOptions,
    DepthwiseConv2DOptions,
    FullyConnectedOptions,
    Model,
    Operator,
    OperatorCode,
    Padding,
    QuantizationParameters,
    ReducerOptions,
    SubGraph,
    Tensor,
    TensorType,
)

from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8

Shape = tuple[int, ...]
RELU = ActivationFunctionType.ActivationFunctionType.RELU
NONE = ActivationFunctionType.ActivationFunctionType.NONE
CODES = BuiltinOperator.BuiltinOperator
OPTIONS = BuiltinOptions.BuiltinOptions
TYPES = {
    np.dtype(np.int8): TensorType.TensorType.INT8,
    np.dtype(np.int32): TensorType.TensorType.INT32,
}


class Writer:
    """Collects layers in order; tensors are known by their index, ``shapes`` are NHWC or NC.

    ``density`` of the blocks of eight output channels x one weight position is kept in every layer
    but the depthwise ones.
    """

    def __init__(self, density: float = 1.0, seed: int = 0) -> None:
        self._density = density
        self.shapes: list[Shape] = []
        self._builder = flatbuffers.Builder(1 << 16)
        self._random = np.random.default_rng(seed)
        self._tensors: list[int] = []
        self._operators: list[int] = []
        self._codes: list[int] = []
        self._buffers = [self._table(Buffer)]  # number 0 is for tensors without data

    def tensor(
        self, shape: Shape, scales: Sequence[float] = (), data: Any = None, channel: int = 0
    ) -> int:
        """A tensor, int8 if it has no data; ``channel`` is the dimension of several scales."""
        b = self._builder
        buffer = 0
        if data is not None:
            buffer = len(self._buffers)
            self._buffers.append(
                self._table(Buffer, Data=b.CreateNumpyVector(data.ravel().view(np.uint8)))
            )
        fields: dict[str, Any] = {}
        if scales:
            scale = b.CreateNumpyVector(np.array(scales, np.float32))
            zero = b.CreateNumpyVector(np.zeros(len(scales), np.int64))
            parameters = {"Scale": scale, "ZeroPoint": zero, "QuantizedDimension": channel}
            fields["Quantization"] = self._table(QuantizationParameters, **parameters)
        fields["Name"] = b.CreateString(f"t{len(self.shapes)}")
        fields["Shape"] = b.CreateNumpyVector(np.array(shape, np.int32))
        fields["Type"] = TYPES[np.dtype(np.int8) if data is None else data.dtype]
        self._tensors.append(self._table(Tensor, Buffer=buffer, **fields))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def input(self, *shape: int) -> int:
        """The network's input."""
        return self.tensor((1, *shape), [1 / 127])

    def conv(
        self, x: int, channels: int, kernel: int | Shape, stride: int = 1, act: int = RELU
    ) -> int:
        """CONV_2D with a bias."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        weights = self._weights((channels, kh, kw, self.shapes[x][3]), 0)
        options = self._window(Conv2DOptions, stride, act)
        return self._layer(
            "CONV_2D", [x, *weights], self._map(x, channels, stride), "Conv2DOptions", options
        )

    def depthwise(self, x: int, stride: int = 1) -> int:
        """DEPTHWISE_CONV_2D, 3 x 3, multiplier 1, with a bias and a ReLU."""
        channels = self.shapes[x][3]
        weights = self._weights((1, 3, 3, channels), 3)
        options = self._window(DepthwiseConv2DOptions, stride, RELU, DepthMultiplier=1)
        to = self._map(x, channels, stride)
        name = "DepthwiseConv2DOptions"
        return self._layer("DEPTHWISE_CONV_2D", [x, *weights], to, name, options)

    def dense(self, x: int, outputs: int, act: int = NONE) -> int:
        """FULLY_CONNECTED with a bias; one scale for all outputs."""
        weights = self._weights((outputs, self.shapes[x][1]), None)
        options = self._table(FullyConnectedOptions, FusedActivationFunction=act)
        name = "FullyConnectedOptions"
        return self._layer("FULLY_CONNECTED", [x, *weights], (1, outputs), name, options)

    def add(self, a: int, b: int) -> int:
        """ADD with a ReLU."""
        options = self._table(AddOptions, FusedActivationFunction=RELU)
        return self._layer("ADD", [a, b], self.shapes[a], "AddOptions", options)

    def mean(self, x: int) -> int:
        """MEAN over height and width."""
        axes = self.tensor((2,), data=np.array([1, 2], np.int32))
        options = self._table(ReducerOptions, KeepDims=False)
        to = (1, self.shapes[x][3])
        return self._layer("MEAN", [x, axes], to, "ReducerOptions", options)

    def save(self, path: Path, source: int, result: int) -> None:
        """Write the file of a network with this input and this output."""
        b = self._builder
        graph = self._table(
            SubGraph,
            Tensors=self._offsets(self._tensors),
            Inputs=b.CreateNumpyVector(np.array([source], np.int32)),
            Outputs=b.CreateNumpyVector(np.array([result], np.int32)),
            Operators=self._offsets(self._operators),
        )
        codes = [
            self._table(OperatorCode, DeprecatedBuiltinCode=code, BuiltinCode=code, Version=1)
            for code in self._codes
        ]
        model = self._table(
            Model,
            Version=3,
            OperatorCodes=self._offsets(codes),
            Subgraphs=self._offsets([graph]),
            Buffers=self._offsets(self._buffers),
        )
        b.Finish(model, file_identifier=b"TFL3")
        path.write_bytes(b.Output())

    def _table(self, schema: Any, **fields: int) -> int:
        name = schema.__name__.rsplit(".", 1)[1]
        getattr(schema, f"{name}Start")(self._builder)
        for field, value in fields.items():
            getattr(schema, f"{name}Add{field}")(self._builder, value)
        return int(getattr(schema, f"{name}End")(self._builder))

    def _offsets(self, values: list[int]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependUOffsetTRelative(value)
        return int(self._builder.EndVector())

    def _window(self, schema: Any, stride: int, act: int, **fields: int) -> int:
        steps = {"StrideH": stride, "StrideW": stride, "FusedActivationFunction": act}
        same = Padding.Padding.SAME
        return self._table(schema, Padding=same, **steps, **fields)

    def _map(self, x: int, channels: int, stride: int) -> Shape:
        _, height, width, _ = self.shapes[x]
        return (1, -(-height // stride), -(-width // stride), channels)

    def _weights(self, shape: Shape, channel: int | None) -> tuple[int, int]:
        """Weights and biases, scaled so that outputs are about as large as inputs."""
        count = 1 if channel is None else shape[channel]
        outputs = shape[0] if channel is None else count
        scale = 1 / 73 / np.sqrt(prod(shape) / outputs)
        scales = scale * self._random.uniform(0.5, 2.0, count)
        values = self._random.integers(-127, 128, shape, np.int8)
        if channel != 3:
            blocks = self._random.random((-(-outputs // 8), *shape[1:])) < self._density
            values *= np.repeat(blocks, 8, axis=0)[:outputs]
        weights = self.tensor(shape, list(scales), values, channel or 0)
        biases = self._random.integers(-999, 1000, outputs, np.int32)
        return weights, self.tensor((outputs,), list(scales / 127), biases)

    def _layer(self, code: str, inputs: list[int], shape: Shape, kind: str, options: int) -> int:
        output = self.tensor(shape, [1 / 127])
        number = getattr(CODES, code)
        if number not in self._codes:
            self._codes.append(number)
        fields = {
            "OpcodeIndex": self._codes.index(number),
            "Inputs": self._builder.CreateNumpyVector(np.array(inputs, np.int32)),
            "Outputs": self._builder.CreateNumpyVector(np.array([output], np.int32)),
            "BuiltinOptionsType": getattr(OPTIONS, kind),
            "BuiltinOptions": options,
        }
        self._operators.append(self._table(Operator, **fields))
        return output


def write_resnet8(path: Path, density: float = 1.0) -> None:
    """ResNet-8: 32 x 32 x 3 to 10."""
    w = Writer(density)
    source = w.input(32, 32, 3)
    x = w.conv(source, 16, 3)
    x = w.add(x, w.conv(w.conv(x, 16, 3), 16, 3, act=NONE))
    for channels in (32, 64):
        y = w.conv(w.conv(x, channels, 3, 2), channels, 3, act=NONE)
        x = w.add(w.conv(x, channels, 1, 2, act=NONE), y)
    w.save(path, source, w.dense(w.mean(x), 10))


def write_dscnn(path: Path, density: float = 1.0) -> None:
    """DS-CNN: 49 x 10 x 1 to 12."""
    w = Writer(density)
    source = w.input(49, 10, 1)
    x = w.conv(source, 64, (10, 4), 2)
    for _ in range(4):
        x = w.conv(w.depthwise(x), 64, 1)
    w.save(path, source, w.dense(w.mean(x), 12))


def write_mobilenet(path: Path, density: float = 1.0) -> None:
    """MobileNetV1 0.25: 96 x 96 x 3 to 2."""
    w = Writer(density)
    source = w.input(96, 96, 3)
    x = w.conv(source, 8, 3, 2)
    for channels, stride in zip(MobileNetV1.CHANNELS[1:], MobileNetV1.STRIDES, strict=True):
        x = w.conv(w.depthwise(x, stride), channels, 1)
    w.save(path, source, w.dense(w.mean(x), 2))


def write_autoencoder(path: Path, density: float = 1.0) -> None:
    """Autoencoder: 640 to 640."""
    w = Writer(density)
    x = source = w.input(640)
    for width in Autoencoder.WIDTHS[1:-1]:
        x = w.dense(x, width, RELU)
    w.save(path, source, w.dense(x, 640))


#: Writers by the class of the same network.
WRITERS: dict[Any, Callable[..., None]] = {
    ResNet8: write_resnet8,
    DSCNN: write_dscnn,
    MobileNetV1: write_mobilenet,
    Autoencoder: write_autoencoder,
}
