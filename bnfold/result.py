"""What `optimize` and `inspect` give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from bnfold.errors import UsageError, VerdictError
from bnfold.model.edits import ModelEdits
from bnfold.model.store import open_model
from bnfold.model.write import staged
from bnfold.report.metrics import metrics
from bnfold.urls import is_url

if TYPE_CHECKING:
    from bnfold.fold.folded import Fold
    from bnfold.fold.reasons import Refusal
    from bnfold.report.schema import Report
    from bnfold.verification.verdict import Verdict


@dataclass(frozen=True)
class Result:
    """What `optimize` or `inspect` found and made.

    Attributes:
        report: everything as data.
        content: the resulting model, serialized; None when it was written to `report.output` (or, for
            `inspect`, never made).
    """

    report: Report
    content: bytes | None

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The normalizations that went."""
        return self.report.folds

    @property
    def kept(self) -> tuple[Refusal, ...]:
        """The normalizations that stay, each with its reasons."""
        return self.report.kept

    @property
    def verdict(self) -> Verdict | None:
        """Whether the result computes the same as the original."""
        return self.report.verdict

    @property
    def model(self) -> onnx.ModelProto:
        """The resulting model.

        Raises:
            UsageError: there is none, because nothing was to be written.
        """
        if self.content is not None:
            model: onnx.ModelProto = onnx.ModelProto.FromString(self.content)
            return model
        if self.report.output is None:
            raise UsageError("there is no resulting model: it was only inspected")
        if is_url(self.report.output):
            raise UsageError(f"the resulting model is at {self.report.output}; fetch it from there")
        return onnx.load(self.report.output)

    def save(self, path: str | Path) -> None:
        """Write the resulting model to `path`, atomically.

        Raises:
            UsageError: there is no resulting model.
            EnvironmentFault: it cannot be written.
        """
        source = self.content if self.content is not None else self.report.output
        if source is None:
            raise UsageError("there is no resulting model: it was only inspected")
        if is_url(source):
            raise UsageError(f"the resulting model is at {source!r}; fetch it from there")
        with staged(open_model(source), ModelEdits(), Path(path)) as stage:
            stage.commit()

    def metrics(self) -> dict[str, float]:
        """The report as flat, finite numbers, for `mlflow.log_metrics`; see `bnfold.report.metrics`."""
        return metrics(self.report)

    def raise_for_status(self) -> None:
        """Fail unless the result was shown to be equivalent.

        Raises:
            VerdictError: the results differ (`exit_code` 1), or nothing can be said (5).
        """
        verdict = self.verdict
        if verdict is None or verdict.status != "equivalent":
            summary = "nothing was verified" if verdict is None else verdict.summary
            raise VerdictError(
                summary, exit_code=1 if verdict is not None and verdict.status == "different" else 5
            )
