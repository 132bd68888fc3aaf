"""A model with its edits applied, on the level of the file's own bytes.

The skeleton says what each record is, the wire says where it lies: both are walked side by side. Records
that nothing touches are passed on as ranges of the source; around a change only the length prefixes of the
messages that hold it are new.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import onnx

from bnfold.model.edits import MAIN, GraphEdits, Scope
from bnfold.model.outline import (
    DATA_LOCATION,
    EXTERNAL_DATA,
    PAYLOAD_FIELDS,
    RAW_DATA,
    Kind,
    children,
    location,
)
from bnfold.model.store import Span
from bnfold.model.wire import Range, Stream, message, number, records, tag_of, text, varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.message import (  # type: ignore[import-untyped]  # protobuf ships no stubs
        Message,
    )

    from bnfold.model.edits import ModelEdits, NewTensor
    from bnfold.model.store import ModelFile
    from bnfold.model.wire import Buffer, Piece, Record

CHUNK = 1 << 20
"""How many bytes are read and written at a time."""

_SMALL = 1024
_COARSE_FROM, _COARSE, _FINE = 1 << 20, 64 << 10, 64

_NODE, _INITIALIZER, _SPARSE, _GRAPH_INPUT = tag_of(1), tag_of(5), tag_of(15), tag_of(11)
_NOTES = frozenset({tag_of(13), tag_of(14)})  # value_info, quantization_annotation
# dims, data_type, segment and name: what a new tensor says anew; doc_string and the rest stay the old one's.
_TENSOR_HEAD = frozenset({1, 2, 3, 8})
_EXTERNAL_FIELDS = frozenset({EXTERNAL_DATA >> 3, DATA_LOCATION >> 3})

Payload: TypeAlias = "Span | NewTensor"


@dataclass(slots=True)
class DataFile:
    """The layout of the external data file of a result.

    Offsets are multiples of 64 KiB for tensors above 1 MiB, so that they can be mapped by themselves on any
    system (ONNX, "External Data": offset), and of 64 bytes for others. A payload that several tensors share
    is there once.

    Attributes:
        name: what the tensors give as its location.
        parts: (offset, payload), in the order of the file.
        nbytes: its size so far.
    """

    name: bytes
    parts: list[tuple[int, Payload]] = field(default_factory=list)
    nbytes: int = 0
    _placed: dict[Span, int] = field(default_factory=dict)

    def place(self, payload: Payload) -> int:
        """The offset at which a payload goes."""
        if isinstance(payload, Span) and payload in self._placed:
            return self._placed[payload]
        step = _COARSE if payload.nbytes > _COARSE_FROM else _FINE
        offset = -(-self.nbytes // step) * step
        if isinstance(payload, Span):
            self._placed[payload] = offset
        self.parts.append((offset, payload))
        self.nbytes = offset + payload.nbytes
        return offset


def patched(
    model: ModelFile, edits: ModelEdits, data: DataFile | None, *, refers: bool = False
) -> list[Piece]:
    """The pieces that make the edited model.

    Args:
        model: the opened model.
        edits: what changes.
        data: receives the external tensors; None to have them in the model itself.
        refers: leave the external tensors where they are instead.

    Raises:
        ValueError: the edits do not fit the model: that is a bug of their author.
    """
    return _Patcher(model, edits, data, refers=refers).model_pieces()


def keep(edits: ModelEdits) -> bool:
    """Whether edits change nothing."""
    untouched = not edits.metadata and not edits.functions_removed
    return untouched and all(edit == GraphEdits(edit.scope) for edit in edits.graphs)


def span_chunks(model: ModelFile, span: Span) -> Iterator[memoryview]:
    """The bytes of a span, in pieces whose memory is given back behind them."""
    view = model.view(span)
    for start in range(0, span.nbytes, CHUNK):
        yield view[start : start + CHUNK].data
        model.drop(Span(span.file, span.offset + start, min(CHUNK, span.nbytes - start)))


class _Splice:
    """Collects the pieces of one message while its records go by."""

    __slots__ = ("done", "pieces")

    def __init__(self, start: int) -> None:
        self.pieces: list[Piece] = []
        self.done = start

    def put(self, begin: int, end: int, pieces: list[Piece]) -> None:
        """Take the bytes from `begin` to `end` out, and put pieces there."""
        if begin > self.done:
            self.pieces.append(Range(self.done, begin))
        self.pieces += pieces
        self.done = end

    def finish(self, stop: int) -> list[Piece]:
        self.put(stop, stop, [])
        return self.pieces


class _Patcher:
    def __init__(self, model: ModelFile, edits: ModelEdits, data: DataFile | None, *, refers: bool) -> None:
        self.model = model
        self.data = data
        self.refers = refers
        self.metadata = edits.metadata
        self.removed = edits.functions_removed
        self.edits: dict[Scope, GraphEdits] = {}
        self.below: dict[Scope, set[int]] = defaultdict(set)
        for edit in edits.graphs:
            if edit.scope in self.edits:
                raise ValueError(f"two sets of edits for {edit.scope}")
            self.edits[edit.scope] = edit
            bodies = edit.scope.bodies
            for depth, body in enumerate(bodies):
                self.below[Scope(edit.scope.function, bodies[:depth])].add(body.node)
        self.reached: set[Scope] = set()

    def model_pieces(self) -> list[Piece]:
        proto, buffer = self.model.proto, self.model.buffer
        splice = _Splice(0)
        functions = trainings = 0
        metadata = dict(self.metadata)
        for record in children(buffer, Kind.MODEL, 0, len(buffer)):
            tag, begin, _, end = record
            if tag == tag_of(7):
                self.patch(splice, record, self._graph(buffer, record, proto.graph, MAIN))
            elif tag == tag_of(25):
                if functions in self.removed:
                    splice.put(begin, end, [])
                else:
                    function = proto.functions[functions]
                    self.patch(splice, record, self._function(record, function, Scope(functions)))
                functions += 1
            elif tag == tag_of(20):
                self.patch(splice, record, self._training(record, proto.training_info[trainings]))
                trainings += 1
            elif tag == tag_of(14) and metadata:
                entry = onnx.StringStringEntryProto.FromString(buffer[record[2] : end])
                if entry.key in self.metadata:
                    value = metadata.pop(entry.key, None)
                    splice.put(begin, end, [] if value is None else [_entry(14, entry.key, value)])
        splice.put(len(buffer), len(buffer), [_entry(14, key, value) for key, value in metadata.items()])
        missing = self.edits.keys() - self.reached
        if missing:
            raise ValueError(f"edits for scopes that are not there, or replaced: {sorted(map(str, missing))}")
        return splice.finish(len(buffer))

    def _training(self, record: Record, training: onnx.TrainingInfoProto) -> list[Piece]:
        if not self.model.external:
            return [Range(record[2], record[3])]
        buffer = self.model.buffer
        splice = _Splice(record[2])
        for child in children(buffer, Kind.TRAINING, record[2], record[3]):
            if child[0] == tag_of(1):
                self.patch(splice, child, self._graph(buffer, child, training.initialization, None))
            elif child[0] == tag_of(2):
                self.patch(splice, child, self._graph(buffer, child, training.algorithm, None))
        return splice.finish(record[3])

    def _function(self, record: Record, function: onnx.FunctionProto, scope: Scope) -> list[Piece]:
        buffer = self.model.buffer
        edit = self._edit(scope)
        if edit.initializers or edit.added or edit.inputs_removed or edit.inputs_added:
            raise ValueError(f"{scope}: a function has no initializers, and its inputs are its signature")
        if self._untouched(scope):
            return [Range(record[2], record[3])]
        splice = _Splice(record[2])
        nodes = _Nodes(self, edit, scope, function.node, 7)
        defaults = 0
        for child in children(buffer, Kind.FUNCTION, record[2], record[3]):
            tag = child[0]
            if tag == tag_of(7):
                nodes.pass_by(splice, buffer, child)
            elif tag == tag_of(11):
                default = function.attribute_proto[defaults]
                defaults += 1
                self.patch(splice, child, self._attribute(buffer, child, default, None))
            elif tag == tag_of(12):
                _drop_note(splice, buffer, child, edit)
        nodes.finish(splice, record[3])
        return splice.finish(record[3])

    def _graph(
        self, buffer: Buffer, record: Record, graph: onnx.GraphProto, scope: Scope | None
    ) -> list[Piece]:
        """The payload of a graph's record; `scope` is None where no edits can be, only external tensors."""
        edit = self._edit(scope)
        if self._untouched(scope) and buffer is self.model.buffer:
            return [Range(record[2], record[3])]
        return _GraphRecords(self, buffer, graph, edit, scope).patched(record)

    def _edit(self, scope: Scope | None) -> GraphEdits:
        if scope is None:
            return _NOTHING
        self.reached.add(scope)
        return self.edits.get(scope, _NOTHING)

    def _untouched(self, scope: Scope | None) -> bool:
        return not self.model.external and scope not in self.edits and not (scope and self.below.get(scope))

    def patch(self, splice: _Splice, record: Record, pieces: list[Piece]) -> None:
        """Put a message in the place of a record, unless it is that record's."""
        tag, begin, body, end = record
        if pieces != [Range(body, end)] and (pieces or body != end):
            splice.put(begin, end, message(tag >> 3, pieces))

    def node(
        self, buffer: Buffer, record: Record, node: onnx.NodeProto, place: tuple[Scope, int] | None
    ) -> list[Piece]:
        """The payload of a node's record, its bodies edited and its tensors at their new places."""
        splice = _Splice(record[2])
        index = 0
        for child in children(buffer, Kind.NODE, record[2], record[3]):
            if child[0] == tag_of(5):
                attribute = node.attribute[index]
                index += 1
                self.patch(splice, child, self._attribute(buffer, child, attribute, place))
        return splice.finish(record[3])

    def _attribute(
        self,
        buffer: Buffer,
        record: Record,
        attribute: onnx.AttributeProto,
        place: tuple[Scope, int] | None,
    ) -> list[Piece]:
        if not leads_on(attribute):
            return [Range(record[2], record[3])]
        splice = _Splice(record[2])
        tensors = graphs = sparse = 0
        for child in children(buffer, Kind.ATTRIBUTE, record[2], record[3]):
            tag = child[0]
            if tag == tag_of(5):
                self.patch(splice, child, self.tensor(buffer, child, attribute.t))
            elif tag == tag_of(10):
                self.patch(splice, child, self.tensor(buffer, child, attribute.tensors[tensors]))
                tensors += 1
            elif tag == tag_of(22):
                self.patch(splice, child, self.sparse(buffer, child, attribute.sparse_tensor))
            elif tag == tag_of(23):
                self.patch(splice, child, self.sparse(buffer, child, attribute.sparse_tensors[sparse]))
                sparse += 1
            elif tag == tag_of(6):
                scope = place and place[0].body(place[1], attribute.name)
                self.patch(splice, child, self._graph(buffer, child, attribute.g, scope))
            elif tag == tag_of(11):
                scope = place and place[0].body(place[1], attribute.name, graphs)
                self.patch(splice, child, self._graph(buffer, child, attribute.graphs[graphs], scope))
                graphs += 1
        return splice.finish(record[3])

    def sparse(self, buffer: Buffer, record: Record, sparse: onnx.SparseTensorProto) -> list[Piece]:
        """The payload of a sparse tensor's record, its data at the new places."""
        splice = _Splice(record[2])
        for child in children(buffer, Kind.SPARSE, record[2], record[3]):
            if child[0] == tag_of(1):
                self.patch(splice, child, self.tensor(buffer, child, sparse.values))
            elif child[0] == tag_of(2):
                self.patch(splice, child, self.tensor(buffer, child, sparse.indices))
        return splice.finish(record[3])

    def tensor(self, buffer: Buffer, record: Record, tensor: onnx.TensorProto) -> list[Piece]:
        """The payload of a tensor's record, its data at the new place."""
        span = self.model.span(tensor)
        stays = self.refers if span is None or span.file is not None else buffer is self.model.buffer
        if span is None or stays:
            return [Range(record[2], record[3])]
        kept = _without(buffer, record, _EXTERNAL_FIELDS | PAYLOAD_FIELDS)
        if span.file is None:
            return kept + self._inline(span, self.model.field_of(span))
        if self.data is None:
            return kept + self._inline(span)
        return [*kept, location(self.data.name, self.data.place(span), span.nbytes)]

    def replaced(self, buffer: Buffer, record: Record, old: onnx.TensorProto, new: NewTensor) -> list[Piece]:
        """The record of a tensor that takes the place of another, keeping what is said about that one."""
        span = self.model.span(old)
        kept = _without(buffer, record, _EXTERNAL_FIELDS | PAYLOAD_FIELDS | _TENSOR_HEAD)
        external = span is not None and span.file is not None
        return message(5, [_head(new), *kept, *self._payload(new, external=external)])

    def new(self, new: NewTensor) -> list[Piece]:
        """The record of an initializer."""
        return message(5, [_head(new), *self._payload(new, external=new.nbytes > _SMALL)])

    def _payload(self, new: NewTensor, *, external: bool) -> list[Piece]:
        if self.data is None or not external:
            return self._inline(new)
        return [location(self.data.name, self.data.place(new), new.nbytes)]

    def _inline(self, payload: Payload, tag: int = RAW_DATA) -> list[Piece]:
        chunks = partial(span_chunks, self.model, payload) if isinstance(payload, Span) else payload.chunks
        return [varint(tag) + varint(payload.nbytes), Stream(payload.nbytes, chunks)]

    def written(
        self, new: onnx.NodeProto, old: tuple[Record, onnx.NodeProto, Scope, int] | None
    ) -> list[Piece]:
        """The payload of a node that edits bring.

        Tensors that the skeleton left out, and external ones, are put back from the source. An attribute that
        is the replaced node's own keeps its bytes and receives the edits of its bodies.
        """
        if not any(leads_on(attribute) for attribute in new.attribute):
            return [_serialized(new)]
        bare = onnx.NodeProto()
        bare.CopyFrom(new)
        del bare.attribute[:]
        pieces: list[Piece] = [_serialized(bare)]
        originals: dict[str, tuple[Record, onnx.AttributeProto]] = {}
        if old is not None:
            record, node, scope, index = old
            found = children(self.model.buffer, Kind.NODE, record[2], record[3])
            of_attributes = (child for child in found if child[0] == tag_of(5))
            originals = {a.name: (child, a) for child, a in zip(of_attributes, node.attribute, strict=True)}
        for attribute in new.attribute:
            original = originals.get(attribute.name)
            if original is not None and old is not None and original[1] == attribute:
                own = self._attribute(self.model.buffer, original[0], attribute, (scope, index))
                pieces += message(5, own)
                continue
            data = _serialized(attribute)
            fresh = self._attribute(data, (0, 0, 0, len(data)), attribute, None)
            pieces += message(5, [data[p.start : p.stop] if isinstance(p, Range) else p for p in fresh])
        return pieces


