"""Sums of parallel branches, against the float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import Net
from support.claims import ops, same_function

import bnfold

SIZE = 9


def _check(net: Net, *, convs: int, total: int | None = None, merge: bool = True) -> bnfold.Result:
    """The result has `convs` Conv nodes (and `total` nodes in all), and computes the same."""
    model = net.model()
    result = bnfold.optimize(model, verify=False, merge=merge)
    names = ops(result.model)
    assert names.count("Conv") == convs, names
    assert len(names) == (convs if total is None else total), names
    assert not result.kept
    feeds = {
        i.name: np.random.default_rng(3)
        .normal(size=[d.dim_value for d in i.type.tensor_type.shape.dim])
        .astype(np.float32)
        for i in model.graph.input
    }
    same_function(model, result.model, feeds)
    return result


def _conv(net: Net, x: str, channels: int, kernel: int, group: int = 1, **attributes: Any) -> str:  # noqa: ANN401  # ONNX attributes of any kind
    w = net.init(net.draw(channels, channels // group, *(kernel,) * 2))
    attributes.setdefault("pads", [kernel // 2] * 4)
    attributes = {name: value for name, value in attributes.items() if value is not None}
    return net.node("Conv", x, w, net.init(net.draw(channels)), group=group, **attributes)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_repvgg_three_branches_become_one_conv(group: int) -> None:
    net = Net(17)
    x = net.input("x", 2, 8, SIZE, SIZE)
    wide = net.bn(_conv(net, x, 8, 3, group), 8, name="wide")
    point = net.bn(_conv(net, x, 8, 1, group), 8, name="point")
    same = net.bn(x, 8, name="same")
    net.output(net.node("Add", net.node("Add", wide, point), same), shape=[2, 8, SIZE, SIZE])
    result = _check(net, convs=1)
    assert {f.node: f.direction for f in result.folds} == {
        "wide": "backward",
        "point": "backward",
        "same": "sideways",
    }
    assert len(result.report.merged) == 2


def test_branches_are_left_alone_on_request() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3, merge=False)


def test_mobileone_any_number_of_branches() -> None:
    net = Net(17)
    x = net.input("x", 1, 6, SIZE, SIZE)
    total = net.bn(x, 6, name="identity")
    for i in range(5):
        total = net.node("Add", total, net.bn(_conv(net, x, 6, 1 if i == 2 else 3, 6), 6, name=f"bn{i}"))
    net.output(total, shape=[1, 6, SIZE, SIZE])
    _check(net, convs=1)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("behind", [["Add"], ["Sub"], ["Mul"], ["Add", "Mul", "Sub"]])
def test_constants_behind_the_sum_belong_to_the_conv(behind: list[str], position: int) -> None:
    """`out = 0`, and each branch added to it: as MobileOne is written."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", net.bn(_conv(net, x, 4, 3), 4), net.bn(_conv(net, x, 4, 1), 4))
    for op in behind:
        operands = [total, net.init(net.draw(*{"Add": (4, 1, 1), "Mul": (1, 4, 1, 1), "Sub": (1,)}[op]))]
        total = net.node(op, operands[position], operands[1 - position])
    net.output(total, shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_constants_behind_a_sum_that_is_read_elsewhere_stay() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1))
    shifted = net.node("Add", total, net.init(net.draw(4, 1, 1)))
    net.output(shifted, net.node("Relu", total), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=3)


