"""`--freeze`: defaults that the caller could override become constants, and the folds follow."""

from __future__ import annotations

import numpy as np
import pytest
from support.build import Net, feeds
from support.claims import expect, initializers, same_function

import bnfold

PARAMETERS = ("w", "b", "scale", "bias", "mean", "var")


def overridable(*names: str, opset: int = 13, ir: int = 7) -> Net:
    net = Net(opset, ir=ir)
    net.input("x", 1, 3, 6, 6)
    for name in names:
        net.input(name, *((4, 3, 3, 3) if name == "w" else (4,)))
    w, b = net.init(net.draw(4, 3, 3, 3), "w"), net.init(net.draw(4), "b")
    stats = {k: net.init(net.draw(4, low=0.5), k) for k in ("scale", "bias", "mean", "var")}
    net.output(net.bn(net.conv("x", 3, 4, weight=w, bias=b), 4, name="bn", stats=stats))
    return net


@pytest.mark.parametrize("names", [PARAMETERS, ("w",), ("mean", "var")], ids="-".join)
def test_without_it_they_are_kept_with_the_hint(names: tuple[str, ...]) -> None:
    result = expect(overridable(*names).model(), kept={"bn": "BNF022"})
    assert "freeze" in result.kept[0].reason.hint


@pytest.mark.parametrize("names", [PARAMETERS, ("w",), ("mean", "var")], ids="-".join)
def test_with_it_they_fold(names: tuple[str, ...]) -> None:
    model = overridable(*names).model()
    given = {"x": feeds(model)["x"]}
    result = expect(model, folded={"bn"}, kept={}, freeze=True, feeds=given)
    assert [i.name for i in result.model.graph.input] == ["x"]
    same_function(model, result.model, given)


def test_frozen_tensors_that_no_fold_touches_keep_their_bytes() -> None:
    net = overridable("b")
    net.input("other", 4)
    values = net.draw(4)
    net.init(values, "other")
    net.output(net.node("Add", "other", "other"))
    model = net.model()
    result = expect(model, folded={"bn"}, freeze=True, feeds={"x": feeds(model)["x"]})
    np.testing.assert_array_equal(initializers(result.model)["other"], values)
    assert [i.name for i in result.model.graph.input] == ["x"], "every default is frozen"


def test_inputs_without_a_default_stay_inputs() -> None:
    net = overridable("w")
    net.input("second", 1, 4, 4, 4)
    net.output(net.node("Relu", "second"))
    model = net.model()
    result = expect(model, folded={"bn"}, freeze=True)
    assert [i.name for i in result.model.graph.input] == ["x", "second"]


def test_nothing_to_freeze_changes_nothing() -> None:
    model = Net(13)
    x = model.input("x", 1, 3, 6, 6)
    model.output(model.node("Relu", x))
    proto = model.model()
    result = bnfold.optimize(proto, freeze=True, verify=False)
    assert result.model.SerializeToString() == proto.SerializeToString()


def test_ir_3_lists_stay_as_ir_3_needs_them() -> None:
    """In IR 3 the list of inputs is no offer to the caller; taking it away makes the model invalid."""
    net = Net(8, ir=3)
    net.output(net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4), 4, name="bn"))
    expect(net.model(), folded={"bn"}, freeze=True)


def test_the_report_says_what_was_frozen() -> None:
    result = bnfold.optimize(overridable("w", "mean").model(), freeze=True, verify=False)
    text = result.report.to_json()
    assert "froze" in text
    assert '"w"' in text
    assert '"mean"' in text