class _Nodes:
    """The node records of one graph or function, in order, with the edits that concern them."""

    def __init__(
        self,
        patcher: _Patcher,
        edit: GraphEdits,
        scope: Scope | None,
        nodes: Sequence[onnx.NodeProto],
        field: int,
    ) -> None:
        last = len(nodes)
        wrong = [i for i in edit.nodes if not 0 <= i < last] + [
            i for i in edit.inserted if not 0 <= i <= last
        ]
        if wrong:
            raise ValueError(f"{scope}: no nodes with the indices {sorted(wrong)}")
        self.patcher = patcher
        self.edit = edit
        self.scope = scope
        self.nodes = nodes
        self.field = field
        self.index = 0

    def pass_by(self, splice: _Splice, buffer: Buffer, record: Record) -> None:
        """Deal with the next node record."""
        index, edit = self.index, self.edit
        self.index += 1
        node = self.nodes[index]
        _, begin, _, end = record
        if index in edit.inserted:
            splice.put(begin, begin, self._brought(index))
        if index in edit.nodes:
            new = edit.nodes[index]
            old = None if self.scope is None else (record, node, self.scope, index)
            pieces = [] if new is None else message(self.field, self.patcher.written(new, old))
            splice.put(begin, end, pieces)
        elif any(leads_on(attribute) for attribute in node.attribute):
            place = None if self.scope is None else (self.scope, index)
            self.patcher.patch(splice, record, self.patcher.node(buffer, record, node, place))
        if self.index == len(self.nodes) and self.index in edit.inserted:
            splice.put(end, end, self._brought(self.index))

    def finish(self, splice: _Splice, stop: int) -> None:
        """Deal with the end of a graph that had no node to pass by."""
        if not self.nodes and 0 in self.edit.inserted:
            splice.put(stop, stop, self._brought(0))

    def _brought(self, index: int) -> list[Piece]:
        return [
            piece
            for node in self.edit.inserted[index]
            for piece in message(self.field, self.patcher.written(node, None))
        ]


