"""Compiling graphs and nodes: from protos to `Program`s.

A node is evaluated by, in this order: the model's own function of that name, the control flow below,
bnfold's table of operators, onnx's reference operators, the function that the operator's schema defines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import defs, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun, RuntimeContextError
from onnx.reference.ops import load_op
from onnx.reference.ops.aionnxml import load_op as load_ml_op

from bnfold.verification.truth.call import Call, Operator, TruthUnavailableError
from bnfold.verification.truth.program import Evaluate, Hooks, Program, Scope, Step
from bnfold.verification.truth.table import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_DEFAULT_DOMAINS = ("", "ai.onnx")
_SCAN_WITHOUT_BATCH = 9
# onnxruntime had those of 4 and 16 bits before ONNX did, and its quantizer writes them for older opsets.
_QUANTIZERS = frozenset({("com.microsoft", "QuantizeLinear"), ("com.microsoft", "DequantizeLinear")})
_QUANTIZERS_SINCE = 21  # the opset that has the same
# Scatter-9 was deprecated for an operator that does the same.
_RENAMED = MappingProxyType({"Scatter": "ScatterElements"})


@dataclass(frozen=True)
class Surroundings:
    """What a graph needs to know beyond itself.

    Attributes:
        opsets: version by domain.
        functions: the model's functions by domain, name and overload.
        folder: where external data lies.
        bound: attributes of the function call that the graph is a body of.
    """

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], onnx.FunctionProto]
    folder: Path | None
    bound: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)


def compile_graph(graph: onnx.GraphProto, around: Surroundings) -> Program:
    """Compile a graph.

    Raises:
        TruthUnavailableError: it holds an operator nobody can evaluate.
    """
    weights: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {t.name: t for t in graph.initializer}
    weights |= {t.values.name: t for t in graph.sparse_initializer}
    outputs = tuple(value.name for value in graph.output)
    return Program(
        inputs=tuple(value.name for value in graph.input),
        outputs=outputs,
        weights=MappingProxyType(weights),
        steps=_steps(graph.node, outputs, around),
        folder=around.folder,
    )


def _steps(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], around: Surroundings) -> tuple[Step, ...]:
    outside = [tuple(dict.fromkeys(captured(node))) for node in nodes]
    needed = set(outputs)
    steps = []
    for node, names in zip(reversed(nodes), reversed(outside), strict=True):
        reads = {name for name in (*node.input, *names) if name}
        steps.append(
            Step(
                label=f"{node.op_type} {node.name!r}"
                if node.name
                else f"{node.op_type} -> {node.output[0]!r}",
                operator=node.op_type,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                captured=names,
                dead=tuple((reads | set(node.output)) - needed),
                evaluate=_evaluate(node, around),
            )
        )
        needed |= reads
    return tuple(reversed(steps))


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that graphs nested in a node read from outside."""
    for graph in nested_graphs(node):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {tensor.values.name for tensor in graph.sparse_initializer}
        for inner in graph.node:
            yield from (name for name in (*inner.input, *captured(inner)) if name and name not in own)
            own.update(inner.output)
        yield from (value.name for value in graph.output if value.name not in own)


def nested_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Graphs that are attributes of the node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _evaluate(node: onnx.NodeProto, around: Surroundings) -> Evaluate:
    bound = _bind(node, around.bound)
    domain = "" if bound.domain in _DEFAULT_DOMAINS else bound.domain
    function = around.functions.get((node.domain, node.op_type, node.overload))
    if function is not None:
        return _call(bound, function, _function_opsets(function, around), around)
    version = around.opsets.get(domain, around.opsets.get("ai.onnx", 1) if domain == "" else 1)
    if (domain, bound.op_type) in _QUANTIZERS:
        domain, version = "", _QUANTIZERS_SINCE
    if domain == "" and bound.op_type in _CONTROL_FLOW:
        return _CONTROL_FLOW[bound.op_type](bound, around, version)
    if domain == "" and bound.op_type in OPERATORS:
        return _own(bound, OPERATORS[bound.op_type], version)
    return _foreign(bound, domain, version, around)


