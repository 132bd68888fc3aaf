"""What is known does not fail, what is new does, what is gone is reported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.gate import ODD, examined, finding

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.gate.baseline import EMPTY, Baseline, Entry, load, name_in, outdated, save, updated
from bnfold.gate.finding import Examined, Kind
from bnfold.gate.targets import Target

if TYPE_CHECKING:
    from pathlib import Path

FAIL_ON = (Kind.INVALID, Kind.FOLDABLE)


def known(*models: Examined) -> Baseline:
    return updated(EMPTY, {each.name: each for each in models}, (), FAIL_ON)


def gone(
    entries: Baseline, *models: Examined, asked: frozenset[str] = frozenset(), exists: bool = True
) -> list[str]:
    by_name = {each.name: each for each in models}
    found = outdated(entries, by_name, lambda _name: exists, asked=asked)
    return [f"{each.model} {each.rule} {each.node}" for each in found]


def test_what_is_known_is_tolerated() -> None:
    tolerated = known(examined("m", finding(node="a"), finding(node="b", scope="s"))).tolerance("m")
    assert tolerated(finding(node="a"))
    assert tolerated(finding(node="b", scope="s"))
    assert not tolerated(finding(node="b"))
    assert not tolerated(finding(Kind.NONFINITE, node="a"))
    assert not known(examined("m", finding())).tolerance("other")(finding())


def test_an_entry_serves_for_one_finding() -> None:
    """Names of nodes need not be unique."""
    twice = known(examined("m", finding(), finding()))
    assert [twice.tolerance("m")(finding()) for _ in range(1)] == [True]
    tolerated = twice.tolerance("m")
    assert [tolerated(finding()) for _ in range(3)] == [True, True, False]


def test_only_what_would_fail_becomes_known() -> None:
    entries = known(examined("m", finding(Kind.KEPT), finding(Kind.NONFINITE), finding(Kind.INCONCLUSIVE)))
    assert entries.entries == {"m": (Entry("BNF031", "", ""),)}


def test_what_is_gone_is_reported() -> None:
    entries = known(examined("m", finding(node="a"), finding(node="b")))
    assert gone(entries, examined("m", finding(node="a"))) == ["m BNF001 b"]
    assert gone(entries, examined("m", finding(node="a"), finding(node="b"))) == []


def test_of_models_that_nobody_looked_at_nothing_is_said() -> None:
    entries = known(examined("m", finding()))
    assert gone(entries) == []
    assert gone(entries, Examined("m", fault="out of memory")) == []
    assert gone(entries, exists=False) == ["m BNF001 bn"]


def test_without_verification_its_findings_are_not_gone() -> None:
    entries = updated(EMPTY, {"m": examined("m", finding(Kind.MISMATCH))}, (), (Kind.MISMATCH,))
    assert gone(entries, examined("m")) == []
    assert gone(entries, examined("m"), asked=frozenset({"BNF030"})) == ["m BNF030 "]


def test_an_update_keeps_what_it_knows_nothing_about() -> None:
    before = known(examined("m", finding(node="a"), finding(node="b")), examined("other", finding()))
    now = examined("m", finding(node="b"), finding(node="c"))
    after = updated(
        before, {"m": now}, outdated(before, {"m": now}, lambda _: True, asked=frozenset()), FAIL_ON
    )
    assert [entry.node for entry in after.entries["m"]] == ["b", "c"]
    assert after.entries["other"] == before.entries["other"]
    nothing = examined("m")
    cleared = updated(
        after, {"m": nothing}, outdated(after, {"m": nothing}, lambda _: True, asked=frozenset()), ()
    )
    assert "m" not in cleared.entries


def test_a_narrower_gate_does_not_forget() -> None:
    before = known(examined("m", finding()))
    now = {"m": examined("m", finding())}
    assert updated(before, now, outdated(before, now, lambda _: True, asked=frozenset()), ()) == before


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_says_what_was_known(tmp_path: Path) -> None:
    names = (ODD, "\udcff", "x")
    entries = known(*(examined(name, finding(node=ODD, scope="s"), finding(node="z")) for name in names))
    save(entries, tmp_path / "b.json")
    assert load(tmp_path / "b.json") == entries
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


def test_the_file_is_the_same_whatever_the_order(tmp_path: Path) -> None:
    one, two = examined("m", finding(node="a"), finding(node="b")), examined("n", finding())
    save(known(one, two), tmp_path / "1.json")
    save(known(two, examined("m", finding(node="b"), finding(node="a"))), tmp_path / "2.json")
    text = (tmp_path / "1.json").read_text()
    assert text == (tmp_path / "2.json").read_text()
    assert text == (
        '{\n  "schema": "bnfold.baseline/1",\n  "models": {\n'
        '    "m": [\n      {"rule": "BNF001", "node": "a"},\n      {"rule": "BNF001", "node": "b"}\n    ],\n'
        '    "n": [\n      {"rule": "BNF001", "node": "bn"}\n    ]\n  }\n}\n'
    )


def test_an_empty_baseline_is_one(tmp_path: Path) -> None:
    save(EMPTY, tmp_path / "b.json")
    assert load(tmp_path / "b.json") == EMPTY


def test_what_says_the_same_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    save(known(examined("m", finding())), path)
    os.utime(path, ns=(1, 1))
    save(known(examined("m", finding())), path)
    assert path.stat().st_mtime_ns == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"schema": "bnfold.baseline/1"}',
        '{"schema": "bnfold.baseline/1", "models": []}',
        '{"schema": "bnfold.baseline/1", "models": {"m": [{}]}}',
        '{"schema": "bnfold.baseline/1", "models": {"m": [{"rule": 1, "node": "n"}]}}',
        '{"schema": "bnfold.baseline/1", "models": {"m": 7}}',
        '{"schema": "bnfold.baseline/9", "models": {}}',
        "\xff\xfe\x00",
    ],
)
def test_what_is_no_baseline(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"b\.json"):
        load(tmp_path / "b.json")


def test_no_baseline_and_no_place_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--update-baseline makes one"):
        load(tmp_path / "b.json")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        save(EMPTY, tmp_path / "nowhere" / "b.json")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.json"
    save(known(examined("m", finding())), path)
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(EnvironmentFault, match="No space left"):
        save(EMPTY, path)
    assert (path.read_bytes(), [p.name for p in tmp_path.iterdir()]) == (before, ["b.json"])


def test_names_are_relative_to_the_file(tmp_path: Path) -> None:
    target = Target(tmp_path / "models" / "m.onnx", "whatever")
    assert name_in(tmp_path / "b.json", target) == "models/m.onnx"
    assert name_in(tmp_path / "ci" / "b.json", target) == "../models/m.onnx"
    (tmp_path / "link").symlink_to("models", target_is_directory=True)
    assert name_in(tmp_path / "link" / "b.json", target) in {"m.onnx", "../models/m.onnx"}
