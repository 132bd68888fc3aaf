"""Why a normalization stays: models that stop a fold by one known cause, and what must be said of each.

The table is worked out by hand from the rules of the operators: the cause, the code, who stands in the way,
and words that the evidence and the hint must hold. `op` is the node under test, `bn` the normalization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto
from support.build import FLOAT, FLOAT16, Net
from support.quantized import X_SCALE, dequantized, integers, quantized

import bnfold

if TYPE_CHECKING:
    from bnfold.fold.reasons import Reason

Step = Callable[[Net, str], str]
Stats = dict[str, Any]
Constant = Any  # an array, or the name of an input, which is made if there is none

POSITIVE: Stats = {"scale": np.array([0.5, 1.5, 0.25, 2.0])}
NEGATIVE: Stats = {"scale": np.array([0.5, -1.5, 0.25, 2.0])}
UNSHIFTED: Stats = {"bias": np.zeros(4), "mean": np.zeros(4)}
SCALED: Stats = {**POSITIVE, **UNSHIFTED}
TURNED: Stats = {**NEGATIVE, **UNSHIFTED}
ALIKE: Stats = {"scale": np.full(4, 0.5), "bias": np.ones(4), "mean": np.zeros(4), "var": np.ones(4)}
SIZE = (1, 4, 6, 6)
AROUND = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)  # pads of height and width


@dataclass(frozen=True)
class Case:
    """A model whose `bn` stays, and why."""

    net: Net
    code: str
    blocking: str
    says: tuple[str, ...] = ()
    hint: str = ""


def behind(*steps: Step, stats: Stats | None = None, opset: int = 17) -> Net:
    """Conv 'conv', the steps, the normalization 'bn', and Softmax 'end' that lets nothing through."""
    net = Net(opset)
    y = net.conv(net.input("x", *SIZE), 4, 4, kernel=(1, 1), name="conv", out="c")
    for step in steps:
        y = step(net, y)
    return ended(net, net.bn(y, 4, name="bn", out="b", stats=stats))


def before(
    *steps: Step,
    stats: Stats | None = None,
    opset: int = 17,
    channels: int = 4,
    **conv: Any,  # noqa: ANN401 - attributes
) -> Net:
    """Softmax 'start', the normalization 'bn', the steps, and Conv 'conv'."""
    net = Net(opset)
    y = net.node("Softmax", net.input("x", *SIZE), name="start")
    y = net.bn(y, 4, name="bn", out="b", stats=stats)
    for step in steps:
        y = step(net, y)
    return ended(net, net.conv(y, channels, 4, **{"name": "conv", **conv}))


def ended(net: Net, y: str) -> Net:
    """The net with an output that lets no map through; its shape does not matter."""
    net.node("Softmax", y, name="end", out="out")
    net.output("out", shape=[None] * 4)
    return net


def op(kind: str, *constants: Constant, first: bool = False, **attrs: Any) -> Step:  # noqa: ANN401 - attributes
    """A step of the node 'op': it reads the tensor and the constants, which may come first."""

    def step(net: Net, x: str) -> str:
        others = [_operand(net, c) for c in constants]
        return net.node(kind, *([*others, x] if first else [x, *others]), name="op", **attrs)

    return step


def _operand(net: Net, what: Constant) -> str:
    if isinstance(what, str):
        known = {i.name for i in net.inputs} | {""}
        return what if what in known else net.input(what, *SIZE)
    kinds = {"i": TensorProto.INT64, "b": TensorProto.BOOL}
    return net.init(what, elem=kinds.get(np.asarray(what).dtype.kind))


def given(name: str, *dims: int, elem: int = TensorProto.INT64) -> Step:
    """An input of the model, on the side."""

    def step(net: Net, x: str) -> str:
        net.input(name, *dims, elem=elem)
        return x

    return step


def twice(kind: str) -> Step:
    return lambda net, x: net.node(kind, x, x, name="op")


def replaceable(net: Net, node: str, position: int, name: str = "k") -> Net:
    """The same model, in which a caller may replace the constant that the node reads."""
    found = next(n for n in net.nodes if n.name == node)
    stored = next(t for t in net.initializers if t.name == found.input[position])
    stored.name = found.input[position] = name
    net.input(name, *stored.dims, elem=stored.data_type)
    return net


def joined(other: Step | None = None, stats: Stats | None = None) -> Net:
    """Concat 'op' of a Conv and another tensor, before the normalization."""
    net = Net()
    one = net.conv(net.input("x", 1, 3, 6, 6), 3, 2, name="conv", kernel=(1, 1))
    two = net.init(net.draw(1, 2, 6, 6), "other") if other is None else net.input("other", 1, 2, 6, 6)
    two = two if other is None else other(net, two)
    return ended(net, net.bn(net.node("Concat", one, two, axis=1, name="op"), 4, name="bn", stats=stats))


def parted(kind: str, elem: int = TensorProto.INT64, **attrs: Any) -> Net:  # noqa: ANN401 - attributes
    """A node with two outputs, of which the first is normalized and the second is an output."""
    net = Net()
    y = net.conv(net.input("x", *SIZE), 4, 4, name="conv")
    net.node(kind, y, name="op", out=["first", "second"], **attrs)
    net.output("second", elem=elem, shape=[None] * 4)
    return ended(net, net.bn("first", 4, name="bn"))


def normalized(kind: str, dims: tuple[int, ...], opset: int = 17, **attrs: Any) -> Net:  # noqa: ANN401 - attributes
    """Another normalization, 'op', before the BatchNormalization."""
    net = Net(opset)
    scale, bias = net.init(np.ones(dims)), net.init(np.ones(dims))
    y = net.node(kind, net.input("x", *SIZE), scale, bias, name="op", **attrs)
    return ended(net, net.bn(y, 4, name="bn"))


def first(*steps: Step, stats: Stats | None = None, out: bool = False, read: bool = False) -> Net:
    """The model begins with the normalization; `out`: it is an output too; `read`: by a Sigmoid too."""
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", out="b", stats=stats)
    if out:
        net.output("b")
    if read:
        net.output(net.node("Sigmoid", "b", name="op"), shape=[None] * 4)
    for step in steps:
        y = step(net, y)
    return ended(net, y) if steps else net


def conv(name: str = "conv", **attrs: Any) -> Step:  # noqa: ANN401 - attributes
    return lambda net, y: net.conv(y, 4, 4, name=name, **attrs)


def between() -> Net:
    """Conv and Relu 'op' before the normalization, behind it a Conv, and a Sigmoid that reads it too."""
    net = Net()
    y = net.node("Relu", net.conv(net.input("x", *SIZE), 4, 4, name="conv"), name="op")
    y = net.bn(y, 4, name="bn")
    net.output(net.node("Sigmoid", y, name="other"), shape=[None] * 4)
    return ended(net, net.conv(y, 4, 4))


def shared(*, output: bool) -> Net:
    """What the Conv computes is an output too, or read by somebody else."""
    net = behind()
    net.output("c" if output else net.node("Sigmoid", "c", name="other"), shape=[None] * 4)
    return net


def cast(elem: int, to: int) -> Net:
    net = Net(elem=elem)
    y = net.conv(net.input("x", *SIZE), 4, 4, name="conv")
    y = net.node("Cast", y, to=to, name="op")
    net.elem = to
    return ended(net, net.bn(y, 4, name="bn"))


def computed_weight() -> Net:
    net = Net()
    y = net.node("Conv", net.input("x", *SIZE), net.input("w", 4, 4, 3, 3), name="conv")
    return ended(net, net.bn(y, 4, name="bn"))


def nested(kind: str) -> Net:
    """A normalization of what a body gets from outside: of its input (Loop), or of an outer Conv (If)."""
    net, body = Net(), Net(prefix="i_")
    y = net.conv(net.input("x", *SIZE), 4, 4, kernel=(1, 1), name="conv", out="c")
    if kind == "Loop":
        body.input("i", elem=TensorProto.INT64)
        body.input("go", elem=TensorProto.BOOL)
        body.input("state", *SIZE)
        body.output(body.node("Identity", "go"), elem=TensorProto.BOOL, shape=[])
        body.output(body.node("Softmax", body.bn("state", 4, name="bn"), name="end"), shape=SIZE)
        start = net.init(np.array(2), elem=TensorProto.INT64), net.init(np.array(True), elem=TensorProto.BOOL)
        net.output(net.node("Loop", *start, y, name="outer", body=body.graph()), shape=[None] * 4)
        return net
    other = Net(prefix="e_")
    other.output(other.node("Relu", y), shape=SIZE)
    body.output(body.node("Softmax", body.bn(y, 4, name="bn"), name="end"), shape=SIZE)
    net.input("go", elem=TensorProto.BOOL)
    bodies = {"then_branch": body.graph(), "else_branch": other.graph()}
    net.output(net.node("If", "go", name="outer", **bodies), shape=[None] * 4)
    return net


def returned(kind: str) -> Net:
    """A Conv in a body, whose result is normalized there, and returned too."""
    net, body = Net(), Net(prefix="i_")
    x = net.input("x", *SIZE)
    y = body.conv(x, 4, 4, kernel=(1, 1), name="conv", out="inner")
    after = body.node("Softmax", body.bn(y, 4, name="bn"), name="end")
    if kind == "If":
        other = Net(prefix="e_")
        other.output(*(other.node("Relu", x) for _ in range(2)), shape=SIZE)
        body.output(y, after, shape=SIZE)
        net.input("go", elem=TensorProto.BOOL)
        bodies = {"then_branch": body.graph(), "else_branch": other.graph()}
        net.node("If", "go", name="outer", out=["p", "q"], **bodies)
    else:
        body.input("i", elem=TensorProto.INT64)
        body.input("go", elem=TensorProto.BOOL)
        body.output(body.node("Identity", "go"), elem=TensorProto.BOOL, shape=[])
        body.output(y, after, shape=SIZE)
        start = net.init(np.array(2), elem=TensorProto.INT64), net.init(np.array(True), elem=TensorProto.BOOL)
        net.node("Loop", *start, name="outer", out=["p", "q"], body=body.graph())
    net.output("p", "q", shape=[None] * (4 if kind == "If" else 5))
    return net


def weighed(
    q: Any = None,  # noqa: ANN401 - whatever NumPy takes
    *,
    scale: Any = 0.0078125,  # noqa: ANN401 - as above
    shape: tuple[int, ...] = (4, 4, 1, 1),
    stats: Stats | None = None,
    opset: int = 21,
    elem: int = FLOAT,
    kind: str = "Conv",
    bias: bool = False,
    then: Step | None = None,
    group: int = 1,
    **attrs: Any,  # noqa: ANN401 - attributes of the DequantizeLinear
) -> Net:
    """Layer 'conv' of integers that 'w_dq' scales, w_q by w_scale around w_zero, and the normalization."""
    net = Net(opset, elem=elem)
    x = net.node("Softmax", net.input("x", *SIZE), name="start")
    w = dequantized(net, integers(net, *shape) if q is None else q, scale=scale, **attrs)
    more = [quantized(net, x), w] if bias else [x, w]
    if bias:
        more.append(dequantized(net, np.arange(4), scale=0.0078125 * X_SCALE, kind="int32", name="b"))
    y = net.node(kind, *more, name="conv", group=group)
    y = y if then is None else then(net, y)
    return ended(net, net.bn(y, 4, name="bn", stats=stats))


def weighed_behind(scale: Any, **attrs: Any) -> Net:  # noqa: ANN401 - as above
    """The normalization before a Conv of such weights, which nothing comes before."""
    net = Net(21)
    y = net.bn(net.node("Softmax", net.input("x", *SIZE), name="start"), 4, name="bn", stats=POSITIVE)
    w = dequantized(net, integers(net, 4, 4, 1, 1), scale=scale, **attrs)
    return ended(net, net.node("Conv", y, w, name="conv"))


def rounded(net: Net, y: str) -> str:
    """What the layer computes is rounded; DequantizeLinear 'op' comes last."""
    step, point = net.init(0.1), net.init(np.array(0), elem=TensorProto.INT8)
    return net.node("DequantizeLinear", net.node("QuantizeLinear", y, step, point), step, point, name="op")


def two_of_one_weight() -> Net:
    """Two layers that read one weight and one bias, of which but one is normalized."""
    net = Net(21)
    w = dequantized(net, integers(net, 4, 4, 1, 1), scale=0.0078125)
    b = dequantized(net, np.arange(4), scale=0.0078125 * X_SCALE, kind="int32", name="b")
    x = quantized(net, net.node("Softmax", net.input("x", *SIZE)))
    net.output(net.node("Conv", x, w, b, name="other"), shape=[None] * 4)
    return ended(net, net.bn(net.node("Conv", x, w, b, name="conv"), 4, name="bn", stats=POSITIVE))


def rounded_weight(x: float, scale: float) -> Net:
    """Weights in half precision that are rounded whenever the model runs."""
    net = Net(19, elem=FLOAT16)
    step, point = net.init(scale), net.init(np.array(0), elem=TensorProto.INT8)
    q = net.node("QuantizeLinear", net.init(np.full((4, 4, 1, 1), x)), step, point, name="op")
    w = net.node("DequantizeLinear", q, step, point)
    y = net.node("Conv", net.node("Softmax", net.input("x", *SIZE)), w, name="conv")
    return ended(net, net.bn(y, 4, name="bn"))


def on_integers(kind: str) -> Net:
    """A layer 'conv' that computes in integers."""
    net = Net()
    step, point = net.init(X_SCALE), net.init(np.uint8(128), elem=TensorProto.UINT8)
    x = net.node("QuantizeLinear", net.node("Softmax", net.input("x", *SIZE)), step, point)
    q = net.init(integers(net, 4, 4, 1, 1), elem=TensorProto.INT8)
    if kind == "ConvInteger":
        y = net.node("Cast", net.node(kind, x, q, point, name="conv"), to=FLOAT, name="op")
    else:
        zero = net.init(np.int8(0), elem=TensorProto.INT8)
        y = net.node(kind, x, step, point, q, net.init(0.01), zero, step, point, name="conv")
        y = net.node("DequantizeLinear", y, step, point, name="op")
    return ended(net, net.bn(y, 4, name="bn"))


LEAST = np.concatenate([np.full((1, 4, 1, 1), 7), np.full((3, 4, 1, 1), -128)])  # all but the first channel
FAR: Stats = {**SCALED, "bias": np.array([0.0, 0.0, 3e6, 0.0])}  # beyond 2^31 steps of w_scale by X_SCALE
FLOAT_MODEL = "fold the float model before quantizing it"

CASES: dict[str, Case] = {
    # activations
    "a shift behind a Relu": Case(behind(op("Relu"), stats=POSITIVE), "BNF018", "op", ("Relu 'op'", "shift")),
    "a sign behind a Relu": Case(
        behind(op("Relu"), stats=TURNED),
        "BNF018", "op", ("channel 1 is negative",),
    ),
    "a sign behind a LeakyRelu": Case(
        behind(op("LeakyRelu"), stats=TURNED), "BNF018", "op", ("channel 1 is negative",)
    ),
    "a sign before a Relu, at the input": Case(
        first(op("Relu"), conv(), stats=TURNED), "BNF018", "op", ("channel 1 is negative",)
    ),
    "a shift before a Relu, at the input": Case(
        first(op("Relu"), conv(), stats=POSITIVE), "BNF018", "op", ("shift",)
    ),
    "a sign behind a PRelu of negative slopes": Case(
        behind(op("PRelu", np.full((4, 1, 1), -0.5)), stats=TURNED), "BNF018", "op", ("channel 1", "slope")
    ),
    "a sign behind a PRelu of other slopes": Case(
        behind(op("PRelu", np.arange(1.0, 7.0)), stats=TURNED), "BNF018", "op", ("channel 1", "slopes")
    ),
    "a sign behind a PRelu of unknown slopes": Case(
        behind(op("PRelu", "slope"), stats=TURNED), "BNF012", "slope", ("graph input",), "initializer"
    ),
    "a sign behind a Clip": Case(
        behind(op("Clip", 0.0, 6.0), stats=TURNED), "BNF018", "op", ("channel 1 is negative",)
    ),
    "a negative scale for all behind a Clip": Case(
        behind(op("Clip", 0.0, 6.0), stats={**ALIKE, "scale": np.full(4, -0.5)}),
        "BNF018", "op", ("is negative",)
    ),
    "scales behind a Clip": Case(
        behind(op("Clip", 0.0, 6.0), stats=SCALED), "BNF018", "op", ("bounds", "scales differ")
    ),
    "shifts behind a Clip": Case(
        behind(op("Clip", 0.0, 6.0), stats={**ALIKE, "bias": np.arange(4.0)}),
        "BNF018", "op", ("shifts differ",)
    ),
    "a bound that is an input": Case(
        behind(given("low", elem=FLOAT), op("Clip", "low"), stats=ALIKE), "BNF012", "low", ("graph input",)
    ),
    "no activation that bends at zero": Case(
        behind(op("Sigmoid")),
        "BNF019", "op", ("before it", "Sigmoid 'op'"),
    ),
    # pools and means
    "a sign behind a MaxPool": Case(
        behind(op("MaxPool", kernel_shape=[1, 1]), stats=NEGATIVE),
        "BNF018", "op", ("maximum", "channel 1 is negative")
    ),
    "a sign before a GlobalMaxPool": Case(
        before(op("GlobalMaxPool"), stats=NEGATIVE, kernel=(1, 1)), "BNF018", "op", ("channel 1 is negative",)
    ),
    "the indices of a MaxPool": Case(parted("MaxPool", kernel_shape=[1, 1]), "BNF019", "op", ("indices",)),
    "averaged zeros": Case(
        before(op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)),
        "BNF014", "op", ("averages zeros",),
    ),
    "averaged channels": Case(before(op("ReduceMean", axes=[1]), channels=1), "BNF023", "op", ("axis",)),
    # convolutions and matrices
    "a padded Conv": Case(before(pads=[1, 1, 1, 1]), "BNF014", "conv", ("zeros",), "behind the convolution"),
    "a Conv that pads by itself": Case(before(auto_pad="SAME_UPPER"), "BNF014", "conv", ("zeros",)),
    "a weight that is an input": Case(
        computed_weight(),
        "BNF012", "w", ("Conv 'conv'", "graph input"), "initializer",
    ),
    "a weight that can be replaced": Case(
        replaceable(behind(), "conv", 1), "BNF022", "k", ("weight of Conv 'conv'",), "--freeze"
    ),
    "a bias that can be replaced": Case(
        replaceable(behind(), "conv", 2),
        "BNF022", "k", ("bias",), "--freeze",
    ),
    "a statistic that can be replaced": Case(
        replaceable(behind(), "bn", 3), "BNF022", "k", ("mean of 'bn'",), "--freeze"
    ),
    "normalized weights": Case(
        first(lambda net, y: net.node("Conv", net.input("z", 1, 4, 9, 9), y, name="op")),
        "BNF019", "op", ("input 1",)
    ),
    # arithmetic
    "a square before": Case(behind(twice("Mul")), "BNF019", "op", ("multiplies 'c' by itself",)),
    "a square behind": Case(
        first(twice("Mul"), conv(), stats=None), "BNF019", "x", ("graph input",)
    ),
    "a product of two tensors": Case(
        behind(op("Mul", "z")),
        "BNF019", "op", ("multiplies", "'z'", "neither"),
    ),
    "a quotient of two tensors": Case(behind(op("Div", "z")), "BNF019", "op", ("divides", "by 'z'")),
    "a term that is an input": Case(behind(op("Add", "z")), "BNF019", "z", ("graph input",)),
    "a reciprocal": Case(behind(op("Div", 1.0, first=True)), "BNF019", "op", ("divides a constant",)),
    "a factor for each pixel": Case(
        behind(op("Mul", np.arange(1.0, 37.0).reshape(6, 6))), "BNF019", "op", ("varies along 2 axes",)
    ),
    "a factor for each column": Case(
        behind(op("Mul", np.arange(1.0, 7.0))), "BNF023", "op", ("Mul 'op'", "axis 3", "axis 1")
    ),
    "a factor that can be replaced": Case(
        replaceable(behind(op("Mul", np.ones((4, 1, 1)))), "op", 1),
        "BNF022", "k", ("constant of Mul 'op'",), "--freeze"
    ),
    # joins and parts
    "a branch that can be replaced": Case(
        replaceable(joined(), "op", 1), "BNF022", "k", ("Concat 'op'",), "--freeze"
    ),
    "a branch that is an input": Case(joined(lambda _net, y: y), "BNF019", "other", ("graph input",)),
    "a branch that bends": Case(
        joined(lambda net, y: net.node("Relu", net.conv(y, 2, 2), name="bends"), POSITIVE),
        "BNF018", "bends", ("shift",)
    ),
    "joined rows": Case(
        before(op("Concat", "z", axis=2)),
        "BNF023", "op", ("axis 2", "not normalized alike"),
    ),
    "parts of rows": Case(parted("Split", FLOAT, axis=2), "BNF010", "op", ("axis 2", "other parts")),
    # padding and size
    "padded channels": Case(
        before(op("Pad", np.array([0, 1, 0, 0, 0, 0, 0, 0])), channels=5),
        "BNF023", "op", ("pads the normalized axis",)
    ),
    "padded zeros before": Case(
        behind(op("Pad", AROUND)), "BNF014", "op", ("fills with 0",), "before the pad"
    ),
    "padded zeros behind": Case(
        before(op("Pad", AROUND)), "BNF014", "op", ("fills with 0",), "behind the layer"
    ),
    "padded with what is not written": Case(
        before(op("Pad", AROUND), stats=ALIKE), "BNF014", "op", ("no input for its constant",), "input 2"
    ),
    "pads that are an input": Case(
        before(given("pads", 8), op("Pad", "pads")), "BNF023", "op", ("not known",), "constant pads"
    ),
    "pads that can be replaced": Case(
        replaceable(before(op("Pad", AROUND), stats=SCALED), "op", 1), "BNF022", "k", ("'k'",), "--freeze"
    ),
    "a padded value that is an input": Case(
        before(given("u", elem=FLOAT), op("Pad", AROUND, "u")), "BNF012", "u", ("constant of Pad 'op'",)
    ),
    "a Resize that fills in": Case(
        before(op(
            "Resize", np.array([0, 0, 0, 0, 1, 1, 1, 1.0]), np.array([1, 1, 2, 2.0]),
            mode="linear", coordinate_transformation_mode="tf_crop_and_resize",
        )),
        "BNF014", "op", ("outside of the image",),
    ),
    "scales that are an input": Case(
        before(given("s", 4, elem=FLOAT), op("Resize", "", "s")),
        "BNF023", "op", ("axis 1",), "constant scales"
    ),
    "scales that can be replaced": Case(
        replaceable(before(op("Resize", "", np.array([1, 1, 2, 2.0]))), "op", 2),
        "BNF022", "k", ("'k'",), "--freeze"
    ),
    # shapes and places
    "a Reshape that mixes": Case(
        before(op("Reshape", np.array([1, 9, 4, 4])), channels=9),
        "BNF023", "conv", ("Conv 'conv'", "normalized along axes")
    ),
    "a Reshape to what is an input": Case(
        before(given("to", 4), op("Reshape", "to")), "BNF023", "op", ("[?, ?, ?, ?]",), "known shapes"
    ),
    "a Reshape to what can be replaced": Case(
        replaceable(before(op("Reshape", np.array(SIZE))), "op", 1), "BNF022", "k", ("'k'",), "--freeze"
    ),
    "bounds that are an input": Case(
        before(given("to", 1), op("Slice", np.array([0]), "to", np.array([1]))),
        "BNF023", "op", ("Slice 'op'", "not known"), "constant bounds",
    ),
    "bounds that can be replaced": Case(
        replaceable(before(op("Slice", np.array([0]), np.array([4]), np.array([1]))), "op", 2),
        "BNF022", "k", ("'k'",), "--freeze",
    ),
    "indices that are an input": Case(
        before(given("which", 4), op("Gather", "which", axis=1)),
        "BNF023", "op", ("Gather 'op'", "not known"), "constant indices",
    ),
    "indices that can be replaced": Case(
        replaceable(before(op("Gather", np.arange(4), axis=1)), "op", 1), "BNF022", "k", ("'k'",), "--freeze"
    ),
    # other normalizations
    "a LayerNormalization of columns": Case(
        normalized("LayerNormalization", (6,)), "BNF023", "op", ("weights along axis 3", "axis 1")
    ),
    "a LayerNormalization of all": Case(
        normalized("LayerNormalization", (4, 6, 6), axis=1),
        "BNF023", "op", ("axes 1 to 3", "not for each channel")
    ),
    "a GroupNormalization with a scale for each group": Case(
        normalized("GroupNormalization", (2,), opset=18, num_groups=2),
        "BNF023", "op", ("for each group", "opset 18"), "opset 21",
    ),
    # training and types
    "a Dropout in training": Case(
        behind(op("Dropout", 0.5, np.array(True))), "BNF013", "op", ("training mode",), "evaluation mode"
    ),
    "the mask of a Dropout": Case(parted("Dropout", TensorProto.BOOL), "BNF019", "op", ("mask",)),
    "a normalization in training": Case(
        behind(lambda net, y: net.node(
            "BatchNormalization", y, *(net.init(np.ones(4)) for _ in range(4)),
            name="bn", out=["n", "m", "v"], training_mode=1,
        )),
        "BNF013", "bn", ("training_mode is 1",), "evaluation mode",
    ),
    "a Cast from what reaches less far": Case(cast(FLOAT16, FLOAT), "BNF016", "op", ("reaches less far",)),
    # edges
    "a tensor that others read": Case(shared(output=False), "BNF010", "c", ("read 2 times", "other")),
    "a tensor that is an output": Case(shared(output=True), "BNF011", "c", ("graph output",), "outputs"),
    "a result that is an output too": Case(
        first(conv(), out=True),
        "BNF011", "b", ("graph output",), "outputs",
    ),
    "a result that is an output and nothing else": Case(first(out=True), "BNF019", "x", ("graph input",)),
    "a result that others read": Case(first(conv(), read=True), "BNF019", "op", ("Sigmoid 'op'",)),
    "a shift before, and one of two readers behind": Case(
        between(), "BNF018", "op", ("shift",)
    ),
    # nested graphs
    "an input of a Loop": Case(nested("Loop"), "BNF019", "state", ("input of the body of Loop 'outer'",)),
    "what an outer Conv computes": Case(
        nested("If"),
        "BNF019", "conv", ("then-branch of If 'outer'", "Conv 'conv'"),
    ),
    "an output of a Loop": Case(returned("Loop"), "BNF011", "inner", ("output of the body of Loop 'outer'",)),
    "an output of an If": Case(
        returned("If"),
        "BNF011", "inner", ("output of the then-branch of If 'outer'",),
    ),
    # quantized weights
    "an integer that has no mirror image": Case(
        weighed(LEAST, stats=NEGATIVE),
        "BNF017", "w_dq", ("holds -128", "that is 128", "int8"), FLOAT_MODEL,
    ),
    "one scale of before opset 13": Case(
        weighed(opset=12, stats=POSITIVE), "BNF016", "w_dq", ("one scale for all channels",), FLOAT_MODEL,
    ),
    "scales along the inputs": Case(
        weighed(scale=[0.01, 0.02, 0.03, 0.04], axis=1, stats=POSITIVE),
        "BNF016", "w_dq", ("axes 0 and 1",), FLOAT_MODEL,
    ),
    "zero points along the inputs": Case(
        weighed(scale=[0.01] * 4, zero=[0, 1, 2, 3], axis=1, stats=POSITIVE),
        "BNF016", "w_dq", ("axes 0 and 1",), FLOAT_MODEL,
    ),
    "scales along the outputs of what comes behind": Case(
        weighed_behind([0.01, 0.02, 0.03, 0.04], axis=0), "BNF016", "w_dq", ("axes 0 and 1",), FLOAT_MODEL,
    ),
    "blocks of outputs": Case(
        weighed(scale=np.full((2, 4, 1, 1), 0.01), axis=0, block_size=2, stats=POSITIVE),
        "BNF016", "w_dq", ("one scale for 2 indices of axis 0",), FLOAT_MODEL,
    ),
    "an output of each group": Case(
        weighed(shape=(4, 2, 1, 1), kind="ConvTranspose", group=2, stats=POSITIVE),
        "BNF016", "w_dq", ("axes 0 and 1",), FLOAT_MODEL,
    ),
    "a bias that no int32 counts": Case(
        weighed(bias=True, stats=FAR), "BNF017", "conv", ("bias of Conv 'conv'", "int32"), FLOAT_MODEL,
    ),
    "a scale that half precision does not reach": Case(
        weighed(elem=FLOAT16, scale=1e-3, stats={**UNSHIFTED, "scale": np.full(4, 1e-3)}),
        "BNF017", "w_scale", ("below the smallest normal",), "float32",
    ),
    "a scale that is not finite": Case(
        weighed(scale=[0.01, np.nan, 0.01, 0.01], axis=0), "BNF020", "w_scale", ("NaN",),
    ),
    "a scale that can be replaced": Case(
        replaceable(weighed(), "w_dq", 1), "BNF022", "k", ("weight of Conv 'conv'", "'k'"), "--freeze",
    ),
    "integers that can be replaced": Case(
        replaceable(weighed(), "w_dq", 0), "BNF022", "k", ("weight of Conv 'conv'", "'k'"), "--freeze",
    ),
    "one weight and one bias of two layers": Case(
        two_of_one_weight(), "BNF025", "conv", ("nodes",),
    ),
    "what the layer computes is rounded": Case(
        weighed(then=rounded), "BNF015", "op", ("DequantizeLinear 'op'", "between"), "float model",
    ),
    "a quotient that runtimes round differently": Case(
        rounded_weight(0.5, 0.2), "BNF015", "op", ("near a half depends on the runtime",),
    ),
    "a layer that computes in integers": Case(
        on_integers("QLinearConv"), "BNF015", "op", ("DequantizeLinear 'op'", "between"), "float model",
    ),
    "a layer that sums integers": Case(on_integers("ConvInteger"), "BNF016", "op", ("Cast 'op'",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_true_reason(name: str) -> None:
    case = CASES[name]
    kept = next(each for each in bnfold.inspect(case.net.model()).kept if each.node == "bn")
    reason = kept.reason
    assert (str(reason.code), reason.blocking) == (case.code, case.blocking), kept.reasons
    for words in case.says:
        assert words in reason.evidence
    assert case.hint in reason.hint


# --- what another option would fold -----------------------------------------------------------------------


def branches(*, bends: bool) -> Net:
    """A Conv and a normalization of one tensor that are summed, or almost."""
    net = Net()
    x = net.input("x", *SIZE)
    y = net.bn(x, 4, name="bn")
    y = net.node("Relu", y) if bends else y
    beside = net.conv(x, 4, 4, name="conv", pads=[1, 1, 1, 1])
    return ended(net, net.node("Add", beside, y, name="op"))


def stays(net: Net, **options: Any) -> tuple[Reason, ...]:  # noqa: ANN401 - options
    return next(each.reasons for each in bnfold.inspect(net.model(), **options).kept if each.node == "bn")


def test_a_sum_that_would_merge_says_so() -> None:
    assert "--no-merge" in stays(branches(bends=False), merge=False)[0].hint
    assert not bnfold.inspect(branches(bends=False).model()).kept
    assert all("--no-merge" not in reason.hint for reason in stays(branches(bends=True), merge=False))


@pytest.mark.parametrize(("option", "pattern"), [("exclude", "b*"), ("include", "head/*")])
def test_what_is_excluded_says_where_it_would_go(option: str, pattern: str) -> None:
    (reason,) = stays(behind(), **{option: (pattern,)})
    assert str(reason.code) == "BNF024"
    assert pattern in reason.evidence or option == "include"
    assert "it would fold into Conv 'conv'" in reason.evidence
    assert f"--{option}" in reason.hint


def test_what_is_excluded_and_would_stay_all_the_same_says_why() -> None:
    excluded, *others = stays(behind(op("Sigmoid")), exclude=("bn",))
    assert (str(excluded.code), excluded.hint) == ("BNF024", "")
    assert "op" in [reason.blocking for reason in others]


def test_freezing_that_would_not_help_is_no_advice() -> None:
    net = replaceable(
        before(op("Slice", np.array([0]), np.array([4]), np.array([1])), pads=[1, 1, 1, 1]), "op", 2
    )
    reasons = stays(net)
    assert str(reasons[0].code) == "BNF023"
    assert all("--freeze" not in reason.hint for reason in reasons)


def test_a_statistic_that_can_be_replaced_where_freezing_alone_would_not_help() -> None:
    (reason,) = stays(replaceable(first(read=True), "bn", 3))
    assert (str(reason.code), reason.blocking) == ("BNF022", "k")
    assert reason.hint.startswith("--freeze alone does not fold it: BNF019, 'x' is a graph input")


def test_with_freeze_nothing_can_be_replaced() -> None:
    for name, case in CASES.items():
        if case.code == "BNF022":
            assert not bnfold.inspect(case.net.model(), freeze=True).kept, name
