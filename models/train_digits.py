"""Train a small convolutional network on handwritten digits and write it with its batch normalizations.

    pip install scikit-learn        # ships the images; needed here and nowhere else
    python models/train_digits.py   # writes digits.onnx and digits_test.npz beside this file

Everything is NumPy. Every batch normalization runs in `bnfold.runtime`: mini-batch statistics and gradients
while training, running averages on the side, which are the population statistics of the exported model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits  # type: ignore[import-not-found]  # needed by this script alone

from bnfold import runtime

Array: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = dict[str, Array]
# From the gradient of the output to that of the input; weight gradients are left in the dict that it gets.
Back: TypeAlias = Callable[[Array, Weights], Array]

FOLDER = Path(__file__).parent
HELD_OUT = 360
EPOCHS = 30
BATCH = 64
LEARNING_RATE = 0.1
SGD_MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
BN_MOMENTUM = 0.9  # ONNX's: the weight of the old running value
EPSILON = 1e-5


@dataclass(frozen=True)
class Block:
    """A linear layer without a bias, a batch normalization, and a ReLU.

    Attributes:
        name: prefix of its nodes and weights.
        kind: the ONNX operator of the linear layer.
        shape: of the weight: Conv `[Cout, Cin, k, k]`, ConvTranspose `[Cin, Cout, k, k]`, Gemm `[out, in]`.
        stride: of a Conv; a ConvTranspose has the stride of its kernel, so that its taps do not overlap.
    """

    name: str
    kind: Literal["Conv", "ConvTranspose", "Gemm"]
    shape: tuple[int, ...]
    stride: int = 1

    @property
    def channels(self) -> int:
        """How many channels the batch normalization has."""
        return self.shape[1] if self.kind == "ConvTranspose" else self.shape[0]

    @property
    def fan_in(self) -> int:
        """How many products make one output value."""
        return self.shape[0] if self.kind == "ConvTranspose" else int(np.prod(self.shape[1:]))


# 8x8 pixels, down to 4x4, up again, down again, flat.
BLOCKS = (
    Block("stem", "Conv", (12, 1, 3, 3)),
    Block("down", "Conv", (24, 12, 3, 3), stride=2),
    Block("up", "ConvTranspose", (24, 12, 2, 2)),
    Block("mix", "Conv", (24, 12, 3, 3), stride=2),
    Block("dense", "Gemm", (32, 24 * 4 * 4)),
)
CLASSES = 10


def main() -> None:
    """Train, export, and say how well it does on digits it has not seen."""
    start = time.perf_counter()
    images, labels = digits()
    weights = train(images[HELD_OUT:], labels[HELD_OUT:])
    held_images, held_labels = images[:HELD_OUT], labels[:HELD_OUT]
    logits, _ = forward(weights, held_images, training=False)
    correct = int((logits.argmax(axis=1) == held_labels).sum())
    onnx.save(export(weights), FOLDER / "digits.onnx")
    np.savez_compressed(FOLDER / "digits_test.npz", image=held_images, label=held_labels)
    seconds = time.perf_counter() - start
    print(f"{correct} of {HELD_OUT} held-out digits ({correct / HELD_OUT:.2%}) after {seconds:.0f} s")


def digits() -> tuple[Array, NDArray[np.int64]]:
    """All images `[1797, 1, 8, 8]` with values 0 to 1, and their labels, in a fixed random order."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, None] / 16).astype(np.float32)
    return images, data.target[order].astype(np.int64)


def train(images: Array, labels: NDArray[np.int64]) -> Weights:
    """Minimize cross entropy by stochastic gradient descent; one cosine from the learning rate to 0."""
    rng = np.random.default_rng(1)
    weights = initial(rng)
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    steps = len(images) // BATCH
    for epoch in range(EPOCHS):
        order = rng.permutation(len(images))
        loss = 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            logits, back = forward(weights, shifted(images[chosen], rng), training=True)
            value, slope = cross_entropy(logits, labels[chosen])
            loss += value / steps
            gradients: Weights = {}
            back(slope, gradients)
            rate = LEARNING_RATE * (1 + np.cos(np.pi * (epoch + step / steps) / EPOCHS)) / 2
            for name, gradient in gradients.items():
                decay = WEIGHT_DECAY * weights[name] if name.endswith("weight") else 0
                velocity[name] = (SGD_MOMENTUM * velocity[name] + gradient + decay).astype(np.float32)
                weights[name] = (weights[name] - rate * velocity[name]).astype(np.float32)
        print(f"epoch {epoch + 1:2d}  loss {loss:.4f}", flush=True)
    return weights


