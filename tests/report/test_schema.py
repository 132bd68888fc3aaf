"""The JSON report is a contract: within a version of the schema, keys and types stay."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnfold.report.schema import Report

CLOSENESS = {
    "relative_l2": "float",
    "sqnr_db": "float",
    "cosine": "float",
    "ulp_p50": "float",
    "ulp_p99": "float",
    "ulp_max": "float",
    "top1": "NoneType",  # a number for classifiers alone
}

DRAWING = {"boxes": [{"op": "str", "name": "str", "role": "str"}], "arrows": [["int"]]}

# The structure of version 1. Keys may be added, here and in the code; to change or remove one is version 2.
GOLDEN = {
    "schema": "str",
    "bnfold": "str",
    "model": {
        "source": "str",
        "output": "str",
        "sha256": "str",
        "opset": "int",
        "ir_version": "int",
        "producer": "str",
    },
    "summary": {
        "found": "int",
        "folded": "int",
        "kept": "int",
        "kept_by_code": {"BNF019": "int", "BNF022": "int"},
        "status": "str",
    },
    "size": {"before": {"nodes": "int", "bytes": "int"}, "after": {"nodes": "int", "bytes": "int"}},
    "folds": [
        {
            "node": "str",
            "op": "str",
            "scope": "str",
            "into": ["str"],
            "into_op": ["str"],
            "through": ["str"],
            "direction": "str",
        }
    ],
    "kept": [
        {
            "node": "str",
            "op": "str",
            "scope": "str",
            "code": "str",
            "reasons": [{"code": "str", "blocking": "str", "evidence": "str", "hint": "str"}],
        }
    ],
    "merged": ["str"],
    "frozen": ["str"],
    "verdict": {
        "schema": "str",
        "status": "str",
        "summary": "str",
        "outputs": [
            {
                "output": "str",
                "feed": "str",
                "level": "str",
                "against": "str",
                "signal_rms": "float",
                "original_rms": "float",
                "original_max": "float",
                "folded_rms": "float",
                "folded_max": "float",
                "ratio": "float",
                "limit_rms": "float",
                "limit_max": "float",
                "rule": "str",
                "outcome": "str",
                "note": "str",
                "original": CLOSENESS,
                "folded": CLOSENESS,
            }
        ],
        "findings": ["str"],
        "feeds": ["str"],
        "provider": "str",
        "seed": "int",
        "seconds": "float",
        "per_fold": [],
        "guilty": [],
        "original_sha256": "str",
        "folded_sha256": "str",
    },
    "notes": ["str"],
    "seconds": {"read": "float", "plan": "float", "write": "float", "verify": "float", "bench": "float"},
    "benchmark": "NoneType",  # its own schema: benchmarking/test_pair.py
    "result_sha256": "str",
    "options": {"freeze": "bool", "include": [], "exclude": ["str"], "merge": "bool", "seed": "int"},
    "environment": {"python": "str", "onnx": "str"},
    "patterns": [
        {"folds": ["int"], "direction": "str", "before": DRAWING, "after": DRAWING, "left_out": "int"}
    ],
    "obstructions": [
        {"kept": ["int"], "around": DRAWING, "obstacles": ["int"], "far": "int", "left_out": "int"}
    ],
}


def structure(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Keys and names of types; a list is its longest entry's."""
    if isinstance(value, dict):
        return {key: structure(each) for key, each in value.items()}
    if isinstance(value, list):
        return [max((structure(each) for each in value), key=lambda s: len(str(s)))] if value else []
    return type(value).__name__


def test_the_structure_is_that_of_version_1(full: Report) -> None:
    data = json.loads(full.to_json())
    assert data["schema"] == "bnfold.report/1"
    data["patterns"][0]["after"]["arrows"] = [[0, 0]]  # where there is one
    assert structure(data) == GOLDEN


def test_the_order_is_that_of_the_schema(full: Report) -> None:
    """People read it too, and a diff of two reports should show what changed."""
    assert list(json.loads(full.to_json())) == list(GOLDEN)


def test_what_there_is_not_is_null(bare: Report) -> None:
    data = json.loads(bare.to_json())
    assert (data["model"]["source"], data["model"]["output"]) == (None, None)
    assert (data["size"]["after"], data["verdict"], data["summary"]["status"]) == (None, None, None)
    assert (data["folds"], data["kept"], data["summary"]["kept_by_code"]) == ([], [], {})
    assert structure(data).keys() == GOLDEN.keys()


def test_the_summary_counts(full: Report) -> None:
    summary = full.to_dict()["summary"]
    assert (summary["found"], summary["folded"], summary["kept"]) == (4, 2, 2)
    assert list(summary["kept_by_code"].items()) == [("BNF019", 1), ("BNF022", 1)]


def test_it_is_strict_json(full: Report) -> None:
    """No NaN, no Infinity: jq and browsers refuse them."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(full.to_json(), parse_constant=refuse) == json.loads(json.dumps(full.to_dict()))
