"""What a folder of results remembers of how each was made and judged, so that a later run can leave it.

It is a help and no truth of its own: where it is missing, damaged, or behind, models are done again. Digests
cover external data. Runs that share a folder at the same time may lose each other's latest entries.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from bnfold import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = ".bnfold-resume.json"
_SCHEMA = "bnfold.resume/1"


@dataclass(frozen=True)
class Record:
    """How a result came about.

    Attributes:
        version: the bnfold that made it.
        config: hexadecimal digest of the options that decide what it is.
        source: hexadecimal digest of the model and its external data.
        output: the same of the result.
        status: of the verdict.
    """

    version: str
    config: str
    source: str
    output: str
    status: str


def digest(path: Path) -> str:
    """Hexadecimal digest of a model file and its external data.

    Raises:
        BnfoldError: it cannot be read.
    """
    from bnfold.model.store import open_model  # noqa: PLC0415  # slow, and who hands out work needs none of it

    model = open_model(path)
    total = hashlib.sha256(model.sha256().encode())
    for file in model.external_files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def read(folder: Path) -> dict[str, Record]:
    """The records by the name of the result in the folder; none where they cannot be read."""
    names = [field.name for field in fields(Record)]
    try:
        said = json.loads((folder / NAME).read_bytes())
        if said["schema"] != _SCHEMA:
            return {}
        return {
            name: Record(**{key: str(entry[key]) for key in names}) for name, entry in said["results"].items()
        }
    # Whatever it is, it is none of ours; the models are done again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def note(folder: Path, name: str, record: Record | None) -> None:
    """Remember what came of a model; None forgets it."""
    records = read(folder)
    if records.get(name) == record:
        return
    records.pop(name, None)
    if record is not None:
        records[name] = record
    # A result without a record is made again: that is no reason to fail.
    with suppress(OSError):
        _write(folder, records)


def _write(folder: Path, records: Mapping[str, Record]) -> None:
    results = {name: asdict(records[name]) for name in sorted(records)}
    text = json.dumps({"schema": _SCHEMA, "results": results}, indent=1)
    atomic.write(folder / NAME, text.encode("ascii"))
