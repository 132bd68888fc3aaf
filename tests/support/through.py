"""Seeded random models for maps that travel: weights, a normalization, and operators that pass its map on.

A model is a few stems, each a layer with weights, a normalization and some operators in any order, joined by
Add, Sub or Concat. Statistics are drawn so that a good part of the maps may pass what is special: activations
want a positive scale and no shift, a Clip or a Pad one map for all channels. Sizes are few and small, so that
channels, positions and the batch often coincide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from support.build import BFLOAT16, DOUBLE, FLOAT, FLOAT16, NEWEST, Attribute, Net
from support.ways import linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

Shape = tuple[int, ...]

OPSETS = (7, 7, 8, 8, 9, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, NEWEST)
LARGEST = 400  # numbers in a tensor
INPUTS: tuple[Shape, ...] = (
    (1, 4, 4, 4), (2, 4, 4, 4), (1, 3, 4, 4), (2, 2, 2, 2), (2, 8, 2, 2), (1, 12, 2, 2), (1, 1, 4, 6),
    (1, 8, 2, 2), (2, 4, 2, 2), (2, 3, 5), (3, 3, 3), (2, 4, 6), (2, 4), (4, 4), (1, 6), (1, 2, 2, 4, 2),
    (2, 2, 3, 2, 2),
)  # fmt: skip

# Of statistics: "+" is a positive scale, "scaling" has no shift, "blocks" repeats those of a few channels.
KINDS = (
    "plain", "plain", "positive", "scaling", "scaling+", "scaling+", "uniform", "uniform", "uniform+",
    "uniform+", "zero", "blocks", "blocks",
)  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor of the model under construction."""

    name: str
    shape: Shape
    elem: int

    @property
    def rank(self) -> int:
        return len(self.shape)