@pytest.mark.parametrize("shape", [(SIZE,), (1, 1, SIZE, SIZE), (3, 1, 1, 1)])
def test_constants_behind_the_sum_that_are_not_per_channel_stay(shape: tuple[int, ...]) -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1))
    rows = shape[0] if len(shape) == 4 else 1
    net.output(net.node("Add", total, net.init(net.draw(*shape))), shape=[rows, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_a_constant_behind_one_conv_is_nobodys_business() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), net.init(net.draw(4, 1, 1))), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_fastvit_token_mixer() -> None:
    """x + gamma * (mixer(x) - norm(x))."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    mixer = net.bn(_conv(net, x, 4, 7, 4), 4, name="mixer")
    inner = net.node("Sub", mixer, net.bn(x, 4, name="norm"))
    net.output(
        net.node("Add", x, net.node("Mul", inner, net.init(net.draw(4, 1, 1)))), shape=[1, 4, SIZE, SIZE]
    )
    _check(net, convs=1)


def test_the_subtracted_branch_changes_its_sign() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Sub", _conv(net, x, 4, 1), _conv(net, x, 4, 5)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_a_subtracted_identity() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Sub", x, _conv(net, x, 4, 3)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_strided_branches_on_one_grid() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3, strides=[2, 2]), _conv(net, x, 4, 1, strides=[2, 2]))
    net.output(total, shape=[1, 4, 5, 5])
    _check(net, convs=1)


def test_dilated_branches_and_one_tap() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    wide = _conv(net, x, 4, 3, dilations=[2, 2], pads=[2] * 4)
    net.output(net.node("Add", wide, net.node("Add", _conv(net, x, 4, 1), x)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_kernels_that_are_not_centred() -> None:
    """A 2x2 kernel padded before and behind reads the last four and the first four taps of a 3x3."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    wide = _conv(net, x, 4, 3)
    small = net.node("Conv", x, net.init(net.draw(4, 4, 2, 2)), pads=[1, 0, 0, 1])
    net.output(net.node("Add", wide, small), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"kernel": 3, "dilations": [2, 2], "pads": [2] * 4}, {"kernel": 3}),  # other taps
        ({"kernel": 3, "group": 2}, {"kernel": 1}),  # other groups
        ({"kernel": 2, "pads": [1, 1, 0, 0]}, {"kernel": 2, "pads": [0, 0, 1, 1]}),  # neither holds the other
    ],
)  # fmt: skip
def test_branches_that_do_not_fit_stay(first: dict[str, Any], second: dict[str, Any]) -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(
        net.node("Add", _conv(net, x, 4, **first), _conv(net, x, 4, **second)), shape=[1, 4, SIZE, SIZE]
    )
    _check(net, convs=2, total=3)


def test_a_branch_that_is_read_elsewhere_stays() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    point = _conv(net, x, 4, 1)
    net.output(net.node("Add", _conv(net, x, 4, 3), point), net.node("Relu", point), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=4)


def test_branches_of_different_tensors_stay() -> None:
    net = Net(17)
    x, z = net.input("x", 1, 4, SIZE, SIZE), net.input("z", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), _conv(net, z, 4, 1)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3)


