"""Write pytorch.npz: what torch.nn.functional.batch_norm computes on the CPU.

Run by hand with PyTorch installed: `python tests/runtime/golden/make_pytorch.py`. The tests read the stored
numbers, so they need no PyTorch. bfloat16 is stored as its uint16 bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

SHAPES = {"2d": (6, 3), "3d": (5, 4, 3), "4d": (3, 4, 5, 2), "5d": (2, 3, 2, 3, 2)}
# x and y; scale, bias and the statistics.
TYPES = {
    "float64": (torch.float64, torch.float64),
    "float32": (torch.float32, torch.float32),
    "float16": (torch.float16, torch.float32),
    "bfloat16": (torch.bfloat16, torch.float32),
}
MOMENTUM = 0.3
EPSILON = 1e-3


def stored(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - numpy as torch's stubs know it
    plain = tensor.detach().contiguous()
    return (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()


def case(
    shape: tuple[int, ...], wide: torch.dtype, narrow: torch.dtype, seed: int
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels = shape[1]

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = (2 * normal(*shape) + 1).to(wide)
    dy = normal(*shape).to(wide)
    scale, bias, mean = (normal(channels).to(narrow) for _ in range(3))
    var = (normal(channels).abs() + 0.1).to(narrow)
    arrays = {"x": x, "dy": dy, "scale": scale, "bias": bias, "mean": mean, "var": var}
    for mode, training in (("train", True), ("infer", False)):
        leaves = [t.clone().requires_grad_() for t in (x, scale, bias)]
        running_mean, running_var = mean.clone(), var.clone()
        y = functional.batch_norm(
            leaves[0], running_mean, running_var, leaves[1], leaves[2], training, MOMENTUM, EPSILON
        )
        y.backward(dy)
        arrays[f"{mode}_y"] = y
        for name, leaf in zip(("dx", "dscale", "dbias"), leaves, strict=True):
            if leaf.grad is None:
                raise RuntimeError(f"no gradient for {name}")
            arrays[f"{mode}_{name}"] = leaf.grad
        if training:
            arrays["running_mean"], arrays["running_var"] = running_mean, running_var
    return arrays


def main() -> None:
    file = {
        f"{rank}/{kind}/{name}": stored(tensor)
        for seed, (rank, shape) in enumerate(SHAPES.items())
        for kind, (wide, narrow) in TYPES.items()
        for name, tensor in case(shape, wide, narrow, seed).items()
    }
    np.savez_compressed(Path(__file__).with_name("pytorch.npz"), momentum=MOMENTUM, epsilon=EPSILON, **file)


if __name__ == "__main__":
    main()
