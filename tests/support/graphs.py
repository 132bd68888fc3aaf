"""Random small models for the property tests: valid by construction, adversarial by preference.

A graph grows node by node from a pool of tensors whose shapes are known. Dimensions are drawn from few small
numbers on purpose: C, H, W and the batch coincide often, so that a fold guessed from shapes is soon wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, TensorProto, helper
from support.build import DOUBLE, FLOAT, FLOAT16, NEWEST, Net

Shape = tuple[int, ...]
Choice = Any  # one of whatever is offered
Draw = Callable[[st.SearchStrategy[Any]], Any]

FUNCTIONS = "local"  # the domain of local functions
OPSETS = (7, 9, 11, 13, 14, 15, 17, 21, 22, NEWEST)
LARGEST = 600  # numbers in a tensor: the oracle is slow and a counter-example is small


def lane(examples: int, *, derandomize: bool) -> settings:
    """How many graphs; a failure is not kept, since its text says all."""
    return settings(
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


@dataclass
class Grower:
    """One graph that grows; the bodies of an If share the pools of weights with it."""

    draw: Draw
    net: Net
    tensors: list[tuple[str, Shape]] = field(default_factory=list)
    weights: dict[Shape, list[str]] = field(default_factory=dict)
    statistics: dict[int, list[list[str]]] = field(default_factory=dict)

    # --- choices -------------------------------------------------------------------------------------------

    def pick(self, *options: Choice) -> Choice:
        return self.draw(st.sampled_from(options))

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)  # what shrinks to 0 is the plain case

    def tensor(self) -> tuple[str, Shape]:
        """A tensor to go on from: mostly the newest, so that chains form; sometimes any, so that forks do."""
        if self.chance(75):
            return self.tensors[-1]
        return self.tensors[self.draw(st.integers(0, len(self.tensors) - 1))]

    def constant(self, *shape: int) -> str:
        """A constant, new or shared, in one of the places that every opset knows."""
        stored = self.weights.setdefault(shape, [])
        if stored and self.chance(25):
            return str(self.pick(*stored))
        values = self.net.draw(*shape, low=0.5, high=1.5) * self.net.rng.choice([-1.0, 1.0], size=shape)
        name = self.net.const(values, self.pick("raw", "raw", "raw", "typed", "node", "identity"))
        stored.append(name)
        return name

    def grown(self, name: str, shape: Shape) -> None:
        self.tensors.append((name, shape))

    # --- operators: each takes a tensor that suits it, or gives False --------------------------------------

    def conv(self) -> bool:
        x, shape = self.tensor()
        if len(shape) not in (3, 4):
            return False
        channels, space = shape[1], shape[2:]
        group = self.pick(1, 1, channels)
        out = group * self.pick(1, 2, 3)
        if self.chance(30) and channels % group == 0:
            out = channels
        pad = self.pick(0, 0, 1)
        kernel = tuple(min(self.pick(1, 2, 3), s + 2 * pad) for s in space)
        stride = self.pick(1, 1, 2)
        after = (
            shape[0],
            out,
            *((s + 2 * pad - k) // stride + 1 for s, k in zip(space, kernel, strict=True)),
        )
        if math.prod(after) > LARGEST:
            return False
        w = self.constant(out, channels // group, *kernel)
        bias = [self.constant(out)] if self.chance(50) else [""] if self.chance(20) else []
        attrs = {"pads": [pad] * 2 * len(space), "strides": [stride] * len(space), "group": group}
        self.grown(self.net.node("Conv", x, w, *bias, **attrs), after)
        return True

    def conv_transpose(self) -> bool:
        x, shape = self.tensor()
        if len(shape) not in (3, 4):
            return False
        channels, space = shape[1], shape[2:]
        group = self.pick(1, channels)
        each = self.pick(1, 2)
        stride = self.pick(1, 2)
        kernel = tuple(self.pick(1, 2, 3) for _ in space)
        after = (shape[0], each * group, *((s - 1) * stride + k for s, k in zip(space, kernel, strict=True)))
        if math.prod(after) > LARGEST:
            return False
        bias = [self.constant(each * group)] if self.chance(50) else []
        w = self.constant(channels, each, *kernel)
        self.grown(
            self.net.node("ConvTranspose", x, w, *bias, group=group, strides=[stride] * len(space)), after
        )
        return True

    def gemm(self) -> bool:
        x, shape = self.tensor()
        if len(shape) != 2:
            return False
        trans_a, trans_b = self.pick(0, 0, 1), self.pick(0, 1)
        rows, inner = shape[::-1] if trans_a else shape
        out = self.pick(1, 2, 4, inner)
        w = self.constant(*((out, inner) if trans_b else (inner, out)))
        shapes: list[Shape] = [(out,), (1, out), (rows, 1), (rows, out), (1,), ()]
        bias = [self.constant(*self.pick(*shapes))] if self.net.opset < 11 or self.chance(60) else []
        attrs: dict[str, Any] = {"transA": trans_a, "transB": trans_b}
        if self.chance(40):
            attrs |= {"alpha": self.pick(0.5, -2.0, 0.0), "beta": self.pick(0.5, -2.0, 0.0)}
        self.grown(self.net.node("Gemm", x, w, *bias, **attrs), (rows, out))
        return True

    def matmul(self) -> bool:
        x, shape = self.tensor()
        if len(shape) < 2:
            return False
        out = self.pick(1, 2, 4, shape[-1], shape[-2])
        if self.chance(15):
            after = (*shape[:-2], out, shape[-1])
            name = self.net.node("MatMul", self.constant(out, shape[-2]), x)
        else:
            after = (*shape[:-1], out)
            name = self.net.node("MatMul", x, self.constant(shape[-1], out))
        if math.prod(after) > LARGEST:
            return False
        if self.chance(40):
            name = self.net.node("Add", *self._either_way(name, self.constant(after[-1])))
        self.grown(name, after)
        return True

    def bn(self, at: tuple[str, Shape] | None = None) -> bool:
        x, shape = self.tensor() if at is None else at
        if len(shape) < 2:
            return False
        channels = shape[1]
        stored = self.statistics.setdefault(channels, [])
        if stored and self.chance(25):
            parameters = self.pick(*stored)
        else:
            scale = self.net.draw(channels)
            var = self.net.draw(channels, low=0.25, high=2.0)
            kind = self.pick("plain", "plain", "plain", "zero_scale", "zero_var", "narrow")
            if kind == "zero_scale":
                scale[0] = 0
            elif kind == "zero_var":
                var[0] = 0
            elif kind == "narrow":
                var[0] = 1e-3
            place = self.pick("raw", "raw", "node", "identity")
            arrays = (scale, self.net.draw(channels), self.net.draw(channels), var)
            parameters = [self.net.const(a, place) for a in arrays]
            stored.append(parameters)
        attrs = {"epsilon": self.pick(1e-5, 1e-3)} if self.chance(50) else {}
        name = self.pick(None, None, "", "bn")  # numbered, missing or duplicate
        self.grown(self.net.node("BatchNormalization", x, *parameters, name=name, **attrs), shape)
        return True

    def activation(self) -> bool:
        x, shape = self.tensor()
        op = self.pick("Relu", "LeakyRelu", "Sigmoid", "PRelu")
        slope = (
            [self.constant(*self.pick((), (1,), (shape[1], *[1] * (len(shape) - 2))))]
            if op == "PRelu"
            else []
        )
        self.grown(self.net.node(op, x, *slope), shape)
        return True

    def passing(self) -> bool:
        x, shape = self.tensor()
        self.grown(self.net.node(self.pick("Identity", "Dropout"), x), shape)
        return True

    def binary(self) -> bool:
        x, shape = self.tensor()
        same = [name for name, other in self.tensors if other == shape]
        self.grown(self.net.node(self.pick("Add", "Add", "Sub", "Mul"), x, self.pick(*same)), shape)
        return True

    def _either_way(self, x: str, c: str) -> tuple[str, str]:
        return (c, x) if self.chance(30) else (x, c)

    def with_constant(self) -> bool:
        """Mul, Add, Sub, Div by constants per channel, per column, full, or wider than the tensor."""
        x, shape = self.tensor()
        rank = len(shape)
        channel = (shape[1], *[1] * (rank - 2))
        options: list[Shape] = [channel, channel, (1, *channel), (), (1,), shape[-1:], shape, shape[1:]]
        if shape[1] == 1:
            options.append((2, *[1] * (rank - 2)))
        if shape[0] == 1:
            options.append((2, *channel))
        if rank < 4:
            options.append((1, *([1] if rank == 3 else [1, 1]), *channel)[-4:])
        c_shape = self.pick(*options)
        after = tuple(np.broadcast_shapes(shape, c_shape))
        op = self.pick("Mul", "Add", "Sub", "Div")
        c = self.constant(*c_shape)
        operands = (x, c) if op == "Div" else self._either_way(x, c)
        self.grown(self.net.node(op, *operands), after)
        return True

    def spelled_out(self) -> bool:
        """A BN as exporters write it without the operator."""
        x, shape = self.tensor()
        channel = (shape[1], *[1] * (len(shape) - 2))
        for op in self.pick(
            ("Mul", "Add"), ("Sub", "Mul", "Add"), ("Sub", "Div", "Mul", "Add"), ("Mul", "Sub")
        ):
            x = self.net.node(op, x, self.constant(*channel))
        self.grown(x, shape)
        return True

    def concat(self) -> bool:
        x, shape = self.tensor()
        axis = self.draw(st.integers(0, len(shape) - 1))
        fits = [
            (name, other)
            for name, other in self.tensors
            if len(other) == len(shape)
            and all(a == b for i, (a, b) in enumerate(zip(shape, other, strict=True)) if i != axis)
        ]
        name, other = self.pick(*fits)
        after = (*shape[:axis], shape[axis] + other[axis], *shape[axis + 1 :])
        if math.prod(after) > LARGEST:
            return False
        self.grown(self.net.node("Concat", x, name, axis=axis), after)
        return True

    def reshape(self) -> bool:
        x, shape = self.tensor()
        count = math.prod(shape)
        options: list[Shape] = [
            (shape[0], shape[1], math.prod(shape[2:])),
            (shape[0], count // shape[0]),
            (math.prod(shape[:-1]), shape[-1]),
            (shape[1], shape[0], math.prod(shape[2:])),
            (shape[0], math.prod(shape[1:-1]), shape[-1]),
            (1, *shape) if len(shape) < 4 else shape,
            (*shape, 1) if len(shape) < 4 else shape,
            shape[::-1],
        ]
        after = self.pick(*[o for o in options if len(o) >= 2])
        target = list(after)
        if self.chance(50):
            target[self.draw(st.integers(0, len(target) - 1))] = -1
        self.grown(self.net.node("Reshape", x, self.net.ints(*target)), after)
        return True

    def flatten(self) -> bool:
        x, shape = self.tensor()
        axis = self.draw(st.integers(0, len(shape)))
        self.grown(self.net.node("Flatten", x, axis=axis), (math.prod(shape[:axis]), math.prod(shape[axis:])))
        return True

    def transpose(self) -> bool:
        x, shape = self.tensor()
        perm = self.draw(st.permutations(range(len(shape))))
        self.grown(self.net.node("Transpose", x, perm=list(perm)), tuple(shape[i] for i in perm))
        return True

    def branch(self) -> bool:
        """An If whose bodies read what is outside, weights included, and may hold Conv and BN."""
        if self.net.prefix or not self.chance(50):
            return False
        x, shape = self.tensor()
        if "condition" not in {i.name for i in self.net.inputs}:
            self.net.input("condition", elem=TensorProto.BOOL)
        graphs = {f"{which}_branch": self._body(which, x, shape) for which in ("then", "else")}
        out = self.net.node("If", "condition", **graphs)
        self.grown(out, shape)
        return True

    def _body(self, which: str, x: str, shape: Shape) -> GraphProto:
        number = sum(n.op_type == "If" for n in self.net.nodes)
        inner = Net(
            self.net.opset, elem=self.net.elem, ir=self.net.ir, prefix=f"{which}{number}_", seed=number
        )
        outer_weights = {s: list(names) for s, names in self.weights.items()}
        outer_statistics = {c: list(sets) for c, sets in self.statistics.items()}
        body = Grower(self.draw, inner, [(x, shape)], outer_weights, outer_statistics)
        for _ in range(self.draw(st.integers(1, 3))):
            self.pick(body.bn, body.activation, body.passing, body.same_conv, body.with_channel_constant)()
        inner.output(inner.node("Identity", body.tensors[-1][0]), shape=list(shape))
        return inner.graph(which)

    def parallel(self) -> bool:
        """Linear branches of one input that are summed, as blocks to reparameterize have them."""
        x, shape = self.tensor()
        if len(shape) != 4:
            return False
        out = self.pick(shape[1], shape[1], 1, 2)
        group = self.pick(1, 1, shape[1]) if out == shape[1] else 1
        stride = self.pick(1, 1, 2)
        after = (shape[0], out, *((s - 1) // stride + 1 for s in shape[2:]))
        if math.prod(after) > LARGEST:
            return False
        ends = []
        for kernel in self.pick((3, 1), (1, 3), (3, 3), (1, 1), (3, 1, 1)):
            w = self.constant(out, shape[1] // group, kernel, kernel)
            bias = [self.constant(out)] if self.pick(False, True) else []
            pads = [kernel // 2] * 4
            y = self.net.node("Conv", x, w, *bias, pads=pads, strides=[stride] * 2, group=group)
            if self.pick(True, False):
                self.bn((y, after))
                y, _ = self.tensors.pop()
            ends.append(y)
        if out == shape[1] and stride == 1 and self.pick(False, True):
            self.bn((x, shape))
            ends.append(self.tensors.pop()[0])
        total = ends[0]
        for end in ends[1:]:
            total = self.net.node("Add", total, end)
        self.grown(total, after)
        return True

    def call(self) -> bool:
        """A local function of Conv and BN, its weights given by each call; often called more than once."""
        x, shape = self.tensor()
        if self.net.prefix or self.net.ir < 8 or len(shape) != 4:
            return False
        if not self.net.functions:
            inner = Net(self.net.opset, prefix="f_")
            inner.node("BatchNormalization", inner.node("Conv", "x", "w", "b"), *"stmv", name="fbn", out="y")
            opsets = [helper.make_opsetid("", self.net.opset)]
            self.net.functions.append(
                helper.make_function(FUNCTIONS, "Block", list("xwbstmv"), ["y"], inner.nodes, opsets)
            )
        out = self.pick(shape[1], 1, 2)
        weights = [self.constant(out, shape[1], 1, 1), *(self.constant(out) for _ in range(4))]
        var = self.net.init(self.net.draw(out, low=0.25, high=2.0))
        name = self.net.node("Block", x, *weights, var, domain=FUNCTIONS)
        self.grown(name, (shape[0], out, *shape[2:]))
        return True

    def same_conv(self) -> bool:
        """A producer that keeps the shape."""
        x, shape = self.tensor()
        if len(shape) == 2:
            self.grown(
                self.net.node("Gemm", x, self.constant(shape[1], shape[1]), self.constant(shape[1])), shape
            )
        elif len(shape) == 4:
            self.grown(self.net.node("Conv", x, self.constant(shape[1], shape[1], 1, 1)), shape)
        else:
            return False
        return True

    def with_channel_constant(self) -> bool:
        x, shape = self.tensor()
        c = self.constant(shape[1], *[1] * (len(shape) - 2))
        self.grown(self.net.node(self.pick("Mul", "Add"), x, c), shape)
        return True

    def linear_then_bn(self) -> bool:
        """What bnfold is for, often enough that most graphs hold one."""
        before = len(self.tensors)
        if not self.pick(self.conv, self.conv_transpose, self.gemm, self.matmul, self.conv)():
            return False
        if self.pick(False, True):
            self.pick(self.passing, self.with_channel_constant, self.transpose, self.flatten)()
        self.tensors[before:] = self.tensors[-1:] if self.chance(85) else self.tensors[before:]
        return self.bn()


INPUTS: tuple[Shape, ...] = (
    (1, 3, 4, 4), (2, 4, 4, 4), (1, 2, 3, 3), (2, 2, 2, 2), (1, 1, 3, 4), (2, 3, 5), (3, 3, 3),
    (2, 4), (4, 4), (1, 3),
)  # fmt: skip


@st.composite
def models(draw: Draw) -> ModelProto:
    """A valid model of 3 to about 20 nodes, with at least one BatchNormalization in most."""
    opset = draw(st.sampled_from(OPSETS))
    elem = draw(st.sampled_from([FLOAT, FLOAT, FLOAT, FLOAT16, DOUBLE]))
    # Bodies hold initializers of their own, which IR 3 forbids.
    net = Net(
        opset,
        elem=elem,
        seed=draw(st.integers(0, 2**16)),
        ir=None if opset > 8 else draw(st.sampled_from([4, 6])),
    )
    grower = Grower(draw, net)
    shape = draw(st.sampled_from(INPUTS))
    for i in range(draw(st.integers(1, 2))):
        grower.grown(net.input(f"x{i}", *shape), shape)
    steps = (
        grower.linear_then_bn, grower.linear_then_bn, grower.linear_then_bn, grower.bn, grower.bn,
        grower.conv, grower.gemm, grower.conv_transpose, grower.matmul, grower.activation, grower.passing,
        grower.binary, grower.with_constant, grower.with_constant, grower.spelled_out, grower.concat,
        grower.reshape, grower.flatten, grower.transpose, grower.branch, grower.call,
        grower.parallel,
    )  # fmt: skip
    for i in range(draw(st.integers(3, 10))):
        step = grower.linear_then_bn if i == 1 else draw(st.sampled_from(steps))
        if math.prod(grower.tensors[-1][1]) <= LARGEST:
            step()
    read = {name for node in net.nodes for name in node.input}
    for name, dims in grower.tensors:
        if any(name == i.name for i in net.inputs):
            continue
        if name not in read or draw(st.integers(0, 99)) >= 92:
            net.output(name, shape=list(dims))
    if not net.outputs:
        name, dims = grower.tensors[0]
        net.output(net.node("Identity", name), shape=list(dims))
    if net.initializers and draw(st.integers(0, 9)) == 9:
        # IR >= 4: a default that the caller may override
        info = draw(st.sampled_from([t for t in net.initializers if t.data_type == elem] or net.initializers))
        net.input(info.name, *info.dims, elem=info.data_type)
    return net.model({FUNCTIONS: 1} if net.functions else {})
