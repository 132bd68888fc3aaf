"""Folding backward: every producer, in every form it is written."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from support.build import DOUBLE, FLOAT, Attribute, Net
from support.claims import expect, initializers, ops

RANKS = {1: (7,), 2: (7, 6), 3: (5, 6, 4)}


# --- Conv -------------------------------------------------------------------------------------------------


def conv_net(
    rank: int, cin: int, cout: int, *, bias: bool | str = True, kernel: int = 3, **attrs: Attribute
) -> Net:
    net = Net(elem=FLOAT)
    x = net.input("x", 2, cin, *RANKS[rank])
    y = net.conv(x, cin, cout, [kernel] * rank, bias=bias, name="conv", **attrs)
    net.output(net.bn(y, cout, name="bn"))
    return net


@pytest.mark.parametrize("bias", [True, False, ""], ids=["bias", "no_bias", "empty_bias"])
@pytest.mark.parametrize("group", ["one", "two", "depthwise"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(rank: int, group: str, bias: bool | str) -> None:
    groups = {"one": 1, "two": 2, "depthwise": 4}[group]
    result = expect(conv_net(rank, 4, 8, bias=bias, group=groups).model(), folded={"bn"})
    assert ops(result.model) == ["Conv"]
    assert result.folds[0].into == ("conv",)
    assert result.folds[0].into_op == ("Conv",)
    assert result.folds[0].direction == "backward"
    assert result.folds[0].scope == ""
    assert tuple(result.folds[0].through) == ()


@pytest.mark.parametrize(
    "attrs",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 1]},
        {"pads": [2, 0, 0, 1], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"auto_pad": "NOTSET", "pads": [1, 1, 1, 1]},
        {"dilations": [2, 1]},
        {"kernel_shape": [3, 3], "strides": [1, 3], "dilations": [1, 2], "pads": [1, 2, 1, 2]},
    ],
    ids=str,
)
def test_conv_paddings(attrs: dict[str, Any]) -> None:
    """Padding never stands in the way backward: the shift is added behind it."""
    expect(conv_net(2, 3, 5, **attrs).model(), folded={"bn"})


def test_conv_of_square_shapes() -> None:
    """Cin = Cout = kernel = batch: nothing can be told from shapes."""
    net = Net()
    x = net.input("x", 3, 3, 3, 3)
    net.output(net.bn(net.conv(x, 3, 3, pads=[1, 1, 1, 1]), 3, name="bn"))
    expect(net.model(), folded={"bn"})


def test_conv_keeps_its_attributes_and_name() -> None:
    model = conv_net(2, 3, 5, pads=[0, 1, 2, 1], strides=[2, 1], kernel_shape=[3, 3]).model()
    result = expect(model, folded={"bn"})
    (before, _), (after,) = model.graph.node, result.model.graph.node
    assert list(after.attribute) == list(before.attribute)
    assert after.name == before.name
    assert after.input[0] == "x"


# --- ConvTranspose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False, ""], ids=["bias", "no_bias", "empty_bias"])
@pytest.mark.parametrize(
    ("cin", "cout", "groups"), [(4, 6, 1), (4, 6, 2), (4, 4, 4), (4, 4, 1), (4, 4, 2), (6, 9, 3)]
)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rank: int, cin: int, cout: int, groups: int, bias: bool | str) -> None:
    net = Net()
    x = net.input("x", 2, cin, *RANKS[rank])
    w = net.init(net.draw(cin, cout // groups, *[3] * rank))
    b = {True: [net.init(net.draw(cout))], False: [], "": [""]}[bias]
    y = net.node("ConvTranspose", x, w, *b, name="up", group=groups, strides=[2] * rank, pads=[1] * 2 * rank)
    net.output(net.bn(y, cout, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["ConvTranspose"]


@pytest.mark.parametrize(
    "attrs",
    [
        {"output_padding": [1, 1], "strides": [2, 2]},
        {"output_shape": [14, 13], "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"dilations": [2, 2], "pads": [0, 1, 2, 1]},
    ],
    ids=str,
)
def test_conv_transpose_paddings(attrs: dict[str, Any]) -> None:
    net = Net()
    x = net.input("x", 1, 3, 7, 6)
    y = net.node("ConvTranspose", x, net.init(net.draw(3, 4, 3, 3)), net.init(net.draw(4)), **attrs)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


# --- Gemm -------------------------------------------------------------------------------------------------

C_SHAPES: dict[str, tuple[int, ...] | None] = {
    "absent": None,
    "empty": None,
    "scalar": (),
    "[1]": (1,),
    "[N]": (5,),
    "[1,N]": (1, 5),
    "[M,1]": (4, 1),
    "[1,1]": (1, 1),
    "[M,N]": (4, 5),
}


@pytest.mark.parametrize("kind", C_SHAPES)
@pytest.mark.parametrize(("trans_a", "trans_b"), list(product([0, 1], [0, 1])))
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -1.5), (2.0, 0.0), (0.0, 2.0)])
def test_gemm(kind: str, trans_a: int, trans_b: int, alpha: float, beta: float) -> None:
    net = Net()
    x = net.input("x", *((3, 4) if trans_a else (4, 3)))
    w = net.init(net.draw(*((5, 3) if trans_b else (3, 5))))
    shape = C_SHAPES[kind]
    c = [""] if kind == "empty" else [] if shape is None else [net.init(net.draw(*shape))]
    y = net.node("Gemm", x, w, *c, name="fc", transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)
    net.output(net.bn(y, 5, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["Gemm"]


@pytest.mark.parametrize("kind", ["[N]", "[M,1]", "[M,N]", "scalar"])
def test_gemm_square(kind: str) -> None:
    """M = N = K: a C of [4] could be either; the specification aligns it right, so it is [N]."""
    shapes: dict[str, tuple[int, ...]] = {"[N]": (4,), "[M,1]": (4, 1), "[M,N]": (4, 4), "scalar": ()}
    net = Net()
    y = net.node(
        "Gemm", net.input("x", 4, 4), net.init(net.draw(4, 4)), net.init(net.draw(*shapes[kind])), transB=1
    )
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_gemm_with_a_running_c_stays_right() -> None:
    """C is computed at run time and scaled by beta: W alone may not absorb the BN."""
    net = Net()
    x, c = net.input("x", 4, 3), net.input("c", 4, 5)
    y = net.node("Gemm", x, net.init(net.draw(3, 5)), c, alpha=0.5, beta=2.0)
    net.output(net.bn(y, 5, name="bn"))
    expect(net.model(), kept={"bn": "BNF012"})


def test_gemm_with_unknown_rows_and_a_row_bias() -> None:
    net = Net()
    x = net.input("x", "n", 3)
    net.output(net.bn(net.node("Gemm", x, net.init(net.draw(3, 5)), net.init(net.draw(1, 5))), 5, name="bn"))
    expect(net.model(), folded={"bn"})


def test_gemm_with_constant_a_and_running_b_is_not_folded() -> None:
    """The constant is on the left: its rows are the batch of the result, not its channels."""
    net = Net()
    b = net.input("b", 4, 4)
    net.output(net.bn(net.node("Gemm", net.init(net.draw(4, 4)), b), 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": {"BNF012", "BNF019", "BNF023"}})


# --- MatMul -----------------------------------------------------------------------------------------------


def test_matmul_2d_gains_a_bias() -> None:
    net = Net()
    net.output(
        net.bn(net.node("MatMul", net.input("x", 4, 3), net.init(net.draw(3, 5)), name="mm"), 5, name="bn")
    )
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) in (["Gemm"], ["MatMul", "Add"])


def test_matmul_2d_without_a_shift_needs_no_add() -> None:
    net = Net()
    y = net.node("MatMul", net.input("x", 4, 3), net.init(net.draw(3, 5)))
    net.output(net.bn(y, 5, name="bn", stats={"bias": np.zeros(5), "mean": np.zeros(5)}))
    result = expect(net.model(), folded={"bn"})
    assert len(ops(result.model)) <= 2


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1,), ()], ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_matmul_add_2d(shape: tuple[int, ...], side: str) -> None:
    net = Net()
    y = net.node("MatMul", net.input("x", 4, 3), net.init(net.draw(3, 5)))
    b = net.init(net.draw(*shape))
    y = net.node("Add", y, b) if side == "right" else net.node("Add", b, y)
    net.output(net.bn(y, 5, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert len(ops(result.model)) <= 2


def test_matmul_add_of_a_row_constant_is_no_channel_bias() -> None:
    """[M,1] differs by row: no channel has one bias, yet it can be scaled as [M,N]; the values decide."""
    net = Net()
    y = net.node(
        "Add", net.node("MatMul", net.input("x", 4, 3), net.init(net.draw(3, 4))), net.init(net.draw(4, 1))
    )
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model())


def matmul_3d(net: Net, rows: int | str = 6, cout: int = 5) -> str:
    return net.node("MatMul", net.input("x", 2, rows, 3), net.init(net.draw(3, cout)), name="mm")


@pytest.mark.parametrize("bias", [True, False])
def test_matmul_3d_flattened(bias: bool) -> None:
    """As LeViT writes it: features last, rows merged for a BatchNorm1d, and put back."""
    net = Net()
    y = matmul_3d(net)
    y = net.node("Add", y, net.init(net.draw(5))) if bias else y
    y = net.node("Flatten", y, axis=2)
    y = net.bn(y, 5, name="bn")
    net.output(net.node("Reshape", y, net.ints(2, 6, 5)))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("target", [(-1, 5), (12, 5), (12, -1)], ids=str)
def test_matmul_3d_reshaped(target: tuple[int, ...]) -> None:
    net = Net()
    y = net.bn(net.node("Reshape", matmul_3d(net), net.ints(*target)), 5, name="bn")
    net.output(net.node("Reshape", y, net.ints(2, 6, 5)))
    expect(net.model(), folded={"bn"})


def test_matmul_3d_reshaped_with_symbolic_rows() -> None:
    net = Net()
    net.output(net.bn(net.node("Reshape", matmul_3d(net, rows="rows"), net.ints(-1, 5)), 5, name="bn"))
    expect(net.model(), folded={"bn"})


def test_matmul_3d_transposed() -> None:
    net = Net()
    net.output(net.bn(net.node("Transpose", matmul_3d(net), perm=[0, 2, 1]), 5, name="bn"))
    expect(net.model(), folded={"bn"})


def test_matmul_3d_added_and_transposed() -> None:
    net = Net()
    y = net.node("Add", matmul_3d(net), net.init(net.draw(5)))
    net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 5, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5), (1,)], ids=str)
def test_matmul_3d_add_shapes(shape: tuple[int, ...]) -> None:
    net = Net()
    y = net.node("Add", net.init(net.draw(*shape)), matmul_3d(net))
    net.output(net.bn(net.node("Flatten", y, axis=2), 5, name="bn"))
    expect(net.model(), folded={"bn"})


# --- through Identity and Dropout -------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [6, 7, 11, 12, 13, 22])
@pytest.mark.parametrize(
    "chain", [["Identity"], ["Dropout"], ["Identity", "Dropout", "Identity"]], ids="-".join
)
def test_through_identity_and_dropout(opset: int, chain: list[str]) -> None:
    net = Net(opset)
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    for i, op in enumerate(chain):
        attrs: dict[str, Any] = {"is_test": 1} if op == "Dropout" and opset < 7 else {}
        y = net.node(op, y, name=f"pass_{i}", **attrs)
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert tuple(sorted(result.folds[0].through)) == tuple(f"pass_{i}" for i in range(len(chain)))


def test_through_a_dropout_that_is_told_not_to_train() -> None:
    net = Net(13)
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    y = net.node("Dropout", y, net.init(0.5), net.init(np.array(False), elem=9))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


# --- composed with constants ------------------------------------------------------------------------------

CHANNEL_SHAPES = [(4, 1, 1), (1, 4, 1, 1), (), (1,), (1, 1, 1)]


@pytest.mark.parametrize("shape", CHANNEL_SHAPES, ids=str)
@pytest.mark.parametrize(
    ("op", "side"), [("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1), ("Mul", 0), ("Mul", 1), ("Div", 1)]
)
def test_conv_then_constant_then_bn(op: str, side: int, shape: tuple[int, ...]) -> None:
    """`side` is the place of the constant: Sub(c, x) has scale -1; Div(c, x) is not affine."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    c = net.init(net.draw(*shape, low=0.5, high=2.0))
    y = net.node(op, y, c) if side else net.node(op, c, y)
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert len(ops(result.model)) <= 2


