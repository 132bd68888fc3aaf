"""Remove BatchNormalization from trained ONNX models, and prove that they still compute the same.

    import bnfold

    result = bnfold.optimize("model.onnx", output="model.folded.onnx")
    result.raise_for_status()
    for refusal in result.kept:
        print(refusal.node, refusal.code, refusal.reason.evidence)

The verbs are those of the command line: `optimize`, `inspect`, `verify`. `bnfold.runtime` is the
reference BatchNormalization, of use on its own. Errors are in `bnfold.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.pipeline import Result, inspect, optimize, verify

__all__ = ["Result", "__version__", "inspect", "optimize", "verify"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the pipeline calls by that name
    """The verbs, imported at their first use: `bnfold --help` must not wait for onnx."""
    if name in __all__:
        from bnfold import pipeline  # noqa: PLC0415  # see above

        return getattr(pipeline, name)
    raise AttributeError(f"module 'bnfold' has no attribute {name!r}")
