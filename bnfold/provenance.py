"""What a result says about where it comes from: entries of its `metadata_props`.

    bnfold.version         of the bnfold that made it
    bnfold.source_sha256   of the model file it was made from, external data not included
    bnfold.config_sha256   of the options that decide what is folded
    bnfold.folds           how many normalizations went in that run

The same source, options and version give the same entries: no time, no path, no name of a machine.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import onnx

    from bnfold.fold.options import Options


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from.

    Attributes:
        version: the bnfold that made it.
        source_sha256: of the model file, external data not included.
        config_sha256: see `config_sha256`.
        folds: how many normalizations went.
    """

    version: str
    source_sha256: str
    config_sha256: str
    folds: int

    def entries(self) -> dict[str, str]:
        """The entries of `metadata_props`."""
        return {
            "bnfold.version": self.version,
            "bnfold.source_sha256": self.source_sha256,
            "bnfold.config_sha256": self.config_sha256,
            "bnfold.folds": str(self.folds),
        }

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Self | None:
        """What a model says; None where it does not say all of it."""
        said = {entry.key: entry.value for entry in model.metadata_props}
        try:
            return cls(
                said["bnfold.version"],
                said["bnfold.source_sha256"],
                said["bnfold.config_sha256"],
                int(said["bnfold.folds"]),
            )
        except (KeyError, ValueError):
            return None


def config_sha256(options: Options) -> str:
    """Hexadecimal digest of the options; the order and repetition of patterns make no difference."""
    config: dict[str, object] = {
        "exclude": sorted(set(options.exclude)),
        "freeze": options.freeze,
        "include": sorted(set(options.include)),
        "merge": options.merge,
    }
    if options.rejected:
        config["rejected"] = sorted({(each.node, each.scope) for each in options.rejected})
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()