def test_an_identity_beside_a_strided_conv_of_one_pixel_stays() -> None:
    """[1, 4, 1, 1] broadcasts against the input: the sum is no convolution."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", x, _conv(net, x, 4, SIZE, pads=[0] * 4)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_one_output_channel_broadcast_to_many_stays() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    one = net.node("Conv", x, net.init(net.draw(1, 4, 3, 3)), pads=[1] * 4)
    net.output(net.node("Add", x, one), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_shared_weights_of_the_branches_are_not_spoiled() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    shared = net.init(net.draw(4, 4, 3, 3))
    first = net.node("Conv", x, shared, pads=[1] * 4)
    joined = net.node("Relu", net.node("Add", first, net.node("Conv", x, shared, pads=[1] * 4)))
    net.output(net.node("Conv", joined, shared, pads=[1] * 4), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3)


# --- pads that depend on the size -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [8, 9])
def test_automatic_pads_of_strided_branches(mode: str, size: int) -> None:
    """Nine pixels need one before and one behind, eight only one behind or before: the tap is another."""
    net = Net(17)
    x = net.input("x", 1, 4, size, size)
    wide = _conv(net, x, 4, 3, strides=[2, 2], pads=None, auto_pad=mode)
    point = _conv(net, x, 4, 1, strides=[2, 2], pads=None, auto_pad=mode)
    net.output(net.node("Add", wide, point), shape=[1, 4, (size + 1) // 2, (size + 1) // 2])
    _check(net, convs=1)


def test_pads_that_no_window_reaches() -> None:
    """Of eight pixels, every other, no window of three begins where the pad behind would make one more."""
    net = Net(17)
    x = net.input("x", 1, 4, 8, 8)
    wide = _conv(net, x, 4, 3, strides=[2, 2], pads=[0, 0, 1, 1])
    point = _conv(net, x, 4, 1, strides=[2, 2])
    net.output(net.node("Add", wide, point), shape=[1, 4, 4, 4])
    _check(net, convs=1)


def test_automatic_pads_of_an_unknown_size() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, "h", 9)
    wide = _conv(net, x, 4, 3, strides=[2, 2], pads=None, auto_pad="SAME_UPPER")
    point = _conv(net, x, 4, 1, strides=[2, 2])
    net.output(net.node("Add", wide, point), shape=[1, 4, None, 5])
    model = net.model()
    assert ops(bnfold.optimize(model, verify=False).model) == ["Conv", "Conv", "Add"]


# --- matrix products --------------------------------------------------------------------------------------


def _gemm(
    net: Net,
    x: str,
    rows: int,
    columns: int,
    bias: tuple[int, ...] | None = (),
    **attributes: Any,  # noqa: ANN401  # ONNX attributes of any kind
) -> str:
    shape = (columns, rows) if attributes.get("transB") else (rows, columns)
    c = [] if bias is None else [net.init(net.draw(*(bias or (columns,))))]
    return net.node("Gemm", x, net.init(net.draw(*shape)), *c, **attributes)


GEMMS: list[dict[str, Any]] = [
    {}, {"transB": 1}, {"bias": None}, {"bias": (1,)}, {"bias": (1, 5)}, {"alpha": 0.5}, {"beta": -2.0},
    {"alpha": -1.5, "beta": 0.5, "transB": 1},
]  # fmt: skip


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("second", GEMMS)
@pytest.mark.parametrize("first", GEMMS)
def test_summed_products(first: dict[str, Any], second: dict[str, Any], op: str) -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    net.output(net.node(op, _gemm(net, x, 4, 5, **first), _gemm(net, x, 4, 5, **second)), shape=[3, 5])
    _check(net, convs=0, total=1)


def test_repvit_two_heads_and_their_mean() -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    heads = [_gemm(net, net.bn(x, 4, name=f"bn{i}"), 4, 5, transB=1) for i in range(2)]
    net.output(net.node("Div", net.node("Add", *heads), net.init(2.0)), shape=[3, 5])
    _check(net, convs=0, total=1)


def test_summed_products_are_left_alone_on_request() -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    net.output(net.node("Add", _gemm(net, x, 4, 5), _gemm(net, x, 4, 5)), shape=[3, 5])
    _check(net, convs=0, total=3, merge=False)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"transA": 1}, {}),  # the rows of one are the columns of the other
        ({"bias": (4, 1)}, {}),  # a bias for each row
        ({"bias": (4, 4)}, {}),
    ],
)
def test_products_that_do_not_fit_stay(first: dict[str, Any], second: dict[str, Any]) -> None:
    net = Net(17)
    x = net.input("x", 4, 4)
    net.output(net.node("Add", _gemm(net, x, 4, 4, **first), _gemm(net, x, 4, 4, **second)), shape=[4, 4])
    _check(net, convs=0, total=3)


def test_a_product_that_is_broadcast_stays() -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    net.output(net.node("Add", _gemm(net, x, 4, 5), _gemm(net, x, 4, 1)), shape=[3, 5])
    _check(net, convs=0, total=3)


def test_a_product_that_is_read_elsewhere_stays() -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    one = _gemm(net, x, 4, 5)
    net.output(net.node("Add", one, _gemm(net, x, 4, 5)), net.node("Relu", one), shape=[3, 5])
    _check(net, convs=0, total=4)


@pytest.mark.parametrize(("size", "expected"), [((3, 4), ["Gemm"]), ((2, 3, 4), ["MatMul", "Add"])])
def test_summed_matrices_with_biases_behind(size: tuple[int, ...], expected: list[str]) -> None:
    net = Net(17)
    x = net.input("x", *size)
    terms = [net.node("MatMul", x, net.init(net.draw(4, 5))) for _ in range(2)]
    terms = [net.node("Add", term, net.init(net.draw(5))) for term in terms]
    net.output(net.node("Add", *terms), shape=[*size[:-1], 5])
    assert ops(_check(net, convs=0, total=len(expected)).model) == expected


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4), (2, 3, 3, 4)], ids=len)
def test_summed_matrices(size: tuple[int, ...]) -> None:
    net = Net(17)
    x = net.input("x", *size)
    terms = [net.node("MatMul", x, net.init(net.draw(4, 5))) for _ in range(3)]
    net.output(net.node("Add", net.node("Add", *terms[:2]), terms[2]), shape=[*size[:-1], 5])
    assert ops(_check(net, convs=0, total=1).model) == ["MatMul"]


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)], ids=len)
def test_a_matrix_and_the_tensor_itself(size: tuple[int, ...]) -> None:
    net = Net(17)
    x = net.input("x", *size)
    net.output(net.node("Sub", x, net.node("MatMul", x, net.init(net.draw(4, 4)))), shape=size)
    _check(net, convs=0, total=1)


def test_a_product_and_a_normalization_of_its_input() -> None:
    net = Net(17)
    x = net.input("x", 3, 4)
    net.output(net.node("Add", net.bn(x, 4, name="bn"), _gemm(net, x, 4, 4)), shape=[3, 4])
    assert _check(net, convs=0, total=1).folds[0].direction == "sideways"


def test_a_matrix_and_a_normalization_of_another_axis_stay() -> None:
    """Of three axes the normalization goes along the second, the product along the third."""
    net = Net(17)
    x = net.input("x", 2, 4, 4)
    net.output(
        net.node("Add", net.bn(x, 4, name="bn"), net.node("MatMul", x, net.init(net.draw(4, 4)))),
        shape=[2, 4, 4],
    )
    result = bnfold.optimize(net.model(), verify=False)
    assert [kept.node for kept in result.kept] == ["bn"]
    assert ops(result.model) == ["BatchNormalization", "MatMul", "Add"]


def test_constants_behind_summed_matrices_end() -> None:
    """A bias that a product gains is not taken in again and again."""
    net = Net(17)
    x = net.input("x", 2, 3, 4)
    total = net.node("Add", *(net.node("MatMul", x, net.init(net.draw(4, 5))) for _ in range(2)))
    total = net.node("Add", net.node("Mul", total, net.init(net.draw(5))), net.init(net.draw(5)))
    net.output(total, shape=[2, 3, 5])
    _check(net, convs=0, total=2)


# --- a tensor and its own normalization -------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("first", [False, True])
def test_a_tensor_and_its_normalization_go_into_the_layer_before(op: str, first: bool) -> None:
    net = Net(17)
    y = _conv(net, net.input("x", 1, 4, SIZE, SIZE), 4, 3)
    pair = [net.bn(y, 4, name="bn"), y]
    net.output(net.node(op, *(pair if first else pair[::-1])), shape=[1, 4, SIZE, SIZE])
    result = _check(net, convs=1, total=1)
    assert [(f.node, f.direction) for f in result.folds] == [("bn", "backward")]


def test_a_tensor_and_its_normalization_go_into_the_layer_behind() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    y = net.node("Add", x, net.bn(x, 4, name="bn"))
    net.output(net.node("Conv", y, net.init(net.draw(4, 4, 3, 3))), shape=[1, 4, SIZE - 2, SIZE - 2])
    _check(net, convs=1, total=1)


def test_two_normalizations_of_a_tensor_with_constants() -> None:
    net = Net(17)
    y = _conv(net, net.input("x", 1, 4, SIZE, SIZE), 4, 3)
    one = net.node("Mul", net.bn(y, 4, name="one"), net.init(net.draw(4, 1, 1)))
    two = net.node("Sub", net.init(net.draw(4, 1, 1)), net.bn(y, 4, name="two"))
    net.output(net.node("Sub", one, two), shape=[1, 4, SIZE, SIZE])
    result = _check(net, convs=1, total=1)
    assert sorted(f.direction for f in result.folds) == ["backward", "sideways"]


def test_a_tensor_and_its_normalization_where_no_weights_are() -> None:
    """One node less; the normalization stays, and says why."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Relu", net.node("Add", x, net.bn(x, 4, name="bn"))), shape=[1, 4, SIZE, SIZE])
    model = net.model()
    result = bnfold.optimize(model, verify=False)
    assert ops(result.model) == ["BatchNormalization", "Relu"]
    assert [(kept.node, str(kept.code)) for kept in result.kept] == [("bn", "BNF019")]
    feeds = {"x": np.random.default_rng(3).normal(size=(1, 4, SIZE, SIZE)).astype(np.float32)}
    same_function(model, result.model, feeds)


