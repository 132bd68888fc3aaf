"""Models that are valid, or nearly, and go at what a rule takes for granted."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper
from support import command
from support.build import Net
from support.claims import expect, ops, session

import bnfold
from bnfold.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOOL = TensorProto.BOOL
SHAPE = [1, 4, 4, 4]


# --- names that mean several tensors -----------------------------------------------------------------------


def _graph(name: str, body: Net) -> GraphProto:
    return body.graph(name)


def _branch(name: str, out: str, *nodes: tuple[str, list[str], str], hides: str | None = None) -> GraphProto:
    body = Net(prefix=name)
    if hides is not None:
        body.init(2.0, hides)
    for op, inputs, result in nodes:
        body.node(op, *inputs, out=result)
    body.output(out, shape=SHAPE)
    return _graph(name, body)


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize(("name", "kept"), [("y", {"bn": "BNF027"}), ("z", {})], ids=["same", "other"])
def test_the_conv_would_take_a_name_over_that_a_body_before_uses(
    name: str, kept: dict[str, str], *, taken: bool
) -> None:
    net = Net()
    c = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv")
    either = net.node(
        "If",
        net.input("c", elem=BOOL),
        then_branch=_branch("then", name, ("Relu", [net.input("r", *SHAPE)], name)),
        else_branch=_branch("other", "o", ("Neg", ["r"], "o")),
    )
    net.output(net.node("Add", net.bn(c, 4, name="bn", out="y"), either), shape=SHAPE)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=[1, 3, 6, 6]).astype(np.float32),
        "r": rng.normal(size=SHAPE).astype(np.float32),
        "c": np.array(taken),
    }
    expect(net.model(), kept=kept, feeds=feeds)


def test_the_conv_takes_a_name_over_that_only_a_body_behind_uses() -> None:
    net = Net()
    c = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv")
    y = net.bn(c, 4, name="bn", out="y")
    # The bodies of an If that comes later see the outer y, and may not define their own.
    net.output(
        net.node(
            "If",
            net.input("c", elem=BOOL),
            then_branch=_branch("then", "a", ("Relu", [y], "a")),
            else_branch=_branch("other", "b", ("Neg", [y], "b")),
        ),
        shape=SHAPE,
    )
    expect(net.model(), folded=["bn"])


@pytest.mark.parametrize(("hides", "codes"), [("r", {"BNF018", "BNF019", "BNF027"}), ("k", set())])
def test_a_nested_conv_would_read_a_tensor_that_its_body_hides(hides: str, codes: set[str]) -> None:
    net = Net()
    net.node("Relu", net.input("x", 1, 3, 6, 6), out="r")
    net.bn("r", 3, name="bn", out="a")
    weight = net.init(net.draw(4, 3, 3, 3))
    conv = ("Conv", ["a", weight], "conv")
    net.output(
        net.node(
            "If",
            net.input("c", elem=BOOL),
            then_branch=_branch("then", "t", conv, ("Mul", ["conv", hides], "t"), hides=hides),
            else_branch=_branch("other", "conv", conv),
        ),
        shape=SHAPE,
    )
    model = net.model()
    feeds = {"x": np.random.default_rng(0).normal(size=[1, 3, 6, 6]).astype(np.float32), "c": np.array(True)}
    result = bnfold.optimize(model, verify=False)
    assert {str(reason.code) for kept in result.kept for reason in kept.reasons} == codes
    # The checker does not allow a body to hide a name; onnxruntime runs it.
    (before,), (after,) = (session(m).run(None, feeds) for m in (model, result.model))
    # Sums of 27 products in float32, of which scale, shift, product and sum are rounded, half an ulp each.
    bound = 27 * 4 * 2.0**-24 * np.abs(before).max()
    np.testing.assert_allclose(after, before, rtol=0, atol=bound)


def test_a_merge_would_take_a_name_over() -> None:
    net = Net()
    x = net.input("x", 1, 4, 4, 4)
    one = net.conv(x, 4, 4, pads=[1] * 4)
    other = net.conv(x, 4, 4, kernel=(1, 1))
    either = net.node(
        "If",
        net.input("c", elem=BOOL),
        then_branch=_branch("then", "sum", ("Relu", [x], "sum")),
        else_branch=_branch("other", "o", ("Neg", [x], "o")),
    )
    net.node("Add", one, other, out="sum")
    net.output(net.node("Mul", "sum", either), shape=SHAPE)
    result = expect(net.model())
    assert ops(result.model).count("Conv") == 2


# --- readers of a shape ------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", ["conv", "bn"])
def test_a_merge_leaves_a_branch_whose_shape_is_asked_for(branch: str) -> None:
    net = Net()
    x = net.input("x", 1, 4, 4, 4)
    gone = net.conv(x, 4, 4, kernel=(1, 1)) if branch == "conv" else net.bn(x, 4, name="bn")
    net.output(net.node("Shape", gone), elem=TensorProto.INT64, shape=[4])
    net.output(net.node("Add", net.conv(x, 4, 4, pads=[1] * 4), gone), shape=SHAPE)
    result = expect(net.model())
    assert not result.report.merged


# --- what is not known -------------------------------------------------------------------------------------


def test_pads_of_some_axes_do_not_tell_the_rank() -> None:
    net = Net(opset=18)
    net.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    y = net.node("LeakyRelu", net.conv("x", 3, 3, kernel=(1, 1)), alpha=0.5)
    # One channel is cut off in front and one of zeros put behind: the BatchNormalization has 3 again.
    y = net.node("Pad", y, net.ints(-1, 1), "", net.ints(1))
    zero = np.zeros(3)
    stats = {"scale": net.draw(3, low=0.5), "bias": zero, "mean": zero}
    net.output(net.bn(y, 3, name="bn", stats=stats), shape=[2, 3, 4, 4])
    model = net.model()
    result = bnfold.optimize(model, verify=False)
    assert {kept.node: str(kept.code) for kept in result.kept} == {"bn": "BNF023"}
    # The checker does not allow an input without a rank; onnxruntime runs it, and exporters write it.
    feeds = {"x": np.random.default_rng(0).normal(size=[2, 3, 4, 4]).astype(np.float32)}
    (before,), (after,) = (session(m).run(None, feeds) for m in (model, result.model))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("op", ["Clip", "Pad"])
def test_no_channels(op: str) -> None:
    net = Net()
    c = net.conv(net.input("x", 1, 3, 6, 6), 3, 0)
    if op == "Clip":
        y = net.node("Clip", c, net.init(0.0), net.init(6.0))
    else:
        y = net.node("Pad", c, net.ints(0, 0, 1, 1, 0, 0, 1, 1), net.init(1.0))
    net.output(net.bn(y, 0, name="bn"), shape=[1, 0, 4, 4] if op == "Clip" else [1, 0, 6, 6])
    assert [f.node for f in bnfold.optimize(net.model(), verify=False).folds] == ["bn"]


@pytest.mark.parametrize("op", ["Reshape", "Slice", "SpaceToDepth", "Concat"])
def test_a_declared_size_that_no_memory_holds(op: str) -> None:
    huge = 1 << 40
    net = Net()
    match op:
        case "Reshape":
            y = net.node("Reshape", net.bn(net.input("x", huge, 4), 4, name="bn"), net.ints(-1))
        case "Slice":
            x = net.node("Relu", net.input("x", 1, huge, 4))
            y = net.bn(net.node("Slice", x, net.ints(0), net.ints(4), net.ints(1)), 4, name="bn")
        case "SpaceToDepth":
            x = net.bn(net.input("x", 1, 4, "h", "w"), 4, name="bn")
            y = net.node("SpaceToDepth", x, blocksize=1 << 20)
        case _:
            x = net.bn(net.input("x", 1, 4, 4), 4, name="bn")
            y = net.node("Concat", x, net.input("z", 1, huge, 4), axis=1)
    net.output(y, shape=["a"] if op == "Reshape" else ["a", "b", "c"])
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert [kept.node for kept in bnfold.optimize(model, verify=False).kept] == ["bn"]


@pytest.mark.parametrize("size", [-40, 1 << 48])
def test_a_declared_size_that_ends_onnx(tmp_path: Path, size: int) -> None:
    net = Net()
    x = net.input("x", size)
    x = net.node("Slice", x, net.ints(100), net.ints(-100), net.ints(0), net.ints(-1))
    x = net.node("Reshape", net.node("Add", x, net.init(1.0)), net.ints(2, 4))
    net.output(net.bn(x, 4), shape=["a", 4])
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    # In a process of its own: what goes wrong takes the process along.
    done = command.run("inspect", "model.onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_axis_before_the_first() -> None:
    net = Net()
    x = net.node("Concat", net.input("x", 1, 4), net.init(np.ones((1, 2))), axis=-9)
    net.output(net.bn(x, 6, name="bn"), shape=[1, 6])
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert [kept.node for kept in bnfold.optimize(model, verify=False).kept] == ["bn"]


# --- models that onnx's own inference calls invalid --------------------------------------------------------


def _concat(net: Net, x: str) -> None:
    joined = net.node("Concat", net.conv(x, 4, 3), net.conv(x, 4, 2), axis=1)
    net.output(net.bn(joined, 3), shape=[1, 3, 4, 4])


def _concat_behind(net: Net, x: str) -> None:
    net.output(net.conv(net.node("Concat", net.bn(x, 3), x, axis=1), 7, 3), shape=[1, 3, 4, 4])


def _dilations(net: Net, x: str) -> None:
    net.output(net.node("Add", net.conv(x, 4, 4, pads=[1] * 4, dilations=[0, 0]), x), shape=[1, 4, 6, 6])


def _strides(net: Net, x: str) -> None:
    y = net.conv(net.bn(x, 4), 4, 4, auto_pad="SAME_UPPER", strides=[0, 0])
    net.output(y, shape=[1, 4, 6, 6])


def _block(net: Net, x: str) -> None:
    net.output(net.conv(net.node("DepthToSpace", net.bn(x, 4), blocksize=0), 4, 4), shape=[1, 4, 6, 6])


def _scalar(net: Net, x: str) -> None:
    y = net.node("Gather", net.node("ReduceSum", x, keepdims=0), net.ints(0))
    net.output(net.bn(y, 4), shape=[4])


def _normalized_scalar(net: Net, x: str) -> None:
    y = net.node("LayerNormalization", net.node("ReduceSum", x, keepdims=0), net.init(net.draw(4)))
    net.output(net.bn(y, 4), shape=[4])


@pytest.mark.parametrize(
    "build", [_concat, _concat_behind, _dilations, _strides, _block, _scalar, _normalized_scalar]
)
def test_a_node_that_onnx_forbids_is_the_models_fault(build: Callable[[Net, str], None]) -> None:
    net = Net()
    build(net, net.input("x", 1, 4, 6, 6))
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="invalid") as caught:
        bnfold.optimize(model, verify=False)
    assert "\n" not in str(caught.value)


def test_too_many_channels_where_inference_does_not_look() -> None:
    net = Net(opset=11)
    parts = ["first", "second"]
    net.node("Split", net.bn(net.input("x", 1, 4, 6, 6), 3, name="bn"), out=parts, axis=1)
    for part in parts:
        net.output(net.conv(part, 2, 3), shape=[1, 3, 4, 4])
    with pytest.raises(ModelError, match=r"'bn' has statistics of \[3\] for 4 channels"):
        bnfold.optimize(net.model(), verify=False)


def test_a_mode_that_is_no_text() -> None:
    net = Net()
    net.output(net.conv(net.bn(net.input("x", 1, 4, 6, 6), 4, name="bn"), 4, 4), shape=[1, 4, 4, 4])
    model = net.model()
    mode = onnx.AttributeProto(name="auto_pad", type=onnx.AttributeProto.STRING, s=b"\xff\xfe")
    model.graph.node[1].attribute.append(mode)
    assert [r.node for r in bnfold.optimize(model, verify=False).kept] == ["bn"]


def test_a_shift_that_differs_where_the_scale_does_not() -> None:
    """The one term of a sum gets the scale alone, and knows of no channels from it."""
    net = Net()
    x = net.input("x", 2, 3, 4, 4)
    y = net.node("Add", net.conv(x, 3, 2), net.conv(x, 3, 2))
    y = net.node("Flatten", net.node("Add", y, net.init(net.draw(2, 1, 1))))
    same = {"scale": 1.5, "bias": 0.25, "mean": 0.5, "var": 2.0}
    net.output(net.bn(y, 8, stats={k: np.full(8, v) for k, v in same.items()}, name="bn"))
    expect(net.model(), folded=["bn"], merge=False)


def test_groups_that_the_caller_gives() -> None:
    body = Net(prefix="body_")
    group = onnx.AttributeProto(name="group", type=onnx.AttributeProto.INT, ref_attr_name="groups")
    y = body.node("ConvTranspose", "x", body.const(body.draw(4, 1, 1, 1), "node"))
    body.nodes[-1].attribute.append(group)
    statistics = [body.node("Constant", value_floats=[number]) for number in (1.5, 0.25, 0.5, 2.0)]
    body.node("BatchNormalization", y, *statistics, out="y", name="bn")
    imports = [helper.make_opsetid("", 17)]
    net = Net()
    net.output(net.node("Block", net.input("x", 1, 4, 4, 4), domain="local", groups=1), shape=[1, 1, 4, 4])
    net.functions.append(
        helper.make_function("local", "Block", ["x"], ["y"], body.nodes, imports, ["groups"])
    )
    expect(net.model({"local": 1}))


# --- long chains -------------------------------------------------------------------------------------------


def test_time_does_not_grow_with_the_square_of_a_chain() -> None:
    def seconds(steps: int) -> float:
        net = Net()
        y = net.input("x", 1, 2, 3, 3)
        constant = net.init(net.draw(2, 1, 1))
        for _ in range(steps):
            y = net.node("Add", y, constant)
        net.output(net.bn(y, 2), shape=[1, 2, 3, 3])
        model = net.model()
        started = perf_counter()
        bnfold.inspect(model)
        return perf_counter() - started

    # Linear growth is a factor of 4; its square, 16, is what it was. Bounds between bear a busy machine.
    assert seconds(2000) < 10 * max(seconds(500), 0.1)
