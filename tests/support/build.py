"""Small ONNX models, a line a node.

    net = Net(opset=17)
    x = net.input("x", 1, 3, 6, 6)
    x = net.conv(x, 3, 4, name="conv")
    net.output(net.bn(x, 4, name="bn"))
    model = net.model()

Every method that adds a node returns the name of its (first) output. Weights are drawn from a seeded
generator and are numbers of the model's own type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = NDArray[Any]
Dim = int | str | None
Attribute = Any  # an attribute of a node, or an option: of any type
Numbers = Any  # whatever NumPy takes

FLOAT, FLOAT16, BFLOAT16, DOUBLE = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
)
NEWEST = onnx.defs.onnx_opset_version()

PACKED = (TensorProto.INT4, TensorProto.UINT4)  # two numbers share a byte

# Where a constant can stand; see `Net.const`.
PLACES = (
    "raw", "typed", "sparse", "sparse_node", "node", "floats", "identity", "identity_twice", "cast",
    "castlike", "transpose", "reshape", "unsqueeze", "mul", "add", "gather", "concat", "expand", "slice",
)  # fmt: skip


def tensor(array: Array, name: str, elem_type: int = FLOAT, *, typed: bool = False) -> TensorProto:
    """A TensorProto with its values in `raw_data`, or in the typed field."""
    kind = helper.tensor_dtype_to_np_dtype(elem_type)
    stored = np.asarray(array).astype(kind)
    if elem_type in PACKED:
        return onnx.numpy_helper.from_array(stored, name)
    if not typed:
        return helper.make_tensor(name, elem_type, stored.shape, stored.tobytes(), raw=True)
    return helper.make_tensor(name, elem_type, stored.shape, stored.astype(np.float64).reshape(-1).tolist())


def sparse(array: Array, name: str, elem_type: int = FLOAT) -> onnx.SparseTensorProto:
    """The same numbers as a sparse tensor with linear indices."""
    flat = np.asarray(array).reshape(-1)
    (where,) = np.nonzero(flat)
    return helper.make_sparse_tensor(
        tensor(flat[where], name, elem_type),
        helper.make_tensor(name + "_indices", TensorProto.INT64, [len(where)], where.astype(np.int64)),
        list(np.asarray(array).shape),
    )


class Net:
    """A graph under construction: the main one, or the body of an If, Loop, Scan or function."""

    def __init__(
        self, opset: int = 17, *, elem: int = FLOAT, ir: int | None = None, seed: int = 0, prefix: str = ""
    ) -> None:
        self.opset = opset
        self.elem = elem
        oldest = 3 if opset < 9 else helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
        self.ir = oldest if ir is None else ir
        self.rng = np.random.default_rng(seed)
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.initializers: list[TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.infos: list[ValueInfoProto] = []
        self.functions: list[FunctionProto] = []
        self._count = 0

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"{self.prefix}{hint}_{self._count}"

    # --- tensors -------------------------------------------------------------------------------------------

    def draw(self, *shape: int, low: float | None = None, high: float = 1.0) -> Array:
        """Numbers of the model's type: normal, or uniform between `low` and `high`."""
        drawn = self.rng.normal(size=shape) if low is None else self.rng.uniform(low, high, shape)
        return drawn.astype(helper.tensor_dtype_to_np_dtype(self.elem)).astype(np.float64)

    def input(self, name: str, *shape: Dim, elem: int | None = None) -> str:
        self.inputs.append(
            helper.make_tensor_value_info(name, self.elem if elem is None else elem, list(shape))
        )
        return name

    def output(self, *names: str, elem: int | None = None, shape: Sequence[Dim] | None = None) -> None:
        for name in names:
            self.outputs.append(
                helper.make_tensor_value_info(name, self.elem if elem is None else elem, shape)
            )

    def init(
        self, array: Numbers, name: str | None = None, elem: int | None = None, *, typed: bool = False
    ) -> str:
        """An initializer."""
        name = self.fresh("w") if name is None else name
        self.initializers.append(
            tensor(np.asarray(array), name, self.elem if elem is None else elem, typed=typed)
        )
        return name

    def ints(self, *values: int, name: str | None = None) -> str:
        return self.init(np.array(values, np.int64), name, TensorProto.INT64)

    def const(  # noqa: C901, PLR0912 - a table of places, one or two lines each
        self, array: Numbers, place: str = "raw", *, name: str | None = None, elem: int | None = None
    ) -> str:
        """A constant that stands in one of `PLACES`."""
        array = np.asarray(array)
        elem = self.elem if elem is None else elem
        name = self.fresh("w") if name is None else name
        match place:
            case "raw" | "typed":
                return self.init(array, name, elem, typed=place == "typed")
            case "sparse":
                self.sparse.append(sparse(array, name, elem))
                return name
            case "sparse_node":
                return self.node("Constant", out=name, sparse_value=sparse(array, name + "_values", elem))
            case "node":
                return self.node("Constant", out=name, value=tensor(array, name + "_value", elem))
            case "floats":
                flat = self.node("Constant", value_floats=[float(v) for v in array.reshape(-1)])
                return self.node("Reshape", flat, self.ints(*array.shape), out=name)
            case "identity":
                return self.node("Identity", self.init(array, elem=elem), out=name)
            case "identity_twice":
                return self.node("Identity", self.node("Identity", self.init(array, elem=elem)), out=name)
            case "cast":
                return self.node("Cast", self.init(array, elem=DOUBLE), out=name, to=elem)
            case "castlike":
                return self.node(
                    "CastLike", self.init(array, elem=DOUBLE), self.init(0.0, elem=elem), out=name
                )
            case "transpose":
                perm = list(range(array.ndim))[::-1]
                return self.node(
                    "Transpose", self.init(array.transpose(perm), elem=elem), out=name, perm=perm
                )
            case "reshape":
                return self.node(
                    "Reshape", self.init(array.reshape(-1), elem=elem), self.ints(*array.shape), out=name
                )
            case "unsqueeze":
                return self.node("Squeeze", self.init(array[None], elem=elem), self.ints(0), out=name)
            case "mul":
                return self.node("Mul", self.init(array / 2, elem=elem), self.init(2.0, elem=elem), out=name)
            case "add":
                return self.node("Add", self.init(array, elem=elem), self.init(0.0, elem=elem), out=name)
            case "gather":
                stacked = np.stack([array * 3, array])
                index = self.init(np.int64(1), elem=TensorProto.INT64)
                return self.node("Gather", self.init(stacked, elem=elem), index, out=name, axis=0)
            case "concat":
                first, second = np.split(array, [1], axis=0)
                return self.node(
                    "Concat", self.init(first, elem=elem), self.init(second, elem=elem), out=name, axis=0
                )
            case "expand":
                return self.node("Expand", self.init(array, elem=elem), self.ints(*array.shape), out=name)
            case "slice":
                longer = np.concatenate([array, array[:1]])
                size = array.shape[0]
                return self.node(
                    "Slice",
                    self.init(longer, elem=elem),
                    self.ints(0),
                    self.ints(size),
                    self.ints(0),
                    out=name,
                )
        raise ValueError(place)

    # --- nodes ---------------------------------------------------------------------------------------------

    def node(
        self,
        op: str,
        *inputs: str,
        out: str | Sequence[str] | None = None,
        name: str | None = None,
        domain: str = "",
        **attrs: Attribute,
    ) -> str:
        """Adds a node; its name is the operator's and a number unless given (`""` leaves it out)."""
        outputs = [self.fresh(op.lower())] if out is None else [out] if isinstance(out, str) else list(out)
        name = self.fresh("n_" + op.lower()) if name is None else name
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name or None, domain=domain, **attrs))
        return outputs[0]

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        kernel: Sequence[int] = (3, 3),
        *,
        bias: bool | str = True,
        weight: str | None = None,
        name: str | None = None,
        out: str | None = None,
        **attrs: Attribute,
    ) -> str:
        """Conv; `bias` is one to draw, none, or a tensor's name (also the empty one)."""
        w = self.init(self.draw(cout, cin // attrs.get("group", 1), *kernel)) if weight is None else weight
        b = [bias] if isinstance(bias, str) else [self.init(self.draw(cout))] if bias else []
        return self.node("Conv", x, w, *b, out=out, name=name, **attrs)

    def bn(
        self,
        x: str,
        channels: int,
        *,
        stats: Mapping[str, Any] | None = None,
        name: str | None = None,
        out: str | Sequence[str] | None = None,
        **attrs: Attribute,
    ) -> str:
        """A BatchNormalization at inference, as this opset writes one.

        `stats` replaces scale, bias, mean or var by an array or by the name of a tensor. About half of the
        drawn scales are negative.
        """
        given = dict(stats or {})
        drawn = {
            "scale": self.draw(channels),
            "bias": self.draw(channels),
            "mean": self.draw(channels),
            "var": self.draw(channels, low=0.25, high=2.0),
        }
        parameters = [
            given[key] if isinstance(given.get(key), str) else self.init(given.get(key, value))
            for key, value in drawn.items()
        ]
        if self.opset < 7:
            attrs.setdefault("is_test", 1)
        if self.opset < 6:
            attrs.setdefault("consumed_inputs", [0, 0, 0, 1, 1])
        return self.node("BatchNormalization", x, *parameters, out=out, name=name, **attrs)

    # --- results -------------------------------------------------------------------------------------------

    def graph(self, name: str = "g") -> GraphProto:
        inputs = list(self.inputs)
        if self.ir < 4:
            listed = {i.name for i in inputs}
            inputs += [
                helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
                for t in self.initializers
                if t.name not in listed
            ]
        return helper.make_graph(
            self.nodes,
            name,
            inputs,
            self.outputs,
            self.initializers,
            value_info=self.infos,
            sparse_initializer=self.sparse,
        )

    def model(self, domains: Mapping[str, int] | None = None) -> ModelProto:
        """The model; `domains` are further operator sets."""
        imports = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(d, v) for d, v in (domains or {}).items()),
        ]
        model = helper.make_model(
            self.graph(), opset_imports=imports, ir_version=self.ir, functions=self.functions
        )
        if any(not o.type.tensor_type.HasField("shape") for o in model.graph.output):
            inferred = onnx.shape_inference.infer_shapes(model).graph.output
            del model.graph.output[:]
            model.graph.output.extend(inferred)
        return model


def feeds(model: ModelProto, seed: int = 1, **dims: int) -> dict[str, Array]:
    """Seeded values for every input without an initializer; a nameless or unknown dimension is 2."""
    rng = np.random.default_rng(seed)
    stored = {t.name for t in model.graph.initializer}
    drawn: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in stored:
            continue
        kind = info.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param or "", 2) for d in kind.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if kind.elem_type == TensorProto.BOOL:
            drawn[info.name] = rng.integers(0, 2, shape).astype(bool)
        elif dtype.kind in "iu":
            drawn[info.name] = rng.integers(0, 3, shape).astype(dtype)
        else:
            drawn[info.name] = rng.normal(size=shape).astype(dtype)
    return drawn
