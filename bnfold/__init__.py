"""Remove BatchNormalization from trained ONNX models, and prove that they still compute the same.

    import bnfold

    result = bnfold.optimize("model.onnx", output="model.folded.onnx")
    result.raise_for_status()
    for refusal in result.kept:
        print(refusal.node, refusal.code, refusal.reason.evidence)

The verbs are those of the command line: `optimize`, `inspect`, `verify`, `benchmark`; `optimize_many` takes
many models. `bnfold.runtime` is the reference BatchNormalization, of use on its own. Errors are in
`bnfold.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.fleet.outcome import Outcome
    from bnfold.fleet.run import optimize_many
    from bnfold.pipeline import benchmark, inspect, optimize, verify
    from bnfold.result import Result

__all__ = ["Outcome", "Result", "__version__", "benchmark", "inspect", "optimize", "optimize_many", "verify"]

_HOMES = {
    "Outcome": "bnfold.fleet.outcome",
    "Result": "bnfold.result",
    "benchmark": "bnfold.pipeline",
    "inspect": "bnfold.pipeline",
    "optimize": "bnfold.pipeline",
    "optimize_many": "bnfold.fleet.run",
    "verify": "bnfold.pipeline",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever has that name
    """The verbs, imported at their first use: `bnfold --help` must not wait for onnx."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
