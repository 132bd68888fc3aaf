"""Truth: a model evaluated in float64, independently of onnxruntime and of the fold.

Weights and feeds keep the values they are stored with; float16, bfloat16 and float32 arithmetic is promoted
to float64, integers and quantized types keep their meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.verification.truth.call import BudgetSpentError, TruthUnavailableError
from bnfold.verification.truth.nodes import Surroundings, compile_graph
from bnfold.verification.truth.program import Hooks, NoHooks, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

__all__ = ["BudgetSpentError", "Hooks", "NoHooks", "Step", "Truth", "TruthUnavailableError"]


class Truth:
    """A model that can be evaluated in float64.

    Args:
        model: the model; its external data, if any, is read from `folder` when needed.
        folder: the folder of the model's file.

    Raises:
        TruthUnavailableError: the model cannot be compiled.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path | None = None) -> None:
        around = Surroundings(
            opsets={entry.domain: entry.version for entry in model.opset_import},
            functions={(f.domain, f.name, f.overload): f for f in model.functions},
            folder=folder,
        )
        self._program = compile_graph(model.graph, around)

    @property
    def size(self) -> int:
        """How many nodes an evaluation passes, those of nested graphs not counted."""
        return len(self._program.steps)

    def run(self, feeds: Mapping[str, Any], hooks: Hooks | None = None) -> dict[str, Any]:
        """Evaluate the model.

        Args:
            feeds: arrays by input name, in their own dtype.
            hooks: sees and may replace operands and results of every node.

        Returns:
            The outputs by name, floating-point ones in float64.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated; the message names it.
        """
        with np.errstate(all="ignore"):
            results = self._program.run(feeds, None, hooks or NoHooks())
        return dict(zip(self._program.outputs, results, strict=True))