class Grower:
    """One model, drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - no secret
        self.net = Net(self.random.choice(OPSETS), seed=seed)
        if self.net.opset < 9:
            self.net.ir = self.random.choice((3, 4))
        self.tensors: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.dims: dict[str, int] = {}

    # --- drawing -------------------------------------------------------------------------------------------

    def pick(self, *options: Any) -> Any:  # noqa: ANN401 - one of whatever is offered
        return self.random.choice(options)

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) < percent

    def node(
        self, op: str, *inputs: Tensor | str, shape: Shape, elem: int | None = None, **attrs: Attribute
    ) -> Tensor:
        first = next(i for i in inputs if isinstance(i, Tensor))
        name = self.net.node(op, *(i.name if isinstance(i, Tensor) else i for i in inputs), **attrs)
        return self.tensor(name, shape, first.elem if elem is None else elem)

    def tensor(self, name: str, shape: Shape, elem: int) -> Tensor:
        tensor = Tensor(name, tuple(int(d) for d in shape), elem)
        self.tensors.append(tensor)
        return tensor

    def weight(self, t: Tensor, *shape: int, low: float = 0.5, high: float = 1.5, sign: bool = True) -> str:
        """A constant of the type of `t`."""
        self.net.elem = t.elem
        values = self.net.draw(*shape, low=low, high=high)
        if sign:
            values = values * self.net.rng.choice([-1.0, 1.0], size=shape)
        return self.net.const(values, self.pick("raw", "raw", "raw", "raw", "node", "identity"), elem=t.elem)

    def ints(self, *values: int) -> str:
        return self.net.ints(*(int(v) for v in values))

    def operand(self, t: Tensor, *values: int) -> str:
        """Integers that are stored, or some of which are computed from a size of `t`, known or not."""
        place = self.random.randrange(max(len(values), 1))
        axis = self.random.randrange(t.rank)
        if not values or self.chance(75) or abs(values[place]) > 99 or self.net.opset < 11:
            return self.ints(*values)
        size = self.net.node("Gather", self.net.node("Shape", t.name), self.ints(axis), axis=0)
        if self.chance(50):
            size = self.net.node("Div", self.net.node("Mul", size, self.ints(2)), self.ints(2))
        size = self.net.node("Add", size, self.ints(values[place] - t.shape[axis]))
        parts = [self.ints(*part) for part in (values[:place], values[place + 1 :])]
        near = [parts[0]] * (place > 0) + [size] + [parts[1]] * (place + 1 < len(values))
        return self.net.node("Concat", *near, axis=0) if len(near) > 1 else size

    # --- layers with weights -------------------------------------------------------------------------------

    def layer(self, t: Tensor) -> Tensor | None:
        options = (
            [self.conv, self.conv, self.conv_transpose, self.matmul]
            if t.rank > 2
            else [self.gemm, self.matmul]
        )
        chosen: Tensor | None = self.pick(*options)(t)
        return chosen

    def conv(self, t: Tensor) -> Tensor | None:
        if not 3 <= t.rank <= 5:
            return None
        channels, space = t.shape[1], t.shape[2:]
        group = self.pick(1, 1, channels, 2)
        if channels % group:
            return None
        out = group * self.pick(1, 2, 3)
        attrs: dict[str, Any] = {"group": group}
        kernel = [min(self.pick(1, 1, 2, 3), s) for s in space]
        stride = self.pick(1, 1, 2)
        pads = [0] * 2 * len(space)
        mode = self.pick("pads", "none", "none", "VALID", "SAME_UPPER", "SAME_LOWER")
        if mode == "pads":
            pads = [self.pick(0, 1) for _ in pads]
        after = [
            (s + pads[i] + pads[i + len(space)] - k) // stride + 1
            for i, (s, k) in enumerate(zip(space, kernel, strict=True))
        ]
        if mode.startswith("SAME"):
            after = [math.ceil(s / stride) for s in space]
        attrs |= {"strides": [stride] * len(space)} if stride > 1 or self.chance(50) else {}
        if mode == "pads":
            attrs["pads"] = pads
        elif mode != "none":
            attrs["auto_pad"] = mode
        w = self.weight(t, out, channels // group, *kernel)
        bias = [self.weight(t, out)] if self.chance(50) else []
        return self.node("Conv", t, w, *bias, shape=(t.shape[0], out, *after), **attrs)

    def conv_transpose(self, t: Tensor) -> Tensor | None:
        if not 3 <= t.rank <= 4:
            return None
        channels, space = t.shape[1], t.shape[2:]
        group, each, stride = self.pick(1, channels), self.pick(1, 2), self.pick(1, 1, 2)
        kernel = [self.pick(1, 1, 2) for _ in space]
        after = [(s - 1) * stride + k for s, k in zip(space, kernel, strict=True)]
        w = self.weight(t, channels, each, *kernel)
        bias = [self.weight(t, each * group)] if self.chance(50) else []
        shape = (t.shape[0], each * group, *after)
        return self.node(
            "ConvTranspose", t, w, *bias, shape=shape, group=group, strides=[stride] * len(space)
        )

    def gemm(self, t: Tensor) -> Tensor | None:
        if t.rank != 2:
            return None
        trans_a, trans_b = self.pick(0, 0, 1), self.pick(0, 1)
        rows, inner = t.shape[::-1] if trans_a else t.shape
        out = self.pick(1, 2, 4, inner)
        w = self.weight(t, *((out, inner) if trans_b else (inner, out)))
        shapes: list[Shape] = [(out,), (1, out), (rows, 1), (rows, out), (1,), ()]
        bias = [self.weight(t, *self.pick(*shapes))] if self.net.opset < 11 or self.chance(60) else []
        attrs: dict[str, Any] = {"transA": trans_a, "transB": trans_b}
        if self.chance(40):
            attrs |= {"alpha": self.pick(0.5, -2.0), "beta": self.pick(0.5, -2.0, 0.0)}
        return self.node("Gemm", t, w, *bias, shape=(rows, out), **attrs)

    def matmul(self, t: Tensor) -> Tensor | None:
        out = self.pick(1, 2, 4, t.shape[-1])
        batch = t.shape[:-2] if self.chance(20) else t.shape[1:-2] if self.chance(10) else ()
        if self.chance(30):
            w = self.weight(t, *batch, out, t.shape[-2])
            name = self.net.node("MatMul", w, t.name)
            after: Shape = (*t.shape[:-2], out, t.shape[-1])
        else:
            name = self.net.node("MatMul", t.name, self.weight(t, *batch, t.shape[-1], out))
            after = (*t.shape[:-1], out)
        y = self.tensor(name, after, t.elem)
        if self.chance(40):
            return self.node("Add", y, self.weight(t, after[-1]), shape=after)
        return y

    def conditional(self, t: Tensor) -> Tensor | None:
        """A layer in each body of an If: both read what is outside, and both have to take a map in."""
        if self.net.ir < 4 or not 2 <= t.rank <= 4:
            return None
        if "condition" not in {info.name for info in self.net.inputs}:
            self.net.input("condition", elem=TensorProto.BOOL)
        shape = (t.shape[0], 2, *t.shape[2:])
        bodies = {}
        for which in ("then", "else"):
            prefix = f"{which}{len(self.net.nodes)}_"
            inner = Net(self.net.opset, elem=t.elem, ir=self.net.ir, prefix=prefix, seed=len(self.net.nodes))
            y = inner.node(self.pick("Identity", "Identity", "Relu", "Sigmoid"), t.name)
            y = linear(inner, y if self.chance(50) else t.name, t.shape[1], 2, t.rank, name=f"{prefix}linear")
            inner.output(y, shape=shape)
            bodies[f"{which}_branch"] = inner.graph(which)
        return self.tensor(self.net.node("If", "condition", **bodies), shape, t.elem)

    def normalization(self, t: Tensor) -> Tensor | None:
        """One with a scale and a bias of its own, for the map to end in."""
        kinds = ["InstanceNormalization"] if t.rank > 2 and math.prod(t.shape[2:]) > 1 else []
        kinds += ["LayerNormalization"] if self.net.opset >= 17 and t.shape[-1] > 1 else []
        kinds += (
            ["GroupNormalization"] if self.net.opset >= 21 and kinds[:1] == ["InstanceNormalization"] else []
        )
        if not kinds or t.elem == DOUBLE:  # float64 tensors are normalized in float32 (stash_type)
            return None
        op = self.pick(*kinds)
        size, attrs = t.shape[1], {}
        if op == "LayerNormalization":
            size = t.shape[-1]
        if op == "GroupNormalization":
            attrs = {"num_groups": self.pick(1, size)}
        return self.node(op, t, self.weight(t, size), self.weight(t, size), shape=t.shape, **attrs)

    # --- the normalization ---------------------------------------------------------------------------------

    def bn(self, t: Tensor) -> Tensor | None:
        if t.rank < 2:
            return None
        if t.elem == BFLOAT16 and self.net.opset < 14:
            return None
        channels = t.shape[1]
        self.net.elem = t.elem
        draw = self.net.draw
        scale, bias, mean, var = (
            draw(channels),
            draw(channels),
            draw(channels),
            draw(channels, low=0.25, high=2.0),
        )
        kind = self.pick(*KINDS)
        if kind.endswith("+") or kind == "positive":
            scale = np.abs(scale) + 0.125
        if kind.startswith("scaling"):
            bias, mean = np.zeros(channels), np.zeros(channels)
        if kind.startswith("uniform"):
            scale, bias, mean, var = (np.full(channels, a[0]) for a in (scale, bias, mean, var))
        if kind == "blocks":
            apart, whole = max(1, channels // 4), np.arange(channels)
            owner = whole % apart if self.chance(50) else whole * apart // channels
            scale, bias, mean, var = (a[owner] for a in (scale, bias, mean, var))
        if kind == "uniform+" and self.chance(50):
            bias, mean = np.zeros(channels), np.zeros(channels)
        if kind == "zero":
            scale[0] = 0
        stats = {"scale": scale, "bias": bias, "mean": mean, "var": var}
        return self.tensor(self.net.bn(t.name, channels, stats=stats), t.shape, t.elem)

    # --- operators that may pass a map on ------------------------------------------------------------------

    def identity(self, t: Tensor) -> Tensor | None:
        return self.node(self.pick("Identity", "Dropout"), t, shape=t.shape)

    def transpose(self, t: Tensor) -> Tensor | None:
        perm = list(range(t.rank))
        self.random.shuffle(perm)
        if self.chance(20):
            return self.node("Transpose", t, shape=t.shape[::-1])
        return self.node("Transpose", t, shape=tuple(t.shape[i] for i in perm), perm=perm)

    def there_and_back(self, t: Tensor) -> Tensor | None:
        """Channels last for something, as tf2onnx writes it."""
        if t.rank < 3:
            return None
        last = [0, *range(2, t.rank), 1]
        y = self.node("Transpose", t, shape=tuple(t.shape[i] for i in last), perm=last)
        z = self.pick(self.identity, self.activation, self.constant, self.reduce, self.pad)(y)
        if z is None or z.rank != t.rank:
            return z  # type: ignore[no-any-return]
        first = [0, t.rank - 1, *range(1, t.rank - 1)]
        return self.node("Transpose", z, shape=tuple(z.shape[i] for i in first), perm=first)

    def reshape(self, t: Tensor) -> Tensor | None:
        count = math.prod(t.shape)
        options: list[Shape] = [
            (t.shape[0], count // t.shape[0]),
            (math.prod(t.shape[:-1]), t.shape[-1]),
            (*t.shape, 1),
            (1, *t.shape),
            t.shape[::-1],
            t.shape,
        ]
        if t.rank > 2:
            options += [
                (t.shape[0], t.shape[1], math.prod(t.shape[2:])),
                (t.shape[0], math.prod(t.shape[1:-1]), t.shape[-1]),
                (t.shape[0] * t.shape[1], *t.shape[2:]),
            ]
        for parts in (2, 3):
            if t.rank > 1 and t.shape[1] % parts == 0:
                options.append((t.shape[0], parts, t.shape[1] // parts, *t.shape[2:]))
                options.append((t.shape[0], t.shape[1] // parts, parts, *t.shape[2:]))
        after = self.pick(*[o for o in options if 2 <= len(o) <= 5])
        target = list(after)
        if self.chance(30):
            target[self.random.randrange(len(target))] = -1
        for i in range(min(len(target), t.rank)):
            if target[i] == t.shape[i] and self.chance(30):
                target[i] = 0
        return self.node("Reshape", t, self.ints(*target), shape=after)

    def shuffle(self, t: Tensor) -> Tensor | None:
        """Channel shuffle, or the like: Reshape, Transpose, Reshape, and something before the last."""
        divisors = [g for g in range(1, t.shape[1] + 1) if t.shape[1] % g == 0]
        groups = self.pick(*divisors)
        apart = (t.shape[0], groups, t.shape[1] // groups, *t.shape[2:])
        if t.rank > 5:
            return None
        y = self.node("Reshape", t, self.target(apart, t.shape), shape=apart)
        perm = [0, 2, 1, *range(3, t.rank + 1)]
        if self.chance(25):
            self.random.shuffle(perm)
        if self.chance(85):
            y = self.node("Transpose", y, shape=tuple(apart[i] for i in perm), perm=perm)
        if self.chance(40):
            between = (
                self.activation, self.constant, self.reduce, self.pad, self.slice, self.gather, self.cast,
                self.clip, self.expand, self.identity, self.split, self.transpose, self.join, self.concat,
            )  # fmt: skip
            y = self.pick(*between)(y) or y
        if y.rank < 3:
            return y
        first = self.pick(1, 1, 1, *range(y.rank - 1))
        joined = (*y.shape[:first], y.shape[first] * y.shape[first + 1], *y.shape[first + 2 :])
        return self.node("Reshape", y, self.target(joined, y.shape), shape=joined)

    def target(self, after: Shape, before: Shape) -> str:
        """The target of a Reshape, with `-1` and zeros where they say the same."""
        sizes = list(after)
        if self.chance(40):
            sizes[self.pick(0, 0, *range(len(sizes)))] = -1
        for i in range(min(len(sizes), len(before))):
            if sizes[i] == before[i] and self.chance(30):
                sizes[i] = 0
        return self.ints(*sizes)

    def spelled_out(self, t: Tensor) -> Tensor | None:
        """DepthToSpace or SpaceToDepth as Reshape, Transpose and Reshape."""
        if t.rank != 4:
            return None
        n, c, h, w = t.shape
        if c % 4 == 0 and self.chance(60):
            apart = self.pick((n, c // 4, 2, 2, h, w), (n, 2, 2, c // 4, h, w))
            perm = [0, 1, 4, 2, 5, 3] if apart[1] == c // 4 else [0, 3, 4, 1, 5, 2]
            after = (n, c // 4, 2 * h, 2 * w)
        elif h % 2 or w % 2:
            return None
        else:
            apart = (n, c, h // 2, 2, w // 2, 2)
            perm = self.pick([0, 3, 5, 1, 2, 4], [0, 1, 3, 5, 2, 4])
            after = (n, 4 * c, h // 2, w // 2)
        y = self.node("Reshape", t, self.target(apart, t.shape), shape=apart)
        y = self.node("Transpose", y, shape=tuple(apart[i] for i in perm), perm=perm)
        return self.node("Reshape", y, self.target(after, y.shape), shape=after)

    def focus(self, t: Tensor) -> Tensor | None:
        """Every other row and column, as channels."""
        if t.rank != 4 or t.shape[2] % 2 or t.shape[3] % 2 or self.net.opset < 10:
            return None
        n, c, h, w = t.shape
        parts = [
            self.node(
                "Slice", t, self.ints(i, j), self.ints(h, w), self.ints(2, 3), self.ints(2, 2),
                shape=(n, c, h // 2, w // 2),
            )
            for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]  # fmt: skip
        return self.node("Concat", *parts, shape=(n, 4 * c, h // 2, w // 2), axis=1)

    def parts(self, t: Tensor) -> Tensor | None:
        """Two readers of some channels each, perhaps of the same, one of them normalized or both."""
        if t.shape[1] < 2 or self.net.opset < 10:
            return None
        cut = self.random.randrange(1, t.shape[1])
        bounds = [(0, cut), (self.pick(cut, cut, cut, max(0, cut - 1)), t.shape[1])]
        found = [
            self.node(
                "Slice", t, self.ints(low), self.ints(high), self.ints(1),
                shape=(t.shape[0], high - low, *t.shape[2:]),
            )
            for low, high in bounds
        ]  # fmt: skip
        ends = [(self.bn(p) or p) if self.chance(70) else (self.through(p) or p) for p in found]
        if self.chance(40) and ends[0].elem == ends[1].elem:
            return self._joined(ends) or ends[0]
        return ends[0]

    def branches(self, t: Tensor) -> Tensor | None:
        """Two ways that meet again."""
        one, other = (self.through(t) or t for _ in range(2))
        if one.elem != other.elem:
            return None
        if one.shape == other.shape and self.chance(50):
            return self.node(self.pick("Add", "Sub"), one, other, shape=one.shape)
        return self._joined([one, other])

    def flatten(self, t: Tensor) -> Tensor | None:
        axis = self.pick(1, 1, *range(t.rank + 1))
        after = (math.prod(t.shape[:axis]), math.prod(t.shape[axis:]))
        if self.net.opset >= 11 and 0 < axis < t.rank and self.chance(30):
            axis -= t.rank
        return self.node("Flatten", t, shape=after, axis=axis)

    def _with_axes(self, op: str, t: Tensor, axes: list[int], after: Shape) -> Tensor:
        rank = t.rank if op == "Squeeze" else len(after)
        if self.net.opset >= 11:
            axes = [a - rank if self.chance(30) else a for a in axes]
        if self.net.opset >= 13:
            return self.node(op, t, self.ints(*axes), shape=after)
        return self.node(op, t, shape=after, axes=axes)

    def unsqueeze(self, t: Tensor) -> Tensor | None:
        if t.rank > 4:
            return None
        axis = self.random.randrange(t.rank + 1)
        return self._with_axes("Unsqueeze", t, [axis], (*t.shape[:axis], 1, *t.shape[axis:]))

    def squeeze(self, t: Tensor) -> Tensor | None:
        ones = [i for i, d in enumerate(t.shape) if d == 1]
        if not ones or t.rank < 3:
            return None
        if self.chance(25) and t.rank - len(ones) >= 2 and not self.dims:
            return self.node("Squeeze", t, shape=tuple(d for d in t.shape if d != 1))
        axis = self.pick(*ones)
        return self._with_axes("Squeeze", t, [axis], (*t.shape[:axis], *t.shape[axis + 1 :]))

    def slice(self, t: Tensor) -> Tensor | None:
        axis = self.random.randrange(t.rank)
        size = t.shape[axis]
        start = self.pick(0, 1, -1, -size, size, 99, -99)
        end = self.pick(size, size - 1, -1, 99, -99, 2**63 - 1, -(2**63) + 1, 1)
        step = self.pick(1, 1, 2, -1, -2) if self.net.opset >= 10 else 1
        if step > 0:
            low, high = (min(max(v + size if v < 0 else v, 0), size) for v in (start, end))
        else:
            low = min(max(start + size if start < 0 else start, 0), size - 1)
            high = min(max(end + size if end < 0 else end, -1), size - 1)
        after = len(range(low, high, step))
        if not after:
            return None
        shape = (*t.shape[:axis], after, *t.shape[axis + 1 :])
        if self.net.opset < 10:
            return self.node("Slice", t, shape=shape, starts=[start], ends=[end], axes=[axis])
        axes = self.ints(axis - t.rank if self.chance(30) else axis)
        steps = [self.ints(step)] if step != 1 or self.chance(50) else []
        bounds = self.operand(t, start), self.operand(t, end)
        return self.node("Slice", t, *bounds, axes, *steps, shape=shape)

    def split(self, t: Tensor) -> Tensor | None:
        axis = self.pick(1, 1, self.random.randrange(t.rank)) % t.rank
        size = t.shape[axis]
        if size < 2:
            return None
        if size % 2 == 0 and self.chance(50):
            sizes = [size // 2] * 2
            given = False
        else:
            first = self.random.randrange(1, size)
            sizes, given = [first, size - first], True
        attrs: dict[str, Any] = {"axis": axis - t.rank if self.net.opset >= 11 and self.chance(30) else axis}
        operands: list[str] = []
        if given and self.net.opset >= 13:
            operands = [self.operand(t, *sizes)]
        elif given:
            attrs["split"] = sizes
        elif self.net.opset >= 18:
            attrs["num_outputs"] = 2
        names = [self.net.fresh("split") for _ in sizes]
        self.net.node("Split", t.name, *operands, out=names, **attrs)
        parts = [
            self.tensor(n, (*t.shape[:axis], s, *t.shape[axis + 1 :]), t.elem)
            for n, s in zip(names, sizes, strict=True)
        ]
        if self.chance(65):
            grow = self.pick(self.through, self.through, self.bn)
            parts = [(self.chance(75) and grow(p)) or p for p in parts]
            if all(p.elem == t.elem for p in parts):
                joined = self._joined(parts)
                if joined is not None:
                    return joined
        for part in parts[1:]:
            end = self.layer(part)
            self.outputs.append(part if end is None else end)
        return parts[0]

    def _joined(self, parts: list[Tensor]) -> Tensor | None:
        """Two tensors as one along the first axis in which alone they differ."""
        one, other = parts
        if one.rank != other.rank:
            return None
        differing = [i for i in range(one.rank) if one.shape[i] != other.shape[i]] or [
            self.pick(*range(one.rank))
        ]
        if len(differing) > 1:
            return None
        axis = differing[0]
        shape = (*one.shape[:axis], one.shape[axis] + other.shape[axis], *one.shape[axis + 1 :])
        return self.node("Concat", one, other, shape=shape, axis=axis)

    def gather(self, t: Tensor) -> Tensor | None:
        axis = self.pick(1, self.random.randrange(t.rank)) % t.rank
        size = t.shape[axis]
        shape: Shape = self.pick((), (size,), (size,), (1,), (2,), (2, 2))
        if len(shape) + t.rank - 1 > 5 or (not shape and t.rank < 3):
            return None
        count = math.prod(shape)
        where = [self.random.randrange(size) for _ in range(count)]
        if self.chance(50) and count == size:
            where = self.random.sample(range(size), size)
        if self.net.opset >= 11:
            where = [w - size if self.chance(30) else w for w in where]
        index = self.net.init(np.array(where).reshape(shape), elem=TensorProto.INT64)
        after = (*t.shape[:axis], *shape, *t.shape[axis + 1 :])
        attr = axis - t.rank if self.net.opset >= 11 and self.chance(30) else axis
        return self.node("Gather", t, index, shape=after, axis=attr)

    def concat(self, t: Tensor) -> Tensor | None:
        axis = self.pick(1, 1, self.random.randrange(t.rank)) % t.rank
        parts: list[Tensor | str] = [t]
        sizes = [t.shape[axis]]
        for _ in range(self.pick(1, 1, 2)):
            fitting = [
                o for o in self.tensors
                if o.elem == t.elem and o.rank == t.rank
                and all(a == b for i, (a, b) in enumerate(zip(o.shape, t.shape, strict=True)) if i != axis)
            ]  # fmt: skip
            if self.chance(40) or (not fitting and self.chance(80)):
                size = self.pick(1, 2)
                parts.append(self.weight(t, *t.shape[:axis], size, *t.shape[axis + 1 :]))
                sizes.append(size)
            elif self.chance(60):
                other = self.layer(t)
                if other is None or other.rank != t.rank:
                    return None
                if any(
                    a != b for i, (a, b) in enumerate(zip(other.shape, t.shape, strict=True)) if i != axis
                ):
                    return other
                parts.append(other)
                sizes.append(other.shape[axis])
            elif fitting:
                other = self.pick(*fitting[-4:])
                parts.append(other)
                sizes.append(other.shape[axis])
        self.random.shuffle(order := list(range(len(parts))))
        after = (*t.shape[:axis], sum(sizes), *t.shape[axis + 1 :])
        attr = axis - t.rank if self.net.opset >= 11 and self.chance(30) else axis
        return self.node("Concat", *(parts[i] for i in order), shape=after, axis=attr)

    def pad(self, t: Tensor) -> Tensor | None:
        pads = [0] * 2 * t.rank
        for _ in range(self.pick(1, 2)):
            i = (
                self.random.randrange(2 * t.rank)
                if self.chance(20)
                else self.pick(t.rank - 1, 2 * t.rank - 1)
            )
            pads[i] = self.pick(1, 1, -1 if t.shape[i % t.rank] > 2 else 0)
        modes = ["constant", "constant", "edge", *(["wrap"] if self.net.opset >= 19 else [])]
        if all(d > 1 for d in t.shape):
            modes.append("reflect")
        mode = self.pick(*modes)
        if mode == "wrap" and min(pads) < 0:
            return None
        after = tuple(d + pads[i] + pads[i + t.rank] for i, d in enumerate(t.shape))
        value = self.pick(0.0, 0.0, 1.5, -0.5)
        if self.net.opset < 11:
            return self.node("Pad", t, shape=after, pads=pads, mode=mode, value=value)
        axes: list[str] = []
        if self.net.opset >= 18 and self.chance(50):
            used = [i for i in range(t.rank) if pads[i] or pads[i + t.rank] or self.chance(20)]
            pads = [pads[i] for i in used] + [pads[i + t.rank] for i in used]
            axes = [self.ints(*(i - t.rank if self.chance(30) else i for i in used))]
        self.net.elem = t.elem
        constant = [self.net.init(np.array(value))] if value or self.chance(40) else [""] if axes else []
        return self.node("Pad", t, self.operand(t, *pads), *constant, *axes, shape=after, mode=mode)

    def resize(self, t: Tensor) -> Tensor | None:
        if t.rank != 4 or self.net.opset < 7 or t.elem == BFLOAT16:
            return None
        scales = [1.0, 1.0, self.pick(1.0, 2.0), self.pick(2.0, 1.5)]
        if self.chance(10):
            # 7/5 puts no point halfway between two, where rounding decides: 5 (2k + 1) is never 14 n.
            scales[1] = self.pick(2.0, 1.4)
        after = tuple(math.floor(d * s) for d, s in zip(t.shape, scales, strict=True))
        mode = self.pick("nearest", "nearest", "linear")
        factors = self.net.init(np.array(scales), elem=FLOAT)
        if self.net.opset < 9:
            return self.node("Upsample", t, shape=after, scales=scales, mode=mode)
        if self.net.opset < 10:
            return self.node("Upsample", t, factors, shape=after, mode=mode)
        if self.net.opset < 11:
            return self.node("Resize", t, factors, shape=after, mode=mode)
        how = self.pick("half_pixel", "asymmetric", "pytorch_half_pixel")
        roi = "" if self.net.opset >= 13 else self.net.init(np.zeros(0), elem=FLOAT)
        mode = self.pick(mode, "cubic")
        attrs = {"mode": mode, "coordinate_transformation_mode": how}
        if self.chance(50):
            return self.node("Resize", t, roi, factors, shape=after, **attrs)
        empty = "" if self.net.opset >= 13 else self.net.init(np.zeros(0), elem=FLOAT)
        return self.node("Resize", t, roi, empty, self.ints(*after), shape=after, **attrs)

    def pool(self, t: Tensor) -> Tensor | None:
        if not 3 <= t.rank <= 5 or t.elem == BFLOAT16:
            return None
        op = self.pick("MaxPool", "AveragePool", "AveragePool")
        space = t.shape[2:]
        kernel = [min(self.pick(1, 2, 2, 3), s) for s in space]
        stride = self.pick(1, 2)
        pads = [self.pick(0, 1) if kernel[i % len(space)] > 1 else 0 for i in range(2 * len(space))]
        if self.chance(50):
            pads = [0] * len(pads)
        ceil = self.net.opset >= 10 and self.chance(25) and not any(pads)
        round_up = math.ceil if ceil else math.floor
        after = []
        for i, (s, k) in enumerate(zip(space, kernel, strict=True)):
            size = round_up((s + pads[i] + pads[i + len(space)] - k) / stride) + 1
            if ceil and (size - 1) * stride >= s:
                return None  # onnx's shape inference counts a window that lies outside altogether
            after.append(size)
        attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": [stride] * len(space), "pads": pads}
        if ceil:
            attrs["ceil_mode"] = 1
        if op == "AveragePool" and self.chance(50):
            attrs["count_include_pad"] = 1
        return self.node(op, t, shape=(*t.shape[:2], *after), **attrs)

    def global_pool(self, t: Tensor) -> Tensor | None:
        if t.rank < 3:
            return None
        op = self.pick("GlobalAveragePool", "GlobalMaxPool")
        return self.node(op, t, shape=(*t.shape[:2], *(1,) * (t.rank - 2)))

    def reduce(self, t: Tensor) -> Tensor | None:
        keep = self.pick(0, 1)
        axes = sorted(self.random.sample(range(t.rank), self.pick(1, 1, min(2, t.rank))))
        if self.chance(50) and t.rank > 2:
            axes = list(range(2, t.rank))
        after = tuple(1 if i in axes else d for i, d in enumerate(t.shape) if keep or i not in axes)
        if len(after) < 2:
            return None
        if self.net.opset >= 11:
            axes = [a - t.rank if self.chance(30) else a for a in axes]
        op = self.pick("ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
        if self.net.opset >= (13 if op == "ReduceSum" else 18):
            return self.node(op, t, self.operand(t, *axes), shape=after, keepdims=keep)
        return self.node(op, t, shape=after, keepdims=keep, axes=axes)

    def negative(self, t: Tensor) -> Tensor | None:
        return self.node("Neg", t, shape=t.shape)

    def tile(self, t: Tensor) -> Tensor | None:
        repeats = [self.pick(1, 1, 1, 2) for _ in t.shape]
        after = tuple(d * times for d, times in zip(t.shape, repeats, strict=True))
        return self.node("Tile", t, self.operand(t, *repeats), shape=after)

    def several(self, t: Tensor) -> Tensor | None:
        """Terms of the same shape: tensors that there are, layers, constants."""
        op = self.pick("Sum", "Sum", "Mean", "Max", "Min")
        if self.net.opset < 8:
            return None
        parts: list[Tensor | str] = [t]
        for _ in range(self.pick(0, 1, 1, 2)):
            same = [o for o in self.tensors[-8:] if o is not t and o.elem == t.elem and o.rank == t.rank]
            fitting = [o for o in same if o.shape == t.shape]
            sources = [o for o in same if o.shape[0] == t.shape[0] and o.shape[2:] == t.shape[2:]]
            if self.chance(30):
                parts.append(self.weight(t, *self.pick(t.shape, (1, *t.shape[1:]), t.shape[1:])))
            elif sources and 3 <= t.rank <= 4 and self.chance(60):
                source = self.pick(*sources)
                w = self.weight(t, t.shape[1], source.shape[1], *(1,) * (t.rank - 2))
                parts.append(self.node("Conv", source, w, shape=t.shape))
            elif fitting:
                parts.append(self.pick(*fitting))
        self.random.shuffle(parts)
        return self.node(op, *parts, shape=t.shape)

    def twins(self, t: Tensor) -> Tensor | None:
        """A sum of layers of one tensor, of the tensor itself and of its normalizations."""
        kinds = [self.bn, self.bn, self.identity]
        kinds += [self.gemm, self.gemm] if t.rank == 2 else [self.conv, self.conv]
        kinds += [self.matmul, self.matmul]
        made = [(self.chance(85) and self.pick(*kinds)(t)) or t for _ in range(self.pick(2, 2, 3))]
        total, *others = made
        for other in others:
            if other.shape != total.shape or other.elem != total.elem or self.net.opset < 7:
                return total
            total = self.node(self.pick("Add", "Add", "Sub"), total, other, shape=total.shape)
            if self.chance(20):
                total = self.constant(total) or total
        return total

    def fan(self, t: Tensor) -> Tensor | None:
        """What is made of one tensor meets again."""
        ways = (self.identity, self.negative, self.constant, self.activation, self.bn)
        made = [(self.chance(60) and self.pick(*ways)(t)) or t for _ in range(self.pick(2, 2, 3))]
        if any(m.shape != t.shape or m.elem != t.elem for m in made) or self.net.opset < 8:
            return None
        return self.node(self.pick("Sum", "Mean", "Max", "Min"), *made, shape=t.shape)

    def activation(self, t: Tensor) -> Tensor | None:
        op = self.pick("Relu", "LeakyRelu", "PRelu", "PRelu")
        if op == "LeakyRelu":
            return self.node(op, t, shape=t.shape, alpha=self.pick(0.1, -0.5, 2.0))
        if op == "Relu":
            return self.node(op, t, shape=t.shape)
        shapes: list[Shape] = [(), (1,)]
        if t.rank >= 2:
            shapes += [(t.shape[1], *(1,) * (t.rank - 2))] * 3 + [
                (1, t.shape[1], *(1,) * (t.rank - 2)),
                t.shape[-1:],
            ]
        slope = self.weight(t, *self.pick(*shapes), low=0.25, high=2.0, sign=self.chance(20))
        return self.node("PRelu", t, slope, shape=t.shape)

    def clip(self, t: Tensor) -> Tensor | None:
        low, high = self.pick(-0.5, 0.0, -2.0), self.pick(0.75, 6.0, 2.0)
        if self.net.opset < 11:
            bounds = {k: v for k, v in {"min": low, "max": high}.items() if self.chance(80)}
            return self.node("Clip", t, shape=t.shape, **bounds)
        self.net.elem = t.elem
        operands = [self.net.init(np.array(v)) if self.chance(80) else "" for v in (low, high)]
        return self.node("Clip", t, *operands, shape=t.shape)

    def depth_to_space(self, t: Tensor) -> Tensor | None:
        if t.rank != 4 or t.elem == BFLOAT16:
            return None
        n, c, h, w = t.shape
        if c % 4 == 0 and self.chance(60):
            mode = {"mode": self.pick("DCR", "CRD")} if self.net.opset >= 11 else {}
            return self.node("DepthToSpace", t, shape=(n, c // 4, 2 * h, 2 * w), blocksize=2, **mode)
        if h % 2 or w % 2:
            return None
        return self.node("SpaceToDepth", t, shape=(n, 4 * c, h // 2, w // 2), blocksize=2)

    def cast(self, t: Tensor) -> Tensor | None:
        targets = [FLOAT, FLOAT, DOUBLE, FLOAT16, *([BFLOAT16] if self.net.opset >= 15 else [])]
        to = self.pick(*targets)
        return self.node("Cast", t, shape=t.shape, elem=to, to=to)

    def expand(self, t: Tensor) -> Tensor | None:
        if self.net.opset < 8:
            return None
        after = [self.pick(2, 3) if d == 1 and self.chance(60) else d for d in t.shape]
        if t.rank < 5 and self.chance(25):
            after = [self.pick(1, 2), *after]
        target = [
            1 if a == d and self.chance(40) else a for a, d in zip(after[::-1], t.shape[::-1], strict=False)
        ]
        target = [*target, *after[: len(after) - t.rank][::-1]][::-1]
        return self.node("Expand", t, self.ints(*target), shape=tuple(after))

    def constant(self, t: Tensor) -> Tensor | None:
        op = self.pick("Add", "Sub", "Mul", "Div")
        shapes: list[Shape] = [(), (1,), t.shape[-1:], t.shape]
        if t.rank >= 2:
            shapes += [(t.shape[1], *(1,) * (t.rank - 2))] * 4 + [(1, t.shape[1], *(1,) * (t.rank - 2))]
        c = self.weight(t, *self.pick(*shapes))
        first = op != "Div" and self.chance(30)
        return self.node(op, *((c, t) if first else (t, c)), shape=t.shape)

    def join(self, t: Tensor) -> Tensor | None:
        """Add or Sub of another tensor of the same or of a smaller, broadcastable shape."""
        fitting = [
            o for o in self.tensors
            if o.elem == t.elem and o.rank == t.rank
            and all(a in (1, b) for a, b in zip(o.shape, t.shape, strict=True))
        ]  # fmt: skip
        other: Tensor = self.pick(*fitting[-5:])
        if self.chance(60):
            same = [
                s for s in self.tensors[-8:]
                if s is not t and 3 <= s.rank <= 4 and s.rank == t.rank and s.elem == t.elem
                and s.shape[0] == t.shape[0] and s.shape[2:] == t.shape[2:]
            ]  # fmt: skip
            if same:
                source = self.pick(*same)
                w = self.weight(t, t.shape[1], source.shape[1], *(1,) * (t.rank - 2))
                other = self.node("Conv", source, w, shape=t.shape)
        pair = (t, other) if self.chance(60) else (other, t)
        return self.node(self.pick("Add", "Add", "Sub"), *pair, shape=t.shape)

    def through(self, t: Tensor) -> Tensor | None:
        steps: tuple[Callable[[Tensor], Tensor | None], ...] = (
            self.identity, self.transpose, self.there_and_back, self.reshape, self.shuffle, self.shuffle,
            self.shuffle, self.spelled_out, self.focus, self.parts, self.parts, self.branches, self.flatten,
            self.unsqueeze, self.squeeze, self.slice, self.split, self.gather, self.concat, self.concat,
            self.pad, self.resize, self.resize, self.depth_to_space, self.pool, self.pool, self.global_pool,
            self.reduce, self.activation,
            self.activation, self.clip, self.depth_to_space, self.cast, self.expand, self.constant,
            self.constant, self.join, self.join, self.negative, self.tile, self.several, self.several,
            self.fan, self.twins, self.twins,
        )  # fmt: skip
        chosen: Callable[[Tensor], Tensor | None] = self.pick(*steps)
        return chosen(t)

    # --- the model -----------------------------------------------------------------------------------------

    def grown(self) -> ModelProto:
        self._inputs()
        for _ in range(self.pick(1, 2, 2)):
            self._stem(self.pick(self.tensors[-1], self.tensors[-1], *self.tensors))
        read = {name for node in self.net.nodes for name in node.input}
        inputs = {info.name for info in self.net.inputs}
        for tensor in self.tensors:
            if tensor.name not in inputs and (tensor.name not in read or self.chance(3)):
                shape = (None,) * tensor.rank if self.dims else tensor.shape
                self.net.output(tensor.name, elem=tensor.elem, shape=shape)
        if not self.net.outputs:
            first = self.tensors[0]
            self.net.output(
                self.net.node("Identity", first.name), elem=first.elem, shape=(None,) * first.rank
            )
        return self.net.model()

    def _inputs(self) -> None:
        elem = self.pick(FLOAT, FLOAT, FLOAT, FLOAT, FLOAT16, DOUBLE)
        shape: Shape = self.pick(*INPUTS)
        declared: list[int | str] = list(shape)
        if self.chance(40):
            for i in self.pick((0,), (0,), (0, *range(2, len(shape)))):
                declared[i] = f"d{i}"
                self.dims[f"d{i}"] = shape[i]
        for i in range(self.pick(1, 1, 2)):
            self.tensor(self.net.input(f"x{i}", *declared, elem=elem), shape, elem)

    def _stem(self, t: Tensor) -> None:
        """Weights, a normalization and weights, with operators between that may pass a map on."""
        steps = [self.pick(*[self.layer] * 7, self.normalization, self.identity, self.identity)]
        steps += [self.through] * self.pick(0, 1, 1, 2, 3)
        steps += [self.bn]
        steps += [self.through] * self.pick(0, 1, 1, 2, 3)
        steps += [self.normalization] if self.chance(15) else []
        steps += [self.pick(*[self.layer] * 9, self.conditional)] if self.chance(60) else []
        steps += [self.bn] if self.chance(20) else []
        for step in steps:
            t = self._step(step, t)

    def _step(self, grow: Callable[[Tensor], Tensor | None], t: Tensor) -> Tensor:
        """One more operator, unless it does not fit or grows too large."""
        nodes, known, stored = len(self.net.nodes), len(self.tensors), len(self.net.initializers)
        pending = len(self.outputs)
        found = grow(t)
        grown = self.tensors[known:]
        if found is None or any(math.prod(g.shape) > LARGEST for g in grown) or len(found.shape) < 2:
            del (
                self.net.nodes[nodes:],
                self.tensors[known:],
                self.net.initializers[stored:],
                self.outputs[pending:],
            )
            return t
        return found


def model(seed: int) -> tuple[ModelProto, dict[str, int]]:
    """The model of a seed, and the sizes of its named dimensions."""
    grower = Grower(seed)
    return grower.grown(), grower.dims