def test_a_tensor_and_its_normalization_that_is_read_elsewhere() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    y = net.bn(x, 4, name="bn")
    net.output(net.node("Add", x, y), net.node("Relu", y), shape=[1, 4, SIZE, SIZE])
    result = bnfold.optimize(net.model(), verify=False)
    assert ops(result.model) == ["BatchNormalization", "Add", "Relu"]


def test_a_tensor_and_its_normalization_are_left_alone_on_request() -> None:
    net = Net(17)
    y = _conv(net, net.input("x", 1, 4, SIZE, SIZE), 4, 3)
    net.output(net.node("Add", y, net.bn(y, 4, name="bn")), shape=[1, 4, SIZE, SIZE])
    result = bnfold.optimize(net.model(), verify=False, merge=False)
    assert [str(kept.code) for kept in result.kept] == ["BNF010"]


def test_an_excluded_normalization_does_not_join() -> None:
    net = Net(17)
    y = _conv(net, net.input("x", 1, 4, SIZE, SIZE), 4, 3)
    net.output(net.node("Add", y, net.bn(y, 4, name="bn")), shape=[1, 4, SIZE, SIZE])
    result = bnfold.optimize(net.model(), verify=False, exclude=["bn"])
    assert [str(kept.code) for kept in result.kept] == ["BNF024"]
    assert ops(result.model) == ["Conv", "BatchNormalization", "Add"]