def test_conv_mul_add_bn() -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, bias=False)
    y = net.node("Mul", y, net.init(net.draw(4, 1, 1)))
    y = net.node("Add", y, net.init(net.draw(1, 4, 1, 1)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_conv_then_neg_like_products() -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    y = net.node("Mul", y, net.init(-1.0))
    y = net.node("Sub", net.init(net.draw(4, 1, 1)), y)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("broadcast", ["axis1", "axis-3", "scalar", "full_suffix"])
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
@pytest.mark.parametrize("opset", [1, 6])
def test_conv_then_constant_of_old_opsets(opset: int, op: str, broadcast: str) -> None:
    """Opsets below 7 place the operand by `axis`; C = W = H here, so the shape alone says nothing."""
    net = Net(opset)
    y = net.conv(net.input("x", 1, 3, 4, 4), 3, 4, [1, 1])
    shape: tuple[int, ...] = {"axis1": (4,), "axis-3": (4,), "scalar": (1,), "full_suffix": (4, 4, 4)}[
        broadcast
    ]
    attrs: dict[str, Any] = {"axis1": {"axis": 1}, "axis-3": {"axis": -3}}.get(broadcast, {})
    if opset == 1:
        attrs["consumed_inputs"] = [0, 0]
    values = net.draw(*shape, low=0.5, high=2.0)
    y = net.node(op, y, net.init(values), broadcast=1, **attrs)
    net.output(net.bn(y, 4, name="bn"), shape=[1, 4, 4, 4])
    known = {"axis1", "scalar"} if broadcast != "axis-3" else set()
    expect(net.model(), folded={"bn"} if broadcast in known else None)


@pytest.mark.parametrize("count", [2, 3])
def test_conv_then_several_bns(count: int) -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    for i in range(count):
        y = net.bn(y, 4, name=f"bn{i}")
    net.output(y)
    result = expect(net.model(), folded={f"bn{i}" for i in range(count)})
    assert ops(result.model) == ["Conv"]


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_bn_merges_into_the_bn_before_it(rank: int) -> None:
    net = Net()
    x = net.input("x", *[2, 4, 3, 3, 2][:rank])
    net.output(net.bn(net.bn(x, 4, name="first"), 4, name="second"))
    result = expect(net.model(), folded={"second"}, kept={"first": "BNF019"})
    assert result.folds[0].into == ("first",)
    assert result.folds[0].into_op == ("BatchNormalization",)


def test_bns_around_an_activation_stay_apart() -> None:
    net = Net()
    y = net.node("Relu", net.bn(net.input("x", 1, 4, 3, 3), 4, name="first"))
    net.output(net.bn(y, 4, name="second"))
    expect(net.model(), folded=set())


def test_bn_merges_where_the_first_is_read_once_only() -> None:
    net = Net()
    y = net.bn(net.input("x", 1, 4, 3, 3), 4, name="first")
    net.output(net.bn(y, 4, name="second"), net.node("Relu", y))
    expect(net.model(), kept={"first": "BNF019", "second": "BNF010"})


# --- spelled out ------------------------------------------------------------------------------------------


def spelled(net: Net, y: str, form: str, channels: int = 4) -> str:
    c = (channels, 1, 1)
    gamma, beta, mean = (net.draw(*c) for _ in range(3))
    var = net.draw(*c, low=0.25, high=2.0)
    std = np.sqrt(var + 1e-3)
    match form:
        case "sub_div_mul_add":
            y = net.node("Div", net.node("Sub", y, net.init(mean)), net.init(std))
            return net.node("Add", net.node("Mul", y, net.init(gamma)), net.init(beta))
        case "sub_div_sqrt":
            root = net.node("Sqrt", net.node("Add", net.init(var), net.init(1e-3)))
            y = net.node("Div", net.node("Sub", y, net.init(mean)), root)
            return net.node("Add", net.node("Mul", net.init(gamma), y), net.init(beta))
        case "tensorflow":
            # x*m + (beta - mean*m), m = gamma*Reciprocal(Sqrt(var + eps)), all written as nodes
            root = net.node("Reciprocal", net.node("Sqrt", net.node("Add", net.init(var), net.init(1e-3))))
            m = net.node("Mul", root, net.init(gamma))
            shift = net.node("Sub", net.init(beta), net.node("Mul", net.init(mean), m))
            return net.node("Add", net.node("Mul", y, m), shift)
        case "mul_add":
            return net.node("Add", net.node("Mul", y, net.init(gamma)), net.init(beta))
        case "mul_add_left":
            return net.node("Add", net.init(beta), net.node("Mul", net.init(gamma), y))
        case "mul_sub":
            return net.node("Sub", net.node("Mul", y, net.init(gamma)), net.init(beta))
        case "sub_mul":
            return net.node("Mul", net.node("Sub", y, net.init(mean)), net.init(gamma))
    raise ValueError(form)


FORMS = ["sub_div_mul_add", "sub_div_sqrt", "tensorflow", "mul_add", "mul_add_left", "mul_sub", "sub_mul"]


@pytest.mark.parametrize("form", FORMS)
def test_spelled_out_after_conv(form: str) -> None:
    net = Net()
    net.output(spelled(net, net.conv(net.input("x", 1, 3, 6, 6), 3, 4, bias=False), form))
    result = expect(net.model())
    assert [op for op in ops(result.model) if op not in ("Constant", "Sqrt", "Add", "Reciprocal")][:1] == [
        "Conv"
    ]
    assert len(result.folds) == 1, "the chain is one BatchNormalization"
    running = [n for n in result.model.graph.node if n.op_type in ("Sub", "Mul", "Div", "Add")]
    assert not running, "the chain is gone"
    assert result.folds[0].op != "BatchNormalization"


@pytest.mark.parametrize("form", FORMS)
def test_spelled_out_at_the_graph_input_is_left_alone(form: str) -> None:
    net = Net()
    net.output(spelled(net, net.input("x", 1, 4, 6, 6), form))
    result = expect(net.model())
    assert not result.folds


@pytest.mark.parametrize("form", FORMS)
def test_spelled_out_whose_middle_is_read_twice(form: str) -> None:
    """A reader of the chain's inside must still see what it saw."""
    net = Net()
    y = spelled(net, net.conv(net.input("x", 1, 3, 6, 6), 3, 4), form)
    inside = (
        net.nodes[-1].input[0]
        if net.nodes[-1].input[0].split("_")[0] in ("mul", "sub", "div")
        else net.nodes[-1].input[1]
    )
    net.output(y, net.node("Relu", inside))
    expect(net.model())


def test_spelled_out_then_real_bn() -> None:
    net = Net()
    y = spelled(net, net.conv(net.input("x", 1, 3, 6, 6), 3, 4), "mul_add")
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["Conv"]


def test_spelled_out_after_gemm() -> None:
    net = Net()
    y = net.node("Gemm", net.input("x", 4, 3), net.init(net.draw(3, 5)), net.init(net.draw(5)))
    y = net.node("Add", net.node("Mul", y, net.init(net.draw(5))), net.init(net.draw(1, 5)))
    net.output(y)
    result = expect(net.model())
    assert ops(result.model) == ["Gemm"]


# --- in between a real network ----------------------------------------------------------------------------


def test_a_residual_network_folds_completely() -> None:
    net = Net()
    x = net.input("x", "n", 3, 12, 12)
    x = net.node("Relu", net.bn(net.conv(x, 3, 8, bias=False, pads=[1, 1, 1, 1]), 8, name="stem"))
    for i in range(3):
        y = net.node("Relu", net.bn(net.conv(x, 8, 8, bias=False, pads=[1, 1, 1, 1]), 8, name=f"b{i}_1"))
        y = net.bn(net.conv(y, 8, 8, bias=False, pads=[1, 1, 1, 1], group=8), 8, name=f"b{i}_2")
        x = net.node("Relu", net.node("Add", x, y))
    x = net.node("Flatten", net.node("GlobalAveragePool", x))
    x = net.node("Gemm", x, net.init(net.draw(10, 8)), net.init(net.draw(10)), transB=1)
    net.output(net.bn(x, 10, name="head"))
    result = expect(net.model(), kept={})
    assert "BatchNormalization" not in ops(result.model)


# --- exactness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elem", [FLOAT, DOUBLE])
def test_every_written_number_is_rounded_once(elem: int) -> None:
    """The stored weights are the float64 fold rounded to nearest, in every element."""
    net = Net(elem=elem)
    w, b = net.draw(64, 16, 3, 3), net.draw(64)
    stats = {
        "scale": net.draw(64),
        "bias": net.draw(64),
        "mean": net.draw(64),
        "var": net.draw(64, low=0.1, high=3.0),
    }
    x = net.input("x", 1, 16, 4, 4)
    y = net.node("Conv", x, net.init(w), net.init(b))
    net.output(net.bn(y, 64, name="bn", stats=stats, epsilon=0.125))
    result = expect(net.model(), folded={"bn"})
    node = result.model.graph.node[0]
    got = initializers(result.model)
    # longdouble carries 64 bits of significand: its own error is 2^-11 of a float64 ulp.
    wide = {k: v.astype(np.longdouble) for k, v in {"w": w, "b": b, **stats}.items()}
    scale = wide["scale"] / np.sqrt(wide["var"] + np.longdouble(0.125))
    folded_w = wide["w"] * scale[:, None, None, None]
    folded_b = (wide["b"] - wide["mean"]) * scale + wide["bias"]
    if elem == FLOAT:
        np.testing.assert_array_equal(got[node.input[1]], folded_w.astype(np.float32).astype(np.float64))
        np.testing.assert_array_equal(got[node.input[2]], folded_b.astype(np.float32).astype(np.float64))
    else:
        # Stored type and arithmetic are both float64: three roundings in the weight (root, quotient, product)
        # and six in the bias, whose terms bound each of them.
        unit = 2.0**-53
        assert np.all(np.abs(got[node.input[1]] - folded_w) <= 4 * unit * np.abs(folded_w))
        terms = (np.abs(b) + np.abs(stats["mean"])) * np.abs(scale) + np.abs(stats["bias"])
        assert np.all(np.abs(got[node.input[2]] - folded_b) <= 7 * unit * terms)
