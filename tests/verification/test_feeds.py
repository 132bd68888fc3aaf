"""Feeds: sizes, ranges of integers, dtypes, refusals."""

# ruff: noqa: ANN401 - dtypes as parameters

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.verification.feeds import (
    InputSpec,
    Kind,
    NoFeedError,
    candidate_sizes,
    input_specs,
    make_feed,
    other_sizes,
)


def model(
    inputs: list[onnx.ValueInfoProto],
    nodes: list[onnx.NodeProto] | None = None,
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    return helper.make_model(helper.make_graph(nodes or [], "g", inputs, [], tensors))


def value(name: str, kind: int, shape: list[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT8, np.uint8),
    ],
)
def test_feeds_have_the_dtype_of_the_input_and_are_repeatable(kind: int, dtype: Any) -> None:
    specs = input_specs(model([value("x", kind, [3, 40])]))
    (sizes,) = candidate_sizes(specs)
    feeds = {name: make_feed(specs, sizes, name, 7) for name in ("normal", "uniform", "zeros", "large")}
    assert all(feed.values["x"].dtype == dtype for feed in feeds.values())
    assert not feeds["zeros"].values["x"].any()
    assert np.array_equal(make_feed(specs, sizes, "normal", 7).values["x"], feeds["normal"].values["x"])
    assert not np.array_equal(make_feed(specs, sizes, "normal", 8).values["x"], feeds["normal"].values["x"])
    assert np.isfinite(feeds["large"].values["x"].astype(float)).all()


def test_equal_names_are_equal_sizes_and_nameless_ones_are_their_own() -> None:
    specs = input_specs(
        model(
            [
                value("a", TensorProto.FLOAT, ["n", 3, "h", None]),
                value("b", TensorProto.FLOAT, ["n", "h"]),
            ]
        )
    )
    first = candidate_sizes(specs)[0]
    other = other_sizes(specs, first)[0]
    a, b = specs
    for sizes in (first, other):
        assert sizes.of(a)[0] == sizes.of(b)[0]
        assert sizes.of(a)[2] == sizes.of(b)[1]
    assert all(first.by_symbol[name] != other.by_symbol[name] for name in first.by_symbol)


def test_sizes_tried_stay_affordable() -> None:
    specs = (InputSpec("volume", np.dtype(np.float32), ("n", 4, "d", "h", "w")),)
    assert all(np.prod(sizes.of(specs[0])) <= 2**24 for sizes in candidate_sizes(specs))


def test_what_an_initializer_backs_is_not_fed() -> None:
    m = model(
        [value("x", TensorProto.FLOAT, [1]), value("w", TensorProto.FLOAT, [1])], weights={"w": np.ones(1)}
    )
    assert [spec.name for spec in input_specs(m)] == ["x"]


def test_a_zero_dimension_stays_zero() -> None:
    (spec,) = input_specs(model([value("x", TensorProto.FLOAT, [0, 3])]))
    assert make_feed((spec,), candidate_sizes((spec,))[0], "normal", 0).values["x"].shape == (0, 3)


def test_unknown_channels_are_those_of_the_convolution() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
    m = model(
        [value("x", TensorProto.FLOAT, ["n", "c", 8, 8])], [conv], {"w": np.zeros((4, 3, 1, 1), np.float32)}
    )
    assert input_specs(m)[0].shape == ("n", 6, 8, 8)


def test_indices_stay_within_what_they_index() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["ids", "axes"], ["wide"]),
        helper.make_node("Gather", ["table", "wide"], ["y"]),
        helper.make_node("OneHot", ["class", "depth", "values"], ["z"]),
        helper.make_node("Reshape", ["y", "shape"], ["r"]),
    ]
    names = ["ids", "class", "shape", "mask"]
    m = model(
        [value(name, TensorProto.INT64, [64]) for name in names],
        nodes,
        {"table": np.zeros((5, 2)), "depth": np.array(3), "axes": np.array([0])},
    )
    specs = {spec.name: spec for spec in input_specs(m)}
    assert (specs["ids"].low, specs["ids"].high) == (0, 5)
    assert (specs["class"].low, specs["class"].high) == (0, 3)
    assert (specs["shape"].low, specs["shape"].high) == (1, 2)
    for kind in ("normal", "uniform", "zeros", "large"):
        feed = make_feed(tuple(specs.values()), candidate_sizes(tuple(specs.values()))[0], kind, 0)
        assert feed.values["ids"].min() >= 0
        assert feed.values["ids"].max() < 5


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]), "sequence"),
        (value("t", TensorProto.STRING, [1]), "strings"),
        (value("r", TensorProto.FLOAT, None), "rank"),
    ],
)
def test_what_cannot_be_fed_is_refused_by_name(bad: onnx.ValueInfoProto, said: str) -> None:
    with pytest.raises(NoFeedError, match=rf"'{bad.name}'.*{said}"):
        input_specs(model([bad]))


def test_indices_read_by_a_nested_graph_stay_within_what_they_index() -> None:
    body = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])], "b", [], [value("y", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["which"], ["z"], then_branch=body, else_branch=body)
    m = model([value("ids", TensorProto.INT64, [4])], [node], {"table": np.zeros((3, 2))})
    assert (input_specs(m)[0].low, input_specs(m)[0].high) == (0, 3)


@pytest.mark.parametrize("kind", ["normal", "uniform", "zeros", "large"])
@pytest.mark.parametrize(
    ("dtype", "limits"), [(np.float32, (2.0, 3.0)), (np.float16, (-1.0, 1.0)), (np.uint8, (3.5, 7.0))]
)
def test_values_stay_in_the_range_that_is_wanted(kind: Kind, dtype: Any, limits: tuple[float, float]) -> None:
    spec = InputSpec("x", np.dtype(dtype), (500,), limits=limits)
    values = make_feed((spec,), candidate_sizes((spec,))[0], kind, 0).values["x"]
    assert values.dtype == dtype
    assert limits[0] <= values.min() <= values.max() <= limits[1]
    if kind == "large":
        assert len(np.unique(values)) == 2
