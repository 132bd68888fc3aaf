"""Every guard of the fold engine, and what the code looks like without it.

`test_guards.py` takes each out in turn and expects the acceptance tests to fail. A guard that can be taken
out unnoticed is either untested or not needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """One textual change that removes one guard.

    Attributes:
        name: what the guard protects against.
        file: below `bnfold/`.
        guard: the text that holds it; occurs exactly once.
        without: what stands there when it is gone.
    """

    name: str
    file: str
    guard: str
    without: str


GUARDS = (
    # Edges
    Guard("intermediate is a graph output", "fold/draft.py", "if value.is_output:", "if False:"),
    Guard("intermediate has several consumers", "fold/draft.py", "if len(uses) > 1:", "if False:"),
    Guard(
        "producer stands in an outer graph", "fold/search.py", " or producer.graph is not consumer.graph", ""
    ),
    Guard("a second output of the producer", "fold/search.py", " or producer.outputs[0] is not value", ""),
    Guard(
        "an attribute comes from the caller of a function",
        "fold/search.py",
        "if producer.refers_to_caller and not entry.ignores_attributes:",
        "if False:",
    ),
    Guard(
        "a local function takes the name of an operator",
        "model/view.py",
        "and (domain, name) not in self.graph.view.local_functions",
        "",
    ),
    Guard("an operator of another domain", "model/view.py", "if domain in _DEFAULT_DOMAINS and", "if"),
    # Training mode
    Guard("is_test", "fold/lift.py", 'node.int_attribute("is_test", 0) == 0', "False"),
    Guard("statistics of the batch as outputs", "fold/lift.py", "if extra else", "if False else"),
    Guard("training_mode", "fold/lift.py", 'node.int_attribute("training_mode", 0) != 0', "False"),
    Guard("an attribute of the normalization comes from a caller", "fold/lift.py", "if node.refers_to_caller:", "if False:"),
    Guard("Dropout in training mode", "fold/ops/identity.py", "if not _is_inference(node, draft):", "if False:"),
    # Numbers
    Guard("statistics are finite", "fold/lift.py", "if not np.isfinite(vector.float64()).all()", "if False"),
    Guard("variance + epsilon is positive", "fold/lift.py", "(var + epsilon <= 0).any()", "False"),
    Guard("weights are finite", "fold/weight.py", "if np.isnan(peak).any():", "if False:"),
    Guard("biases are finite", "fold/ops/weights.py", "and not np.isfinite(found.float64()).all()", "and False"),
    Guard("overflow of the stored type", "fold/weight.py", "if (peak >= overflow).any():", "if False:"),
    Guard("underflow of the stored type", "fold/weight.py", "(lost := self._sunken(peak, tiny, largest)).any()", "False"),
    Guard("bfloat16 is rounded once", "fold/weight.py", "if dtype != ml_dtypes.bfloat16:", "if True:"),
    Guard("statistics have one length", "fold/lift.py", "if len(shapes) > 1:", "if False:"),
    Guard("spatial=0", "fold/lift.py", "if len(scale.dims) == 1:", "if True:"),
    # Constants
    Guard("overridable initializers", "model/constants.py", "if value.is_input and self._overridable:", "if False:"),
    Guard("quantized weights", "model/constants.py", "if node.op in _QUANTIZERS:", "if False:"),
    # Quantized weights
    Guard("an integer without a mirror image", "fold/quantized.py", "if outside.any():", "if False:"),
    Guard("a channel that disappears keeps its scale", "fold/quantized.py", "np.where(factor == 0, 1.0, np.abs(factor))", "np.abs(factor)"),
    Guard("scales along one axis", "fold/quantized.py", "if len(axes) > 1:\n            where", "if False:\n            where"),
    Guard("one scale before opset 13", "fold/quantized.py", "and self.node.opset < _PER_AXIS_SINCE:", "and False:"),
    Guard("all of a block are scaled alike", "fold/quantized.py", "if not np.array_equal(_repeated(", "if False and (_repeated("),
    Guard("a scale that shrinks", "fold/quantized.py", "if lost.size:", "if False:"),
    Guard("a scale that makes weights too large", "fold/quantized.py", "if scale.max() * self._farthest() > largest:", "if False:"),
    Guard("a bias that an int32 does not count", "fold/ops/weights.py", "if not (np.abs(values) < _INT32_END * np.abs(unit)).all():", "if False:"),
    Guard("a bias in another unit", "fold/ops/weights.py", "and np.allclose(old.steps, before, rtol=_SAME_UNIT, atol=0.0)", ""),
    Guard("a bias of another type", "fold/ops/weights.py", "old.integers.dtype != np.int32", "False"),
    Guard("a dequantizer that others read too", "fold/draft.py", "if self._is_shared(node, position):", "if False:"),
    Guard("branches with quantized weights", "fold/kernel.py", "if not isinstance(weight, Stored) or", "if not isinstance(weight, Weight) or"),
    # Axes
    Guard("Conv: the channel axis", "fold/ops/conv.py", "if not goes_along(affine, 1):\n        return wrong_axis(node, affine, 1)\n", ""),
    Guard("ConvTranspose: the channel axis", "fold/ops/conv_transpose.py", "if not goes_along(affine, 1):", "if False:"),
    Guard("ConvTranspose: groups", "fold/ops/conv_transpose.py", "view = (groups, inputs // groups, columns, *kernel)", "view = (1, inputs, columns, *kernel)"),
    Guard("Gemm: transB", "fold/ops/gemm.py", '0 if node.int_attribute("transB", 0) else 1', "1"),
    Guard("Gemm: beta scales C", "fold/ops/gemm.py", "affine(beta * old.float64())", "affine(old.float64())"),
    Guard("Gemm: beta becomes 1", "fold/ops/gemm.py", "if beta != 1.0:", "if False:"),
    Guard("MatMul: the feature axis", "fold/ops/matmul.py", "if not goes_along(affine, feature):", "if False:"),
    Guard("Transpose moves the axis", "fold/ops/reshape.py", "affine.with_axes([perm[axis] for axis in affine.axes])", "affine"),
    Guard("a reshape: where both shapes can be cut", "fold/axes.py", "_equal(left[i], right[j]) or _equal(from_behind[i], to_behind[j])", "True"),
    Guard("a reshape: unknown strides", "fold/axes.py", "one is not None and one == other", "one == other"),
    Guard("a reshape: a block of unknown size", "fold/axes.py", "None in sizes or ", ""),
    Guard("a reshape: the map is as long as its axis", "fold/axes.py", "if any(there[axis] != size", "if any(False and there[axis] != size"),
    Guard("arithmetic: the constant's axis", "fold/ops/elementwise.py", "set(own.axes) <= set(affine.axes) or not affine.axes", "True"),
    Guard("arithmetic: the constant fits the channels", "fold/ops/elementwise.py", "shape[axis] != dims[varying[0]]", "False"),
    Guard("arithmetic: one varying axis", "fold/ops/elementwise.py", "if len(varying) > 1:", "if False:"),
    Guard("arithmetic: a constant divided by the tensor", "fold/ops/elementwise.py", 'if node.op == "Div" and position == 1:', "if False:"),
    Guard("arithmetic: a constant minus the tensor", "fold/ops/elementwise.py", 'if op == "Sub" and position == 0:', 'if op == "Sub":'),
    Guard("arithmetic: axis of opset 6", "fold/ops/elementwise.py", 'offset = node.int_attribute("axis", offset)', "pass"),
    Guard("normalization: the axis of the earlier one", "fold/ops/batch_normalization.py", "if not goes_along(affine, _CHANNELS):", "if False:"),
    # Parts and branches
    Guard("a tensor of which others read a part", "fold/search.py", "all(self._overlooks(use, affine) for use in others)", "True"),
    Guard("a part that others read is a graph output", "fold/search.py", "if value.is_output:\n            return reason\n", "if False:\n            return reason\n"),
    Guard("a reader that would have to change", "fold/search.py", "and not outcome.changes", ""),
    Guard("a reader to which something changes", "fold/search.py", "map_.is_identity for", "True for"),
    Guard("Split: parts that others read", "fold/ops/concat.py", "if not read and (axis is None or axis not in affine.axes) else []", "if axis is None or axis not in affine.axes else []"),
    Guard("Split: the same channels in every part", "fold/ops/concat.py", "if axis is not None and affine.axes and axis not in affine.axes:", "if False:"),
    Guard("Concat: branches that are normalized alike", "fold/ops/concat.py", "all(first.equals(other) for other in arrivals.values())", "True"),
    Guard("a sum of terms that are scaled alike", "fold/ops/elementwise.py", " and np.array_equal(one.scale, other.scale)", ""),
    Guard("a sum of terms with all channels", "fold/ops/elementwise.py", "not same or not fit", "not same"),
    Guard("Sum and others: a term without all channels", "fold/ops/several.py", "if shape is None or len(shape) != rank or any(axis >= rank or shape[axis] != n for axis, n in own):", "if False:"),
    Guard("Max and Min: a negative scale", "fold/ops/several.py", "if node.op not in _EXTREMES or not (affine.scale < 0).any():", "if True:"),
    Guard("ReduceSum: the shift adds up", "fold/ops/pooling.py", 'if node.op != "ReduceSum" or not affine.shift.any():', "if True:"),
    Guard("ReduceMax: a negative scale", "fold/ops/pooling.py", 'if node.op in {"ReduceMax", "ReduceMin"} and (affine.scale < 0).any():', "if False:"),
    Guard("Tile: repetitions that differ", "fold/ops/resample.py", "if not one.take(axis, np.arange(size) % single).equals(affine):", "if False:"),
    Guard("ConvTranspose: borders that get but some taps", "fold/ops/conv_transpose.py", "pads[axis] >= reach and", ""),
    Guard("a shape that the caller may replace", "model/shapes.py", "    if not frozen:\n        _forget_defaults(bare)\n", ""),
    Guard("shapes that outputs and nested graphs declare", "model/shapes.py", "            forget_shape(info.type)\n        _forget", "            pass\n        _forget"),
    Guard("dimensions of one name", "model/shapes.py", "if dim.dim_param in taken:", "if False:"),
    Guard("the shape of a sequence's elements", "model/shapes.py", "            forget_shape(info.type)\n            continue", "            continue"),
    Guard("an If that has what one of its branches has", "model/doubts.py", "return opset < _IF_UNITES_SINCE", "return False"),
    Guard("a pool that rounds up", "model/doubts.py", "return rounded or (", "return ("),
    Guard("a size that depends on the precision", "model/doubts.py", "if node.op_type in _RESIZES:\n        by_sizes", "if False:\n        by_sizes"),
    Guard("automatic padding beside dilations", "model/doubts.py", 'rounded or (automatic and any(d != 1 for d in given.get("dilations", AttributeProto()).ints))', "rounded"),
    Guard("automatic padding beside output padding", "model/doubts.py", 'return automatic and "output_padding" in given', "return False"),
    Guard("a state that a Loop changes", "model/carried.py", " or _contradictions(assumed, types)", ""),
    Guard("products of a matrix and of a transposed one", "fold/matrix.py", "alike = (one.weight.shape, one.feature, one.turned) == (other.weight.shape, other.feature, other.turned)", "alike = one.weight.shape == other.weight.shape"),
    Guard("a channel that is read twice", "fold/ops/select.py", "own is not None and not whole.take(axis, chosen).equals(affine)", "False"),
    # Cost
    Guard("more nodes than before", "fold/cost.py", "if gained > len(gone):", "if False:"),
    Guard("more operations, by ratio", "fold/cost.py", "if added <= taken:", "if True:"),
    Guard("more operations, by size", "fold/cost.py", "or after <= before:", "or True:"),
    # Rounded when the model runs
    Guard("half precision that runtimes round differently", "model/quantizing.py", "if not all(np.array_equal(found[0], other) for other in found[1:]):", "if False:"),
    Guard("onnxruntime's own dequantizer names no axis", "fold/draft.py", "(axis not in own or unsaid)", "axis not in own"),
    # Writing
    Guard("a shared weight that others still read", "fold/emit.py", "self._count_readers(home) == len(slots)", "True"),
    Guard("a weight that is a graph output", "fold/emit.py", "and not home.is_output", ""),
    Guard("a weight whose shape changes", "fold/emit.py", "and tuple(tensor.dims) == weight.dims", ""),
    Guard("IR 3 lists initializers as inputs", "fold/emit.py", "if self.lists_inputs:", "if False:"),
    Guard("nested graphs of IR 3 hold no initializers", "fold/emit.py", " or (self.lists_inputs and graph is not self.view.graphs[0])", ""),
    Guard("an initializer goes with its input", "fold/emit.py", "if value.is_input:", "if False:"),
    Guard("a constant that others still read", "fold/emit.py", "node not in dead and node not in self.draft.removed and (node, position) not in self.draft.weights", "False"),
    Guard("names that are taken", "fold/draft.py", "while name in names:", "while False:"),
    Guard("stale quantization annotations", "fold/emit.py", "|= annotated & changed", "|= set()"),
)  # fmt: skip