class _GraphRecords:
    """The records of one graph, in order, with the edits that concern them."""

    def __init__(
        self,
        patcher: _Patcher,
        buffer: Buffer,
        graph: onnx.GraphProto,
        edit: GraphEdits,
        scope: Scope | None,
    ) -> None:
        self.patcher = patcher
        self.buffer = buffer
        self.graph = graph
        self.edit = edit
        self.scope = scope
        self.nodes = _Nodes(patcher, edit, scope, graph.node, _NODE >> 3)
        self.dense = iter(graph.initializer)
        self.sparse = iter(graph.sparse_initializer)
        self.inputs = iter(graph.input)
        self.named: set[str] = set()

    def patched(self, record: Record) -> list[Piece]:  # noqa: C901 - one branch a kind of record
        """The payload of the graph's record."""
        splice = _Splice(record[2])
        # New ones come after the last of their kind, or at the end where there is none.
        left = {_GRAPH_INPUT: len(self.graph.input), _INITIALIZER: len(self.graph.initializer)}
        new: dict[int, list[Piece]] = {
            _GRAPH_INPUT: [p for v in self.edit.inputs_added for p in message(11, [_serialized(v)])],
            _INITIALIZER: [p for tensor in self.edit.added for p in self.patcher.new(tensor)],
        }
        for child in children(self.buffer, Kind.GRAPH, record[2], record[3]):
            tag, _, _, end = child
            if tag == _NODE:
                self.nodes.pass_by(splice, self.buffer, child)
            elif tag == _INITIALIZER:
                self._initializer(splice, child, next(self.dense))
            elif tag == _SPARSE:
                self._sparse(splice, child, next(self.sparse))
            elif tag == _GRAPH_INPUT:
                self._input(splice, child, next(self.inputs).name)
            elif tag in _NOTES:
                _drop_note(splice, self.buffer, child, self.edit)
            if tag in left:
                left[tag] -= 1
                if not left[tag]:
                    splice.put(end, end, new.pop(tag))
        self.nodes.finish(splice, record[3])
        for pieces in new.values():
            splice.put(record[3], record[3], pieces)
        unknown = (self.edit.initializers.keys() | self.edit.inputs_removed) - self.named
        if unknown:
            raise ValueError(f"{self.scope}: no initializer or input is called {sorted(unknown)}")
        return splice.finish(record[3])

    def _initializer(self, splice: _Splice, record: Record, tensor: onnx.TensorProto) -> None:
        if tensor.name not in self.edit.initializers:
            self.patcher.patch(splice, record, self.patcher.tensor(self.buffer, record, tensor))
            return
        self.named.add(tensor.name)
        new = self.edit.initializers[tensor.name]
        pieces = [] if new is None else self.patcher.replaced(self.buffer, record, tensor, new)
        splice.put(record[1], record[3], pieces)

    def _sparse(self, splice: _Splice, record: Record, sparse: onnx.SparseTensorProto) -> None:
        name = sparse.values.name
        if name not in self.edit.initializers:
            self.patcher.patch(splice, record, self.patcher.sparse(self.buffer, record, sparse))
            return
        self.named.add(name)
        new = self.edit.initializers[name]
        splice.put(record[1], record[3], [] if new is None else self.patcher.new(new))

    def _input(self, splice: _Splice, record: Record, name: str) -> None:
        if name in self.edit.inputs_removed:
            self.named.add(name)
            splice.put(record[1], record[3], [])


