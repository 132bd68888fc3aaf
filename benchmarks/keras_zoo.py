"""Converts Keras networks with tf2onnx: channels last, BatchNormalization spelled out as Mul and Add.

    python keras_zoo.py FOLDER [NAME ...] [--forms tf2onnx plain]

needs `pip install tensorflow-cpu tf2onnx`. Architectures are those of keras.applications, weights and
statistics are drawn from a seed. Each network is written in two forms:

- `tf2onnx`: as its users get it. TensorFlow and the converter then have folded what they can.
- `plain`: without any optimization on the way. Every normalization is a Mul and an Add, and every Conv stands
  between two Transposes.
"""

from __future__ import annotations

import argparse
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS = ("tf2onnx", "plain")
_OPSET = 17
_BATCH = 8  # of the noise that statistics are taken from
_TURNED = 0.1  # share of negative gammas

# The class in keras.applications, and the side of the image.
ZOO: dict[str, tuple[Callable[..., Any], int]] = {
    "keras_mobilenet_v2": (keras.applications.MobileNetV2, 64),
    "keras_mobilenet_v3_small": (keras.applications.MobileNetV3Small, 64),
    "keras_resnet50_v2": (keras.applications.ResNet50V2, 64),
    "keras_densenet121": (keras.applications.DenseNet121, 64),
    "keras_efficientnet_b0": (keras.applications.EfficientNetB0, 64),
    "keras_inception_v3": (keras.applications.InceptionV3, 96),
    "keras_xception": (keras.applications.Xception, 96),
    "keras_nasnet_mobile": (keras.applications.NASNetMobile, 64),
}


def network(name: str) -> Any:  # noqa: ANN401  # Keras ships no types
    """A network with random weights; statistics are near those of noise, a tenth of the gammas negative."""
    seed = zlib.crc32(name.encode())
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    build, size = ZOO[name]
    # Logits: a softmax of such weights is zeros and a one, whatever the network computes.
    made = build(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    layers = [layer for layer in made.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
        if layer.gamma is not None:
            turned = np.where(rng.random(layer.gamma.shape) < _TURNED, -1, 1)
            layer.gamma.assign(rng.uniform(0.7, 1.3, layer.gamma.shape) * turned)
        layer.beta.assign(rng.uniform(-0.2, 0.2, layer.beta.shape))
    made(rng.standard_normal((_BATCH, size, size, 3), np.float32), training=True)
    for layer in layers:
        var = np.maximum(layer.moving_variance, 0.01 * np.mean(layer.moving_variance) + 1e-3)
        moved = 0.3 * np.sqrt(var) * rng.standard_normal(var.shape)
        layer.moving_mean.assign(layer.moving_mean + moved)
        layer.moving_variance.assign(var * rng.uniform(0.5, 1.5, var.shape))
    return made


def convert(made: Any, form: str, path: Path) -> None:  # noqa: ANN401  # Keras ships no types
    """Write a network in one of the forms."""
    shape = (1, *made.input_shape[1:])
    signature = [tf.TensorSpec(shape, tf.float32, name="input")]
    if form == "tf2onnx":
        tf2onnx.convert.from_keras(made, signature, opset=_OPSET, output_path=str(path))
        return
    traced = tf.function(lambda x: made(x, training=False)).get_concrete_function(*signature)
    frozen = convert_variables_to_constants_v2(traced)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            opset=_OPSET,
            input_names=[x.name for x in frozen.inputs],
            output_names=[y.name for y in frozen.outputs],
        )
    path.write_bytes(converted.make_model(path.stem).SerializeToString())


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(description="Convert Keras networks with tf2onnx.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ZOO)}; all by default")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ZOO]
    if unknown:
        parser.error(f"not in the zoo: {', '.join(unknown)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or ZOO:
        made = network(name)
        for form in arguments.forms:
            path = arguments.folder / f"{name}_{form}.onnx"
            convert(made, form, path)
            print(path, flush=True)


if __name__ == "__main__":
    main()