def initial(rng: np.random.Generator) -> Weights:
    """Weights of variance 2/fan-in (He et al., 2015); batch normalizations that change nothing yet."""
    weights: Weights = {}
    for block in BLOCKS:
        drawn = rng.standard_normal(block.shape) * np.sqrt(2 / block.fan_in)
        weights[f"{block.name}.linear.weight"] = drawn.astype(np.float32)
        for part, value in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1)):
            weights[f"{block.name}.bn.{part}"] = np.full(block.channels, value, np.float32)
    features = BLOCKS[-1].channels
    weights["head.weight"] = (rng.standard_normal((CLASSES, features)) / np.sqrt(features)).astype(np.float32)
    weights["head.bias"] = np.zeros(CLASSES, np.float32)
    return weights


def shifted(images: Array, rng: np.random.Generator) -> Array:
    """Every image moved by -1, 0 or 1 pixel along both axes."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moves = rng.integers(0, 3, (len(images), 2))
    return np.stack([p[:, i : i + 8, j : j + 8] for p, (i, j) in zip(padded, moves, strict=True)])


def forward(weights: Weights, x: Array, *, training: bool) -> tuple[Array, Back]:
    """Logits `[N, 10]`, and the way back. In training mode the running statistics in `weights` move."""
    backs: list[Back] = []
    for block in BLOCKS:
        for layer in (linear, batchnorm, relu):
            x, back = layer(weights, block, x, training)
            backs.append(back)
    logits = x @ weights["head.weight"].T + weights["head.bias"]

    def through(slope: Array, gradients: Weights) -> Array:
        gradients["head.weight"] = slope.T @ x
        gradients["head.bias"] = slope.sum(axis=0)
        slope = slope @ weights["head.weight"]
        for back in reversed(backs):
            slope = back(slope, gradients)
        return slope

    return logits, through


def linear(weights: Weights, block: Block, x: Array, _training: bool) -> tuple[Array, Back]:
    """The matrix product that every kind of linear layer is."""
    name = f"{block.name}.linear.weight"
    product = {"Conv": convolution, "ConvTranspose": transposed_convolution, "Gemm": matrix_product}[
        block.kind
    ]
    y, back = product(x, weights[name], block.stride)

    def through(slope: Array, gradients: Weights) -> Array:
        dx, gradients[name] = back(slope)
        return dx

    return y, through


def batchnorm(weights: Weights, block: Block, x: Array, training: bool) -> tuple[Array, Back]:
    """Normalize by the mini-batch and move the running statistics, or normalize by these."""
    scale, bias, mean, var = (f"{block.name}.bn.{part}" for part in ("scale", "bias", "mean", "var"))
    parameters = (weights[scale], weights[bias], weights[mean], weights[var])
    if not training:
        return runtime.infer(x, *parameters, epsilon=EPSILON, backend="numpy"), no_way_back
    step = runtime.train(x, *parameters, epsilon=EPSILON, momentum=BN_MOMENTUM, backend="numpy")
    weights[mean], weights[var] = step.running_mean, step.running_var

    def through(slope: Array, gradients: Weights) -> Array:
        got = runtime.backward(
            slope, x, parameters[0], mean=step.mean, var=step.var, epsilon=EPSILON, backend="numpy"
        )
        gradients[scale], gradients[bias] = got.dscale, got.dbias
        return got.dx

    return step.y, through


def no_way_back(_slope: Array, _gradients: Weights) -> Array:
    """Stand where a gradient would be needed in inference mode, which is not trained through."""
    raise NotImplementedError("the network is trained in training mode")


def relu(_weights: Weights, _block: Block, x: Array, _training: bool) -> tuple[Array, Back]:
    """max(x, 0)."""
    return np.maximum(x, 0), lambda slope, _: slope * (x > 0)


def convolution(x: Array, weight: Array, stride: int) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """3x3 convolution with one pixel of zeros around, as a product with the windows laid out in rows."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    n, c, h, w = windows.shape[:4]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)
    kernels = weight.reshape(len(weight), -1)
    y = (rows @ kernels.T).reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def back(slope: Array) -> tuple[Array, Array]:
        flat = slope.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        spread = (flat @ kernels).reshape(n, h, w, c, *weight.shape[2:])
        dpadded = np.zeros_like(padded)
        for i, j in np.ndindex(*weight.shape[2:]):
            window = dpadded[:, :, i : i + h * stride : stride, j : j + w * stride : stride]
            window += spread[..., i, j].transpose(0, 3, 1, 2)
        return dpadded[:, :, 1:-1, 1:-1], (flat.T @ rows).reshape(weight.shape)

    return y, back


