"""The baseline: findings that a repository has and tolerates until somebody gets to them.

A JSON file that is committed beside the models. Paths in it are relative to its own folder, so that it means
the same in every clone; entries are sorted, so that the same findings make the same bytes and a change of one
is a change of a line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold import atomic
from bnfold.errors import EnvironmentFault, UsageError
from bnfold.gate.finding import Gone, Kind
from bnfold.gate.policy import counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bnfold.gate.finding import Examined, Finding
    from bnfold.gate.targets import Target

SCHEMA = "bnfold.baseline/1"
# Their absence means something only where somebody looked.
_ON_DEMAND = frozenset({"BNF030", "BNF031", "BNF032"})


@dataclass(frozen=True, order=True)
class Entry:
    """One finding that is tolerated."""

    rule: str
    scope: str
    node: str


@dataclass(frozen=True)
class Baseline:
    """What is tolerated, for each model; names may come twice, and then so do entries."""

    entries: Mapping[str, tuple[Entry, ...]]

    def tolerance(self, model: str) -> Callable[[Finding], bool]:
        """Whether a finding of this model is known; every entry serves for one finding."""
        left = Counter(self.entries.get(model, ()))

        def known(finding: Finding) -> bool:
            entry = _entry(finding)
            left[entry] -= 1
            return left[entry] >= 0

        return known


EMPTY = Baseline({})


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        UsageError: there is none, or it is none.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["schema"] != SCHEMA:
            raise UsageError(f"the baseline {path} is of another version, {data['schema']!r}; make it anew")
        return Baseline({str(model): tuple(map(_parsed, rows)) for model, rows in data["models"].items()})
    except FileNotFoundError:
        raise UsageError(f"there is no baseline {path}; --update-baseline makes one") from None
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UsageError(f"{path} is no baseline of bnfold; name another file, or delete it") from None


def _parsed(row: Mapping[str, Any]) -> Entry:
    entry = Entry(row["rule"], row.get("scope", ""), row["node"])
    if not all(isinstance(value, str) for value in (entry.rule, entry.scope, entry.node)):
        raise TypeError
    return entry


def name_in(baseline: Path, target: Target) -> str:
    """What a baseline calls a model."""
    folder = os.path.realpath(baseline.parent)
    try:
        return Path(os.path.relpath(target.path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return target.path.as_posix()


def outdated(
    baseline: Baseline,
    examined: Mapping[str, Examined],
    exists: Callable[[str], bool],
    *,
    asked: frozenset[str],
) -> tuple[Gone, ...]:
    """Entries that nothing corresponds to any more.

    Args:
        baseline: what was known.
        examined: the models that were looked at, by their names in the baseline. Of the others, and of those
            that could not be looked at, nothing is said, unless they are gone themselves.
        exists: whether there still is a model of this name.
        asked: rules that were looked for although they take long.
    """
    gone = []
    for model, entries in sorted(baseline.entries.items()):
        looked_at = examined.get(model)
        if looked_at is not None and not looked_at.fault:
            present = Counter(map(_entry, looked_at.findings))
            missing = Counter(e for e in entries if e.rule in asked or e.rule not in _ON_DEMAND) - present
        else:
            missing = Counter() if looked_at is not None or exists(model) else Counter(entries)
        gone += [Gone(model, e.rule, e.node, e.scope) for e in sorted(missing.elements())]
    return tuple(gone)


def updated(
    baseline: Baseline,
    examined: Mapping[str, Examined],
    gone: Iterable[Gone],
    fail_on: Sequence[Kind],
) -> Baseline:
    """The baseline with which the gate passes: what is gone is forgotten, what lets it fail is known."""
    entries = {model: Counter(rows) for model, rows in baseline.entries.items()}
    for each in gone:
        entries[each.model][Entry(each.rule, each.scope, each.node)] -= 1
    for model, looked_at in examined.items():
        present = Counter(_entry(f) for f in looked_at.findings if counts(f, fail_on))
        entries[model] = entries.get(model, Counter()) | present
    rows = {model: tuple(sorted(counted.elements())) for model, counted in sorted(entries.items())}
    return Baseline({model: of_model for model, of_model in rows.items() if of_model})


def save(baseline: Baseline, path: Path) -> None:
    """Write a baseline, whole or not at all; one that says the same already is not touched.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    data = _serialized(baseline)
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        atomic.write(path, data)
    except OSError as error:
        raise EnvironmentFault(f"the baseline {path} cannot be written: {error.strerror}") from None


def _serialized(baseline: Baseline) -> bytes:
    models = {
        model: [{"rule": e.rule, **({"scope": e.scope} if e.scope else {}), "node": e.node} for e in entries]
        for model, entries in baseline.entries.items()
    }
    # One line an entry, so that a change of one is a change of one line.
    lines = ["{", f'  "schema": "{SCHEMA}",', '  "models": {']
    for index, (model, rows) in enumerate(models.items()):
        lines.append(f"    {_json(model)}: [")
        lines.append(",\n".join(f"      {_json(row)}" for row in rows))
        lines.append("    ]" + ("," if index + 1 < len(models) else ""))
    lines += ["  }", "}", ""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _entry(finding: Finding) -> Entry:
    return Entry(finding.rule, finding.scope, finding.node)
