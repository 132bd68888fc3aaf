"""PyTorch itself, on fresh random inputs; needs `pip install torch`, which the test extra does not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.batchnorm import make_case

from bnfold import runtime
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

pytestmark = pytest.mark.peers

SHAPES = [(9, 4), (5, 3, 11), (4, 6, 7, 5), (2, 3, 4, 3, 5), (64, 16, 14, 14)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
def test_forward_backward_and_running_statistics(
    shape: tuple[int, ...], dtype: DTypeLike, training: bool
) -> None:
    torch: Any = import_module("torch")  # not installed where this lane is not run

    seed = int(np.random.default_rng().integers(2**31))
    case = make_case(shape, dtype=dtype, seed=seed)
    dy = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    x, scale, bias = (torch.tensor(a, requires_grad=True) for a in (case.x, case.scale, case.bias))
    running_mean, running_var = torch.tensor(case.mean), torch.tensor(case.var)
    y = torch.nn.functional.batch_norm(x, running_mean, running_var, scale, bias, training, 0.1, 1e-5)
    y.backward(torch.tensor(dy))

    unit = 64 * float(np.finfo(dtype).eps)  # sums of up to 12,544 values in another order

    def close(got: NDArray[Any], expected: Any) -> None:  # noqa: ANN401 - a torch.Tensor
        wide = expected.detach().numpy()
        np.testing.assert_allclose(
            got, wide, rtol=0, atol=unit * max(1.0, float(np.abs(wide).max())), err_msg=f"seed {seed}"
        )

    mean, var = case.mean, case.var
    if training:
        step = runtime.train(case.x, *case.parameters, convention="pytorch", backend="numpy")
        close(step.y, y)
        close(step.running_mean, running_mean)
        close(step.running_var, running_var)
        mean, var = step.mean, step.var
    else:
        close(runtime.infer(case.x, *case.parameters, backend="numpy"), y)
    got = runtime.backward(dy, case.x, case.scale, mean=mean, var=var, training=training, backend="numpy")
    close(got.dx, x.grad)
    close(got.dscale, scale.grad)
    close(got.dbias, bias.grad)


def test_a_torch_tensor_is_no_numpy_array() -> None:
    torch: Any = import_module("torch")  # not installed where this lane is not run

    one = torch.ones(1)
    with pytest.raises(UsageError, match=r"backend=\"numpy\" with a torch\.Tensor"):
        runtime.infer(torch.ones(2, 1), one, one, one, one, backend="numpy")
