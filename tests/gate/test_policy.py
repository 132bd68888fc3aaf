"""Which findings let the gate fail, and with what exit code."""

from __future__ import annotations

import itertools

import pytest
from support.gate import examined, finding

from bnfold.errors import UsageError
from bnfold.gate.finding import Examined, Kind, Survey
from bnfold.gate.policy import DEFAULT, judge, parse, stricter


def survey(*models: Examined, fail_on: tuple[Kind, ...] = DEFAULT, known: bool = False) -> Survey:
    return Survey("1", fail_on, tuple(judge(each, fail_on, lambda _finding: known) for each in models))


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["foldable"], (Kind.FOLDABLE,)),
        (["foldable,invalid"], (Kind.INVALID, Kind.FOLDABLE)),
        (["foldable", " mismatch , nonfinite"], (Kind.MISMATCH, Kind.NONFINITE, Kind.FOLDABLE)),
        (["foldable", "foldable"], (Kind.FOLDABLE,)),
        (["none"], ()),
        ([], ()),
    ],
    ids=str,
)
def test_the_list(names: list[str], kinds: tuple[Kind, ...]) -> None:
    assert set(parse(names)) == set(kinds)
    assert list(parse(names)) == [kind for kind in Kind if kind in kinds]


@pytest.mark.parametrize(
    "name", ["fold", "", "foldable,", "none,foldable", "kept", "inconclusive", "FOLDABLE"]
)
def test_no_such_kind(name: str) -> None:
    with pytest.raises(UsageError, match="foldable, mismatch, slower, nonfinite, invalid, or none"):
        parse([name])


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "fail_on", [parse([name]) for name in ("none", "foldable", "mismatch", "slower", "nonfinite", "invalid")]
)
def test_exit_codes(kind: Kind, fail_on: tuple[Kind, ...]) -> None:
    expected = 1 if kind in fail_on else 5 if kind is Kind.INCONCLUSIVE else 0
    assert survey(examined("m", finding(kind)), fail_on=fail_on).exit_code == expected
    assert survey(examined("m", finding(kind)), fail_on=fail_on, known=True).exit_code == 0


def test_which_exit_code_goes_first() -> None:
    """A gate that could not look says so: it does not know what else there is."""
    parts = {
        4: Examined("fault", fault="out of memory"),
        1: examined("fails", finding()),
        5: examined("doubtful", finding(Kind.INCONCLUSIVE)),
        0: examined("passes", finding(Kind.KEPT)),
    }
    order = (4, 1, 5, 0)
    for count in range(1, 5):
        for codes in itertools.permutations(parts, count):
            expected = next(code for code in order if code in codes)
            assert survey(*(parts[code] for code in codes)).exit_code == expected


def test_nothing_to_look_at_passes() -> None:
    assert survey().exit_code == 0


def test_every_normalization_must_be_gone() -> None:
    fail_on = stricter(DEFAULT)
    for kind in (Kind.KEPT, Kind.FOLDABLE, Kind.NONFINITE, Kind.INVALID):
        assert survey(examined("m", finding(kind)), fail_on=fail_on).exit_code == 1
    assert survey(examined("m", finding(Kind.MISMATCH)), fail_on=fail_on).exit_code == 0
    assert survey(examined("m"), fail_on=fail_on).exit_code == 0


def test_the_gravest_come_first() -> None:
    findings = [finding(kind) for kind in reversed(Kind)]
    judged = judge(examined("m", *findings), DEFAULT, lambda each: each.kind is Kind.FOLDABLE)
    assert [(each.standing, each.finding.kind) for each in judged.findings] == [
        ("fails", Kind.INVALID),
        ("known", Kind.FOLDABLE),
        ("noted", Kind.MISMATCH),
        ("noted", Kind.NONFINITE),
        ("noted", Kind.SLOWER),
        ("noted", Kind.INCONCLUSIVE),
        ("noted", Kind.KEPT),
    ]


def test_the_worst_models_come_first() -> None:
    models = (
        examined("a passes", finding(Kind.KEPT)),
        examined("b fails", finding()),
        examined("c fails twice", finding(), finding()),
        examined("d invalid", finding(Kind.INVALID)),
        Examined("e fault", fault="out of memory"),
        examined("f fails", finding()),
    )
    assert [model.name for model in survey(*models).worst_first] == [
        "e fault",
        "d invalid",
        "c fails twice",
        "b fails",
        "f fails",
        "a passes",
    ]
