"""Write keras.npz: what a keras.layers.BatchNormalization with its defaults computes.

Run by hand with Keras 3 and a backend installed, for instance
`KERAS_BACKEND=torch python tests/runtime/golden/make_keras.py`. The tests read the stored numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np


def main() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5, 4, 3)) * 2 + 1).astype(np.float32)
    scale, bias, mean, var = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    layer = keras.layers.BatchNormalization(dtype="float32")
    layer.build(x.shape)
    layer.set_weights([scale, bias, mean, var])
    arrays: dict[str, Any] = {"x": x, "scale": scale, "bias": bias, "mean": mean, "var": var}
    arrays["infer_y"] = keras.ops.convert_to_numpy(layer(x, training=False))
    arrays["train_y"] = keras.ops.convert_to_numpy(layer(x, training=True))
    _, _, arrays["running_mean"], arrays["running_var"] = layer.get_weights()
    np.savez_compressed(Path(__file__).with_name("keras.npz"), **arrays)


if __name__ == "__main__":
    main()