def leads_on(attribute: onnx.AttributeProto) -> bool:
    """Whether an attribute holds tensors or graphs."""
    return bool(
        attribute.HasField("t")
        or attribute.HasField("g")
        or attribute.HasField("sparse_tensor")
        or attribute.tensors
        or attribute.graphs
        or attribute.sparse_tensors
    )


def _without(buffer: Buffer, record: Record, fields: frozenset[int]) -> list[Piece]:
    """The payload of a record without some fields."""
    splice = _Splice(record[2])
    for tag, begin, _, end in records(buffer, record[2], record[3]):
        if tag >> 3 in fields:
            splice.put(begin, end, [])
    return splice.finish(record[3])


def _head(new: NewTensor) -> bytes:
    dims = b"".join(number(1, size) for size in new.dims)
    return dims + number(2, new.data_type) + text(8, new.name)


def _entry(field: int, key: str, value: str) -> bytes:
    return text(field, text(1, key) + text(2, value))


def _drop_note(splice: _Splice, buffer: Buffer, record: Record, edit: GraphEdits) -> None:
    """Leave out a value_info or quantization_annotation whose tensor the edits drop."""
    if edit.dropped:
        names = [buffer[c[2] : c[3]] for c in records(buffer, record[2], record[3]) if c[0] == tag_of(1)]
        if names and names[-1].decode("utf-8", "replace") in edit.dropped:
            splice.put(record[1], record[3], [])


def _serialized(proto: Message) -> bytes:
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


_NOTHING = GraphEdits()