def _bind(node: onnx.NodeProto, bound: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """The node with references to its function's attributes replaced by what the call gives for them."""
    if not any(attribute.ref_attr_name for attribute in node.attribute):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copy.attribute.append(attribute)
        elif attribute.ref_attr_name in bound:
            value = onnx.AttributeProto()
            value.CopyFrom(bound[attribute.ref_attr_name])
            value.name = attribute.name
            copy.attribute.append(value)
    return copy


def _own(node: onnx.NodeProto, operator: Operator, version: int) -> Evaluate:
    attributes = {attribute.name: _python(attribute) for attribute in node.attribute}
    outputs = max((index + 1 for index, name in enumerate(node.output) if name), default=1)

    def evaluate(operands: Sequence[Any], _scope: Scope, _hooks: Hooks) -> Sequence[Any]:
        return operator(Call(operands, attributes, version, outputs))

    return evaluate


def _python(attribute: onnx.AttributeProto) -> Any:  # noqa: ANN401 - the type is the attribute's
    if attribute.type == onnx.AttributeProto.TENSOR:
        return onnx.numpy_helper.to_array(attribute.t)
    return helper.get_attribute_value(attribute)


def _foreign(node: onnx.NodeProto, domain: str, version: int, around: Surroundings) -> Evaluate:
    """An operator of onnx's reference, or the function of its schema."""
    if any(True for _ in nested_graphs(node)):
        return _refuse(f"{node.op_type} has a nested graph that only onnxruntime runs")
    try:
        if domain == "":
            name = _RENAMED.get(node.op_type, node.op_type)
            reference = load_op(domain, name, version, evaluator_cls=ReferenceEvaluator)
        elif domain == "ai.onnx.ml":
            reference = load_ml_op(domain, node.op_type, version)
        else:
            return _refuse(f"nothing but a runtime defines operators of domain {domain!r}")
    except RuntimeContextError:
        return _typed_function(node, domain, version, around)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        return _refuse(str(error).splitlines()[0])
    if isinstance(reference, type):
        return _reference(node, reference, around)
    schema = defs.get_schema(node.op_type, version, domain)
    body = schema.function_body
    return _call(node, body, _function_opsets(body, around), around, schema)


def _refuse(reason: str) -> Evaluate:
    def evaluate(_operands: Sequence[Any], _scope: Scope, _hooks: Hooks) -> Sequence[Any]:
        raise TruthUnavailableError(reason)

    return evaluate


def _reference(node: onnx.NodeProto, reference: type[OpRun], around: Surroundings) -> Evaluate:
    parameters = {
        "log": lambda *_: None,
        "opsets": dict(around.opsets),
        "verbose": 0,
        "new_ops": None,
        "existing_functions": {},
        "evaluator_cls": ReferenceEvaluator,
    }
    instance = reference(node, parameters)

    def evaluate(operands: Sequence[Any], _scope: Scope, _hooks: Hooks) -> Sequence[Any]:
        results: Sequence[Any] = instance.run(*operands)  # type: ignore[no-untyped-call]  # onnx's
        return results

    return evaluate


def _typed_function(node: onnx.NodeProto, domain: str, version: int, around: Surroundings) -> Evaluate:
    """A schema function that depends on the operands' types, which are known when it runs."""
    schema = defs.get_schema(node.op_type, version, domain)

    def evaluate(operands: Sequence[Any], scope: Scope, hooks: Hooks) -> Sequence[Any]:
        types = [
            b""
            if value is None
            else helper.make_tensor_type_proto(
                helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            ).SerializeToString()
            for value in operands
        ]
        body = onnx.FunctionProto()
        text = schema.get_context_dependent_function(node.SerializeToString(), types)  # type: ignore[attr-defined]  # missing in onnx's stub
        body.ParseFromString(text)
        run = _call(node, body, _function_opsets(body, around), around, schema)
        return run(operands, scope, hooks)

    return evaluate


def _function_opsets(function: onnx.FunctionProto, around: Surroundings) -> Mapping[str, int]:
    own = {entry.domain: entry.version for entry in function.opset_import}
    return {**around.opsets, **own}


def _call(
    node: onnx.NodeProto,
    function: onnx.FunctionProto,
    opsets: Mapping[str, int],
    around: Surroundings,
    schema: defs.OpSchema | None = None,
) -> Evaluate:
    bound = {attribute.name: attribute for attribute in function.attribute_proto}
    if schema is not None:
        bound |= {
            name: entry.default_value
            for name, entry in schema.attributes.items()
            if entry.default_value.type != onnx.AttributeProto.UNDEFINED
        }
    bound |= {attribute.name: attribute for attribute in node.attribute}
    body = Program(
        inputs=tuple(function.input),
        outputs=tuple(function.output),
        weights={},
        steps=_steps(function.node, function.output, replace(around, opsets=opsets, bound=bound)),
        folder=around.folder,
    )

    def evaluate(operands: Sequence[Any], _scope: Scope, hooks: Hooks) -> Sequence[Any]:
        missing = len(body.inputs) - len(operands)
        feeds = dict(zip(body.inputs, [*operands, *[None] * missing], strict=True))
        return body.run(feeds, None, hooks)

    return evaluate


def _nested(node: onnx.NodeProto, name: str, around: Surroundings) -> Program:
    for attribute in node.attribute:
        if attribute.name == name:
            return compile_graph(attribute.g, around)
    raise TruthUnavailableError(f"{node.op_type} {node.name!r} has no {name}")


def _if(node: onnx.NodeProto, around: Surroundings, _version: int) -> Evaluate:
    """If-21."""
    yes, no = _nested(node, "then_branch", around), _nested(node, "else_branch", around)

    def evaluate(operands: Sequence[Any], scope: Scope, hooks: Hooks) -> Sequence[Any]:
        return (yes if bool(operands[0].reshape(-1)[0]) else no).run({}, scope, hooks)

    return evaluate


def _loop(node: onnx.NodeProto, around: Surroundings, _version: int) -> Evaluate:
    """Loop-21: `(trip count, condition, carried...) -> (carried..., one stack per scan output)`."""
    body = _nested(node, "body", around)
    carried = len(body.inputs) - 2

    def evaluate(operands: Sequence[Any], scope: Scope, hooks: Hooks) -> Sequence[Any]:
        limit = None if operands[0] is None else int(operands[0].reshape(-1)[0])
        condition = operands[1] if len(operands) > 1 else None
        going = condition is None or bool(condition.reshape(-1)[0])
        state = list(operands[2:])
        scans: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - carried)]
        count = 0
        while going and (limit is None or count < limit):
            values = [np.array(count, dtype=np.int64), np.array(going), *state]
            condition, *rest = body.run(dict(zip(body.inputs, values, strict=True)), scope, hooks)
            going, state = bool(condition.reshape(-1)[0]), rest[:carried]
            for scan, value in zip(scans, rest[carried:], strict=True):
                scan.append(value)
            count += 1
        return [*state, *(np.stack(scan) if scan else np.empty((0,)) for scan in scans)]

    return evaluate


