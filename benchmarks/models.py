"""The models that `tools.py` measures on: generated from a seed, so that nothing has to be fetched.

    python models.py small|resnet50|densenet121|unet3d|large FOLDER

prints the path of the model it wrote. All consist of Conv without bias, BatchNormalization and Relu, as
PyTorch exports them, with weights that keep activations near unit variance.

| name | what | size |
|---|---|---|
| small | a residual network for 3x32x32 images, 9 Conv | 0.3 MB |
| resnet50 | ResNet-50 (He et al. 2015, table 1), 53 Conv | 102 MB |
| densenet121 | DenseNet-121 (Huang et al. 2017, table 1), 120 Conv | 32 MB |
| unet3d | a 3-D U-Net (Cicek et al. 2016) for 1x64x64x64 voxels | 1 MB |
| large | 40 Conv of 3x3x1024x1024, weights in an external file | 1.5 GB |
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import onnx
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_OPSET, _IR = 17, 8
_EXTERNAL_FROM = 1024  # bytes; what PyTorch leaves in the model file


class _Net:
    """A network under construction.

    Args:
        data: where large weights go; None keeps them in the model.
    """

    def __init__(self, data: BinaryIO | None = None) -> None:
        self.rng = np.random.default_rng(0)
        self.data = data
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def weight(self, name: str, array: NDArray[Any]) -> str:
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=array.shape)
        if self.data is None or array.nbytes < _EXTERNAL_FROM:
            tensor.raw_data = array.tobytes()
        else:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entries = {
                "location": Path(self.data.name).name,
                "offset": self.data.tell(),
                "length": array.nbytes,
            }
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            self.data.write(array.data)
        self.initializers.append(tensor)
        return name

    def normal(self, *shape: int, std: float) -> NDArray[np.float32]:
        return self.rng.standard_normal(shape, np.float32) * np.float32(std)

    def uniform(self, low: float, high: float, size: int) -> NDArray[np.float32]:
        return self.rng.uniform(low, high, size).astype(np.float32)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401  # of any type
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_y"], name, **attributes))
        return f"{name}_y"

    def conv(
        self, x: str, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, *, relu: bool = True
    ) -> str:
        """Conv and BatchNormalization, and Relu if wanted."""
        n = len(self.nodes)
        weight = self.normal(c_out, c_in, kernel, kernel, std=(2 / (c_in * kernel**2)) ** 0.5)
        pad = kernel // 2
        x = self.node(
            "Conv", x, self.weight(f"conv{n}.weight", weight),
            kernel_shape=[kernel, kernel], pads=[pad] * 4, strides=[stride, stride],
        )  # fmt: skip
        return self.normalized(x, c_out, relu=relu)

    def normalized(self, x: str, c_out: int, *, relu: bool = True) -> str:
        """BatchNormalization, and Relu if wanted."""
        n = len(self.nodes) - 1
        x = self.node(
            "BatchNormalization",
            x,
            self.weight(f"bn{n}.scale", self.uniform(0.8, 1.2, c_out)),
            self.weight(f"bn{n}.bias", self.uniform(-0.1, 0.1, c_out)),
            self.weight(f"bn{n}.mean", self.uniform(-0.1, 0.1, c_out)),
            self.weight(f"bn{n}.var", self.uniform(0.8, 1.2, c_out)),
            epsilon=1e-5,
        )
        return self.node("Relu", x) if relu else x

    def plain_conv(self, x: str, c_in: int, c_out: int, kernel: int, *, rank: int = 2) -> str:
        """Conv alone, of any rank, that keeps the size."""
        weight = self.normal(c_out, c_in, *[kernel] * rank, std=(2 / (c_in * kernel**rank)) ** 0.5)
        name = self.weight(f"conv{len(self.nodes)}.weight", weight)
        return self.node("Conv", x, name, kernel_shape=[kernel] * rank, pads=[kernel // 2] * 2 * rank)

    def residual(self, x: str, short: str) -> str:
        return self.node("Relu", self.node("Add", x, short))

    def classifier(self, x: str, features: int, classes: int) -> None:
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        weight = self.weight("fc.weight", self.normal(classes, features, std=features**-0.5))
        self.node("Gemm", x, weight, self.weight("fc.bias", self.uniform(-0.1, 0.1, classes)), transB=1)

    def save(self, path: Path, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        """Write the network; the last node makes its output."""
        self.nodes[-1].output[0] = "output"
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, in_shape)],
            [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, out_shape)],
            self.initializers,
        )
        model = helper.make_model(graph, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)])
        path.write_bytes(model.SerializeToString())


def small(path: Path) -> None:
    """Write the small network."""
    net = _Net()
    x, width = net.conv("input", 3, 16), 16
    for next_width, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.conv(net.conv(x, width, next_width, 3, stride), next_width, next_width, relu=False)
        short = x if width == next_width else net.conv(x, width, next_width, 1, stride, relu=False)
        x, width = net.residual(y, short), next_width
    net.classifier(x, width, 10)
    net.save(path, (1, 3, 32, 32), (1, 10))


def resnet50(path: Path) -> None:
    """Write ResNet-50, the variant with the stride in the 3x3 convolution."""
    net = _Net()
    x = net.conv("input", 3, 64, 7, 2)
    x, width = net.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = net.conv(net.conv(x, width, inner, 1), inner, inner, 3, stride)
            y = net.conv(y, inner, 4 * inner, 1, relu=False)
            short = x if block else net.conv(x, width, 4 * inner, 1, stride, relu=False)
            x, width = net.residual(y, short), 4 * inner
    net.classifier(x, width, 1000)
    net.save(path, (1, 3, 224, 224), (1, 1000))


def large(path: Path) -> None:
    """Write the large chain of convolutions; a small image, so that it can be run too."""
    with ExitStack() as stack:
        net = _Net(stack.enter_context(path.with_suffix(".data").open("wb")))
        x = "input"
        for _ in range(40):
            x = net.conv(x, 1024, 1024)
        net.save(path, (1, 1024, 4, 4), (1, 1024, 4, 4))


def densenet121(path: Path) -> None:
    """Write DenseNet-121 (Huang et al. 2017, table 1): BatchNormalization and Relu before each Conv."""
    net = _Net()
    x, width = net.conv("input", 3, 64, 7, 2), 64
    x = net.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    for stage, layers in enumerate((6, 12, 24, 16)):
        if stage:
            x, width = net.plain_conv(net.normalized(x, width), width, width // 2, 1), width // 2
            x = net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        for _ in range(layers):
            y = net.plain_conv(net.normalized(x, width), width, 128, 1)
            y = net.plain_conv(net.normalized(y, 128), 128, 32, 3)
            x, width = net.node("Concat", x, y, axis=1), width + 32
    net.classifier(net.normalized(x, width), width, 1000)
    net.save(path, (1, 3, 224, 224), (1, 1000))


def unet3d(path: Path) -> None:
    """Write a 3-D U-Net (Cicek et al. 2016) of 16 to 64 channels for volumes of 64 voxels a side."""
    net = _Net()

    def block(x: str, c_in: int, c_out: int) -> str:
        x = net.normalized(net.plain_conv(x, c_in, c_out, 3, rank=3), c_out)
        return net.normalized(net.plain_conv(x, c_out, c_out, 3, rank=3), c_out)

    skips, x, width = [], "input", 1
    for channels in (16, 32):
        x, width = block(x, width, channels), channels
        skips.append(x)
        x = net.node("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x, width = block(x, width, 64), 64
    for skip in reversed(skips):
        half = width // 2
        rise = net.weight(f"rise{half}.weight", net.normal(width, half, 2, 2, 2, std=width**-0.5))
        x = net.node("ConvTranspose", x, rise, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
        x, width = block(net.node("Concat", skip, x, axis=1), width, half), half
    net.plain_conv(x, width, 2, 1, rank=3)
    net.save(path, (1, 1, 64, 64, 64), (1, 2, 64, 64, 64))


MODELS: dict[str, Callable[[Path], None]] = {
    "small": small,
    "resnet50": resnet50,
    "densenet121": densenet121,
    "unet3d": unet3d,
    "large": large,
}


def main() -> None:
    """Write one model and print where it is."""
    parser = argparse.ArgumentParser(description="Generate a model of the benchmarks.")
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    path = arguments.folder / f"{arguments.name}.onnx"
    MODELS[arguments.name](path)
    print(path)


if __name__ == "__main__":
    main()