def transposed_convolution(
    x: Array, weight: Array, _stride: int
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Every pixel becomes a patch of the kernel's size; patches do not overlap."""
    n, c, h, w = x.shape
    _, out, k, _ = weight.shape
    pixels = x.transpose(0, 2, 3, 1).reshape(-1, c)
    patches = (pixels @ weight.reshape(c, -1)).reshape(n, h, w, out, k, k)
    y = patches.transpose(0, 3, 1, 4, 2, 5).reshape(n, out, h * k, w * k)

    def back(slope: Array) -> tuple[Array, Array]:
        flat = slope.reshape(n, out, h, k, w, k).transpose(0, 2, 4, 1, 3, 5).reshape(n * h * w, -1)
        dx = (flat @ weight.reshape(c, -1).T).reshape(n, h, w, c).transpose(0, 3, 1, 2)
        return dx, (pixels.T @ flat).reshape(weight.shape)

    return y, back


def matrix_product(
    x: Array, weight: Array, _stride: int
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """All channels and pixels of an image against every row of the weight."""
    flat = x.reshape(len(x), -1)
    return flat @ weight.T, lambda slope: ((slope @ weight).reshape(x.shape), slope.T @ flat)


def cross_entropy(logits: Array, labels: NDArray[np.int64]) -> tuple[float, Array]:
    """Mean loss, and its derivative by the logits."""
    shifted_logits = logits - logits.max(axis=1, keepdims=True)
    chances = np.exp(shifted_logits)
    chances /= chances.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -float(np.log(chances[rows, labels]).mean())
    slope = chances.copy()
    slope[rows, labels] -= 1
    return loss, slope / np.float32(len(labels))


def export(weights: Weights) -> onnx.ModelProto:
    """The network at inference, batch normalizations kept as nodes of their own."""
    nodes: list[onnx.NodeProto] = []
    value = "image"
    for block in BLOCKS:
        if block.kind == "Gemm":
            nodes.append(helper.make_node("Flatten", [value], ["flat"], name="flatten"))
            value = "flat"
        for part, kind, inputs, attributes in node_table(block):
            result = f"{block.name}.{part}.out"
            nodes.append(
                helper.make_node(kind, [value, *inputs], [result], name=f"{block.name}.{part}", **attributes)
            )
            value = result
    nodes.append(
        helper.make_node("Gemm", [value, "head.weight", "head.bias"], ["logits"], name="head", transB=1)
    )
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        doc_string="Handwritten digits, 8x8 pixels with values 0 to 1.",
    )
    model = helper.make_model(
        graph, producer_name="train_digits", ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def node_table(block: Block) -> tuple[tuple[str, str, list[str], dict[str, Any]], ...]:
    """Name, operator, further inputs and attributes of a block's nodes."""
    kernel = list(block.shape[2:])
    of_kind: dict[str, dict[str, Any]] = {
        "Conv": {"kernel_shape": kernel, "pads": [1, 1, 1, 1], "strides": [block.stride] * 2},
        "ConvTranspose": {"kernel_shape": kernel, "strides": kernel},
        "Gemm": {"transB": 1},
    }
    parts = [f"{block.name}.bn.{part}" for part in ("scale", "bias", "mean", "var")]
    return (
        ("linear", block.kind, [f"{block.name}.linear.weight"], of_kind[block.kind]),
        ("bn", "BatchNormalization", parts, {"epsilon": EPSILON, "momentum": BN_MOMENTUM}),
        ("relu", "Relu", [], {}),
    )


if __name__ == "__main__":
    main()
