"""Convolution and pooling against the definition, written as loops."""

# ruff: noqa: ANN401, PLR0917 - attributes of any type; the definition has that many parts

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from bnfold.verification.truth import Truth
from bnfold.verification.truth import convolution as convolution_module

Array = np.ndarray[Any, np.dtype[Any]]
# Sums of at most a few hundred float64 terms of size 1, in another order than BLAS takes.
TOLERANCE = 1e-12


def evaluate(operator: str, *operands: Array, opset: int = 22, **attributes: Any) -> Array:
    names = [f"i{index}" for index in range(len(operands))]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result: Array = Truth(model).run(dict(zip(names, operands, strict=True)))["y"]
    return result


def conv_by_definition(
    x: Array, w: Array, b: Array, strides: list[int], dilations: list[int], pads: list[int], group: int
) -> Array:
    rank = x.ndim - 2
    out = [
        (x.shape[2 + a] + pads[a] + pads[a + rank] - (w.shape[2 + a] - 1) * dilations[a] - 1) // strides[a]
        + 1
        for a in range(rank)
    ]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_group = w.shape[0] // group
    for n, m, *place in itertools.product(*map(range, y.shape)):
        total = float(b[m])
        for c, *tap in itertools.product(*map(range, w.shape[1:])):
            at = [
                p * s + t * d - q for p, s, t, d, q in zip(place, strides, tap, dilations, pads, strict=False)
            ]
            if all(0 <= i < size for i, size in zip(at, x.shape[2:], strict=True)):
                total += float(w[(m, c, *tap)]) * float(x[(n, m // per_group * w.shape[1] + c, *at)])
        y[(n, m, *place)] = total
    return y


def transpose_by_definition(
    x: Array,
    w: Array,
    b: Array,
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    extra: list[int],
    group: int,
) -> Array:
    rank = x.ndim - 2
    out = [
        strides[a] * (x.shape[2 + a] - 1)
        + extra[a]
        + (w.shape[2 + a] - 1) * dilations[a]
        + 1
        - pads[a]
        - pads[a + rank]
        for a in range(rank)
    ]
    y = np.zeros((x.shape[0], w.shape[1] * group, *out)) + b.reshape(-1, *[1] * rank)
    per_group = w.shape[0] // group
    for n, c, *place in itertools.product(*map(range, x.shape)):
        for m, *tap in itertools.product(*map(range, w.shape[1:])):
            at = [
                p * s + t * d - q for p, s, t, d, q in zip(place, strides, tap, dilations, pads, strict=False)
            ]
            if all(0 <= i < size for i, size in zip(at, out, strict=True)):
                y[(n, c // per_group * w.shape[1] + m, *at)] += float(x[(n, c, *place)]) * float(
                    w[(c, m, *tap)]
                )
    return y


CASES = [
    # spatial, kernel, strides, dilations, pads, group, channels in and out per group
    ([7], [3], [2], [2], [1, 2], 1, (2, 3)),
    ([6, 5], [3, 2], [1, 2], [1, 1], [1, 0, 2, 1], 1, (3, 4)),
    ([6, 5], [3, 3], [2, 1], [1, 2], [1, 2, 1, 2], 2, (2, 3)),
    ([5, 5], [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 4, (1, 1)),
    ([5, 5], [3, 3], [2, 2], [1, 1], [0, 1, 1, 0], 3, (1, 2)),
    ([4, 4], [1, 1], [1, 1], [1, 1], [0, 0, 0, 0], 1, (3, 5)),
    ([4, 3, 5], [2, 3, 2], [1, 2, 2], [2, 1, 1], [1, 1, 0, 0, 1, 1], 2, (2, 1)),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("piece", [1, convolution_module.PIECE])
def test_conv(case: tuple[Any, ...], piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_module, "PIECE", piece)
    spatial, kernel, strides, dilations, pads, group, (fan, out) = case
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, fan * group, *spatial)), rng.standard_normal((out * group, fan, *kernel))
    b = rng.standard_normal(out * group)
    y = evaluate("Conv", x, w, b, strides=strides, dilations=dilations, pads=pads, group=group)
    expected = conv_by_definition(x, w, b, strides, dilations, pads, group)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_conv_transpose(case: tuple[Any, ...]) -> None:
    spatial, kernel, strides, dilations, pads, group, (fan, out) = case
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, fan * group, *spatial)), rng.standard_normal((fan * group, out, *kernel))
    b = rng.standard_normal(out * group)
    extra = [stride - 1 for stride in strides]
    y = evaluate(
        "ConvTranspose",
        x,
        w,
        b,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=group,
        output_padding=extra,
    )
    expected = transpose_by_definition(x, w, b, strides, dilations, pads, extra, group)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad_is_the_padding_it_stands_for(auto_pad: str) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 2, 6, 5)), rng.standard_normal((3, 2, 3, 2))
    # Strides 2 and 1: three rows and five columns, so one row and one column of padding in all.
    pads = [0, 0, 1, 1] if auto_pad == "SAME_UPPER" else [1, 1, 0, 0]
    y = evaluate("Conv", x, w, strides=[2, 1], auto_pad=auto_pad)
    expected = conv_by_definition(x, w, np.zeros(3), [2, 1], [1, 1], pads, 1)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("counted", [0, 1])
def test_pools(case: tuple[Any, ...], counted: int) -> None:
    spatial, kernel, strides, dilations, _, _, _ = case
    pads = [size // 2 for size in kernel] * 2
    x = np.random.default_rng(4).standard_normal((2, 3, *spatial))
    given = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    largest = evaluate("MaxPool", x, **given)
    mean = evaluate("AveragePool", x, count_include_pad=counted, **given)
    for place in itertools.product(*map(range, largest.shape)):
        seen, cells = [], 0
        for tap in itertools.product(*map(range, kernel)):
            at = [
                p * s + t * d - q
                for p, s, t, d, q in zip(place[2:], strides, tap, dilations, pads, strict=False)
            ]
            cells += 1
            if all(0 <= i < size for i, size in zip(at, spatial, strict=True)):
                seen.append(x[(*place[:2], *at)])
        assert largest[place] == max(seen)
        assert mean[place] == pytest.approx(sum(seen) / (cells if counted else len(seen)), abs=TOLERANCE)


def test_empty_batch() -> None:
    y = evaluate("Conv", np.zeros((0, 2, 4, 4)), np.ones((3, 2, 3, 3)))
    assert y.shape == (0, 3, 2, 2)
