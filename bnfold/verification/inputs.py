"""What a user says about the inputs of a model: values, files, shapes and ranges.

On the command line `[NAME=]WHAT`, where WHAT is a file, a folder, a pattern, or a shape as `2x3x224x224`;
in Python a mapping from names, a file, or a list of mappings. Both become `Wishes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from bnfold.errors import UsageError
from bnfold.urls import is_url, located, shown
from bnfold.verification.feed_files import read_feeds, read_input
from bnfold.verification.feeds import Feed, fed_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnfold.verification.feeds import Array

Range = tuple[float, float]
Inputs = Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path | None
Ranges = Mapping[str, Range] | Range | None

_SHAPE = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True)
class File:
    """Where values lie: those of one input, or of all where `name` is empty."""

    name: str
    path: Path


@dataclass(frozen=True)
class Wishes:
    """What a user says about the inputs.

    Attributes:
        files: where values lie.
        arrays: values by input name, one mapping a feed.
        shapes: of inputs whose values are made.
        ranges: smallest and largest value of inputs whose values are made; "" for all of them.
    """

    files: tuple[File, ...] = ()
    arrays: tuple[Mapping[str, Array], ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


def parse(inputs: Iterable[str], ranges: Iterable[str] = ()) -> Wishes:
    """Read `[NAME=]WHAT` and `[NAME=]LOW,HIGH` as they stand on a command line.

    Raises:
        UsageError: one of them makes no sense; the message quotes it.
    """
    files: list[File] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for text in inputs:
        name, what = ("", text) if is_url(text) or Path(text).exists() else _named(text)
        if not what:
            raise UsageError(f"--input {text}: nothing is given; expected a file, a folder or a shape")
        if _SHAPE.fullmatch(what):
            if not name:
                raise UsageError(f"--input {text}: a shape needs the name of its input, as in x={what}")
            _once(shapes, name, tuple(int(size) for size in what.split("x")), f"--input {text}")
        else:
            files.append(File(name, _path(what)))
    limits: dict[str, Range] = {}
    for text in ranges:
        name, what = _named(text)
        _once(limits, name, _range(what, f"--range {text}"), f"--range {text}")
    return Wishes(tuple(files), (), shapes, limits)


def _path(place: str | Path) -> Path:
    where = located(place) if isinstance(place, str) else place
    if isinstance(where, Path):
        return where
    raise UsageError(f"{shown(where)}: values for inputs must be on this machine, not at a URL")


def understand(inputs: Inputs, ranges: Ranges = None) -> Wishes:
    """Read what a Python caller passes as inputs and ranges.

    Args:
        inputs: a file or folder; or, by input name, an array, a file, or a shape (a tuple of sizes); or a
            sequence of mappings of arrays, one a feed.
        ranges: `(low, high)` for every input, or by name.

    Raises:
        UsageError: one of them makes no sense.
    """
    limits: dict[str, Range] = {}
    if ranges is not None:
        by_name = ranges if isinstance(ranges, Mapping) else {"": ranges}
        limits = {name: _checked(pair, f"ranges={ranges!r}") for name, pair in by_name.items()}
    if inputs is None:
        return Wishes(ranges=limits)
    if isinstance(inputs, (str, Path)):
        return Wishes((File("", _path(inputs)),), ranges=limits)
    if not isinstance(inputs, Mapping):
        feeds = tuple({name: _array(name, value) for name, value in entry.items()} for entry in inputs)
        if not feeds:
            raise UsageError("inputs is empty; pass at least one feed, or None for seeded ones")
        return Wishes(arrays=feeds, ranges=limits)
    files, shapes, arrays = [], {}, {}
    for name, value in inputs.items():
        if isinstance(value, (str, Path)):
            files.append(File(name, _path(value)))
        elif isinstance(value, tuple):
            shapes[name] = tuple(int(size) for size in value)
        else:
            arrays[name] = _array(name, value)
    return Wishes(tuple(files), (arrays,) if arrays else (), shapes, limits)


def told(wishes: Wishes) -> tuple[list[str], list[str]]:
    """Inputs and ranges as a command line would say them; of arrays type and shape alone."""
    inputs = [_assigned(file.name, str(file.path)) for file in wishes.files]
    inputs += [_assigned(name, "x".join(map(str, shape))) for name, shape in wishes.shapes.items()]
    inputs += [
        _assigned(name, f"{array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'} (array)")
        for feed in wishes.arrays
        for name, array in feed.items()
    ]
    return inputs, [_assigned(name, f"{low:g},{high:g}") for name, (low, high) in wishes.ranges.items()]


def _assigned(name: str, value: str) -> str:
    return f"{name}={value}" if name else value


def read(wishes: Wishes, model: onnx.ModelProto) -> tuple[Feed, ...]:
    """The values that the user gives, one feed after the other; a feed may leave inputs out.

    Raises:
        UsageError: a file cannot be read, or the values do not fit the model.
    """
    names = [value.name for value in fed_inputs(model)]
    declared = {value.name: value for value in model.graph.input}
    for name in (*wishes.shapes, *wishes.ranges, *(file.name for file in wishes.files)):
        if name and name not in declared:
            raise UsageError(f"the model has no input {name!r}; its inputs: {', '.join(names) or 'none'}")
    whole = [feed for file in wishes.files if not file.name for feed in read_feeds(file.path, names)]
    whole += [Feed(f"user {number}", dict(entry)) for number, entry in enumerate(wishes.arrays)]
    columns: dict[str, list[tuple[str, Array]]] = {}
    for file in wishes.files:
        if file.name:
            position = names.index(file.name) if file.name in names else 0
            columns.setdefault(file.name, []).extend(read_input(file.path, file.name, position))
    feeds = _named_apart(_joined(whole, columns))
    for feed in feeds:
        for what, wanted in (("a shape", wishes.shapes), ("a range", wishes.ranges)):
            for name in feed.values.keys() & wanted.keys():
                raise UsageError(f"input {name!r} is given both values ({feed.name}) and {what}")
    return tuple(_fitting(feed, declared, names) for feed in feeds)


def _named(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    return (name, what) if equals else ("", text)


def _once(taken: dict[str, Any], name: str, value: object, said: str) -> None:
    if name in taken:
        raise UsageError(f"{said}: {f'input {name!r}' if name else 'this'} was given already")
    taken[name] = value


def _range(text: str, said: str) -> Range:
    low, comma, high = text.partition(",")
    try:
        if not comma:
            raise ValueError  # noqa: TRY301  # one message for all that is no pair of numbers
        pair = float(low), float(high)
    except ValueError:
        raise UsageError(f"{said}: expected two numbers, as in x=0,255") from None
    return _checked(pair, said)


def _checked(pair: Range, said: str) -> Range:
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError):
        raise UsageError(f"{said}: expected two numbers, low and high") from None
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise UsageError(f"{said}: the smallest value must be finite and no more than the largest")
    return low, high


def _array(name: str, value: object) -> Array:
    if not hasattr(value, "__array__"):
        raise UsageError(
            f"inputs[{name!r}] is {type(value).__name__}; expected an array, a file, or a shape as a tuple"
        )
    return np.asarray(value)


def _joined(whole: list[Feed], columns: Mapping[str, list[tuple[str, Array]]]) -> list[Feed]:
    """Feeds for all inputs, completed by values of single inputs, one row after the other."""
    counts = {name: len(column) for name, column in columns.items()} | ({"": len(whole)} if whole else {})
    rows = max(counts.values(), default=0)
    for name, count in counts.items():
        if count not in {1, rows}:
            what = f"input {name!r} has" if name else "the feeds for all inputs are"
            raise UsageError(f"{what} {count} sets of values where others have {rows}")
    feeds = []
    for row in range(rows):
        base = whole[row if len(whole) > 1 else 0] if whole else Feed("", {})
        picked = {name: column[row if len(column) > 1 else 0] for name, column in columns.items()}
        label = ", ".join(dict.fromkeys([*filter(None, [base.name]), *(said for said, _ in picked.values())]))
        feeds.append(Feed(label, {**base.values, **{name: array for name, (_, array) in picked.items()}}))
    return feeds


def _named_apart(feeds: list[Feed]) -> list[Feed]:
    """Names tell feeds apart: files of different folders may share one."""
    seen: dict[str, int] = {}
    apart = []
    for feed in feeds:
        seen[feed.name] = seen.get(feed.name, 0) + 1
        number = seen[feed.name]
        apart.append(feed if number == 1 else Feed(f"{feed.name} ({number})", feed.values))
    return apart


def _fitting(feed: Feed, declared: Mapping[str, onnx.ValueInfoProto], names: Sequence[str]) -> Feed:
    """The feed, with strings as the model takes them.

    Raises:
        UsageError: an input is unknown, no tensor, or of another dtype or shape than the model states.
    """
    values = {}
    for name, array in feed.values.items():
        if name not in declared:
            known = [each for each in names if each in feed.values]
            said = f"{feed.name}: the model has no input {name!r}; its inputs: {', '.join(names) or 'none'}"
            if known and feed.name.endswith(".npz"):
                said += f"; one array of the file is taken by --input {known[0]}={feed.name}"
            raise UsageError(said)
        values[name] = _checked_array(feed.name, declared[name], array)
    return Feed(feed.name, values)


def _checked_array(feed: str, value: onnx.ValueInfoProto, array: Array) -> Array:
    said = (value.type.WhichOneof("value") or "untyped").removesuffix("_type")
    if said != "tensor":
        raise UsageError(f"{feed}: input {value.name!r} is of type {said}; only tensors can be fed")
    tensor = value.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING and array.dtype.kind in "OUST":
        array = _strings(array)
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if array.dtype != wanted:
        kind = "string" if tensor.elem_type == onnx.TensorProto.STRING else wanted
        raise UsageError(f"{feed}: input {value.name!r} is {array.dtype}, the model wants {kind}")
    dims = tensor.shape.dim
    if tensor.HasField("shape") and (
        len(dims) != array.ndim
        or any(
            d.HasField("dim_value") and 0 <= d.dim_value != n for d, n in zip(dims, array.shape, strict=True)
        )
    ):
        shape = "x".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
        raise UsageError(
            f"{feed}: input {value.name!r} has shape {array.shape}, the model wants {shape or 'a scalar'}"
        )
    return array


def _strings(array: Array) -> Array:
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.reshape(-1)]
    return np.array(texts, dtype=object).reshape(array.shape)