def _scan(node: onnx.NodeProto, around: Surroundings, version: int) -> Evaluate:
    """Scan-9 and later: `(state..., scanned...) -> (state..., one stack per scan output)`."""
    if version < _SCAN_WITHOUT_BATCH:
        return _refuse("Scan of opset 8 has a batch axis that no later version has")
    body = _nested(node, "body", around)
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    scanned = int(given["num_scan_inputs"])
    states = len(body.inputs) - scanned
    produced = len(body.outputs) - states
    in_axes = given.get("scan_input_axes", [0] * scanned)
    in_directions = given.get("scan_input_directions", [0] * scanned)
    out_axes = given.get("scan_output_axes", [0] * produced)
    out_directions = given.get("scan_output_directions", [0] * produced)

    def evaluate(operands: Sequence[Any], scope: Scope, hooks: Hooks) -> Sequence[Any]:
        state = list(operands[:states])
        moved = [np.moveaxis(x, axis, 0) for x, axis in zip(operands[states:], in_axes, strict=True)]
        moved = [x[::-1] if back else x for x, back in zip(moved, in_directions, strict=True)]
        scans: list[list[Any]] = [[] for _ in range(produced)]
        for items in zip(*moved, strict=True):
            results = body.run(dict(zip(body.inputs, [*state, *items], strict=True)), scope, hooks)
            state = results[:states]
            for scan, value in zip(scans, results[states:], strict=True):
                scan.append(value)
        stacks = [scan[::-1] if back else scan for scan, back in zip(scans, out_directions, strict=True)]
        return [
            *state,
            *(
                np.stack(s, axis=axis) if s else np.empty((0,))
                for s, axis in zip(stacks, out_axes, strict=True)
            ),
        ]

    return evaluate


_CONTROL_FLOW = MappingProxyType({"If": _if, "Loop": _loop, "Scan": _scan})
