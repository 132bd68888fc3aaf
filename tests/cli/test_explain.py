"""`bnfold inspect --explain NAME`: what was tried for one normalization."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support import command
from support.build import Net
from support.command import Outcome

from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[..., Outcome]


@pytest.fixture
def explained(folder: Path, call: Call) -> Call:
    """`explained(net, NAME, ...)`."""

    def run(net: Net, *arguments: str) -> Outcome:
        command.save(net.model(), folder / "net.onnx")
        return call("inspect", "net.onnx", "--explain", *arguments)

    return run


def joined() -> Net:
    """A BN behind a Concat of a pooled Conv and an input, before a Relu."""
    net = Net()
    pooled = net.node("AveragePool", net.conv("x", 3, 4, name="conv"), name="pool", kernel_shape=[1, 1])
    net.input("x", 1, 3, 6, 6)
    net.input("z", 1, 2, 4, 4)
    y = net.node("Concat", pooled, "z", name="cat", axis=1)
    net.output(net.node("Relu", net.bn(y, 6, name="bn", out="bn_out"), name="relu"))
    return net


def test_the_way_and_what_ended_it(explained: Call) -> None:
    found = explained(joined(), "bn")
    assert (found.code, found.err) == (Exit.DONE, "")
    head, *lines = found.out.splitlines()
    assert head.startswith("bn  BatchNormalization  stays: BNF")
    backward, forward = (lines.index(line) for line in lines if "the data flow:" in line)
    tried = [line for line in lines[backward:forward] if "BNF" not in line]
    assert tried == [
        "against the data flow: leads nowhere",
        "  Concat 'cat' passes it on",
        "    AveragePool 'pool' passes it on",
        "      Conv 'conv' takes it in",
        "    tensor 'z' refuses",
    ]
    assert lines[forward + 1] == "  Relu 'relu' refuses"
    assert "BNF018" in lines[forward + 2]


def test_by_the_name_of_its_output(explained: Call) -> None:
    assert explained(joined(), "bn_out").out == explained(joined(), "bn").out


def test_as_data(explained: Call) -> None:
    data = json.loads(explained(joined(), "bn", "--json").out)
    assert data["schema"] == "bnfold.explanation/1"
    (one,) = data["explanations"]
    assert one["fold"] is None
    assert one["refusal"]["node"] == "bn"
    backward, forward = one["attempts"]
    assert [a["direction"] for a in (backward, forward)] == ["backward", "forward"]
    asked = [(s["depth"], s["node"], s["op"], s["answer"]) for s in backward["steps"]]
    assert asked == [
        (0, "cat", "Concat", "passes it on"),
        (1, "pool", "AveragePool", "passes it on"),
        (2, "conv", "Conv", "takes it in"),
        (1, "z", "", "refuses"),
    ]
    assert backward["steps"][-1]["reasons"][0]["code"] == "BNF019"
    assert backward["reasons"]


def test_one_that_folds(explained: Call) -> None:
    net = Net()
    net.output(net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv"), 4, name="bn"))
    assert explained(net, "bn").out.splitlines() == [
        "bn  BatchNormalization  folds backward into Conv 'conv'",
        "against the data flow: everything is taken in",
        "  Conv 'conv' takes it in",
    ]
    (one,) = json.loads(explained(net, "bn", "--json").out)["explanations"]
    assert one["fold"]["into"] == ["conv"]
    assert one["refusal"] is None


def test_one_that_folds_forward(explained: Call) -> None:
    net = Net()
    net.output(net.conv(net.bn(net.input("x", 1, 3, 6, 6), 3, name="bn"), 3, 4, name="conv"))
    lines = explained(net, "bn").out.splitlines()
    assert lines[0] == "bn  BatchNormalization  folds forward into Conv 'conv'"
    assert lines[-2:] == ["along the data flow: everything is taken in", "  Conv 'conv' takes it in"]


def test_a_tensor_that_others_read(explained: Call) -> None:
    """The reason is the edge, and it shows who would have taken the map in."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv", out="y")
    net.output(net.node("Relu", net.bn(y, 4, name="bn")), net.node("Abs", y))
    lines = explained(net, "bn").out.splitlines()
    assert lines[0].endswith("stays: BNF010")
    at = lines.index("  tensor 'y' refuses")
    assert "BNF010" in lines[at + 1]
    assert lines[at + 2] == "  Conv 'conv' takes it in"


def test_one_that_is_reason_enough_itself(explained: Call) -> None:
    """Nothing was searched for it."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn", stats={"var": -np.ones(4)}))
    lines = explained(net, "bn").out.splitlines()
    assert lines[0].endswith("stays: BNF021")
    assert not any("the data flow" in line for line in lines)


def test_what_an_earlier_search_found_is_shown_again(explained: Call) -> None:
    """Two normalizations behind one edge: the second one's way is complete, too."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv", out="y")
    net.output(*(net.node("Relu", net.bn(y, 4, name=name)) for name in ("first", "second")))
    for name in ("first", "second"):
        assert "  Conv 'conv' takes it in" in explained(net, name).out.splitlines()


def test_two_of_one_name(explained: Call) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    net.output(*(net.bn(net.conv(x, 3, 4, name=c), 4, name="bn") for c in ("one", "two")))
    out = explained(net, "bn").out
    assert "into Conv 'one'" in out
    assert "into Conv 'two'" in out


@pytest.mark.parametrize(("name", "near"), [("bm", "bn"), ("_out", "bn_out"), ("conv", "names them all")])
def test_a_name_that_is_none(explained: Call, name: str, near: str) -> None:
    found = explained(joined(), name)
    assert (found.code, found.out) == (Exit.USAGE, "")
    assert near in found.error


def test_no_report_with_it(explained: Call) -> None:
    found = explained(joined(), "bn", "--report", "r.json")
    assert found.code == Exit.USAGE
    assert "--explain" in found.error
