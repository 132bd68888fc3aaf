"""Random operators: both models draw the same numbers where each such node has a seed, the same one.

Without one, onnxruntime seeds a generator by the node's place in the graph, which a fold moves.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from onnx import helper

from bnfold.model.census import calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

# One seed for all: it is the same whatever the nodes are called and in whatever order they stand.
_SEEDS: Mapping[str, float] = MappingProxyType(
    {
        "Bernoulli": 1.0,
        "Dropout": 1,  # an integer, as its attribute is
        "Multinomial": 1.0,
        "RandomNormal": 1.0,
        "RandomNormalLike": 1.0,
        "RandomUniform": 1.0,
        "RandomUniformLike": 1.0,
    }
)
_TRAINING_MODE = 2  # the input of a Dropout without which it draws nothing


def seed(model: onnx.ModelProto) -> tuple[str, ...]:
    """Give a seed to random operators that have none.

    Args:
        model: changed in place.

    Returns:
        The operators that got one.
    """
    found = []
    for node in calls(model):
        value = _SEEDS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if value is None or any(attribute.name == "seed" for attribute in node.attribute):
            continue
        if node.op_type == "Dropout" and not "".join(node.input[_TRAINING_MODE:]):
            continue
        node.attribute.append(helper.make_attribute("seed", value))
        found.append(node.op_type)
    return tuple(sorted(set(found)))
