"""The search: all branches or nothing, the reason that lies deepest, and no graph that takes long."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.build import Net
from support.claims import BN, expect, ops

import bnfold
from bnfold.fold import search
from bnfold.fold.obstacles import HORIZON
from bnfold.fold.ops import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import ModelProto

POSITIVE = {"scale": np.array([0.5, 1.5, 0.25, 2.0])}
SCALING = {**POSITIVE, "bias": np.zeros(4), "mean": np.zeros(4)}


def start(opset: int = 17) -> tuple[Net, str]:
    net = Net(opset)
    return net, net.input("x", 1, 4, 6, 6)


def conv(net: Net, x: str, **attrs: Any) -> str:  # noqa: ANN401 - attributes of a node
    """Four channels to four; `pads` keeps the size, nothing makes it smaller."""
    return net.conv(x, 4, 4, **attrs)


def nothing_moved(model: ModelProto, kept: Mapping[str, str | set[str]]) -> None:
    result = expect(model, folded=set(), kept=kept)
    assert result.model.SerializeToString() == model.SerializeToString()


# --- all branches absorb, or nothing moves ----------------------------------------------------------------


def test_every_consumer_absorbs() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn")
    net.output(*(conv(net, y, name=name) for name in "abc"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["Conv"] * 3
    assert result.folds[0].into == ("a", "b", "c")
    assert result.folds[0].direction == "forward"


@pytest.mark.parametrize("last", [False, True])
def test_one_consumer_that_cannot_stops_all(*, last: bool) -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn")
    readers = [conv(net, y) for _ in range(3)]
    readers.insert(3 if last else 0, net.node("Sigmoid", y))
    net.output(*readers)
    nothing_moved(net.model(), {"bn": "BNF019"})


@pytest.mark.parametrize("last", [False, True])
def test_one_padded_consumer_stops_all_unless_there_is_no_shift(*, last: bool) -> None:
    for stats, kept in ((POSITIVE, {"bn": "BNF014"}), (SCALING, {})):
        net, x = start()
        y = net.bn(x, 4, name="bn", stats=stats)
        readers = [conv(net, y), net.node("Gemm", net.node("Flatten", y), net.init(net.draw(144, 3)))]
        readers.insert(2 if last else 0, conv(net, y, name="padded", pads=[0, 0, 0, 1]))
        net.output(*readers)
        if kept:
            nothing_moved(net.model(), kept)
        else:
            expect(net.model(), folded={"bn"})


def test_one_branch_of_a_concat_that_cannot_stops_all() -> None:
    net, x = start()
    y = net.node("Concat", conv(net, x), net.node("Sigmoid", conv(net, x)), axis=1)
    net.output(net.bn(y, 8, name="bn"))
    nothing_moved(net.model(), {"bn": "BNF019"})


def test_a_failed_option_leaves_nothing_behind() -> None:
    """The shift goes with the first term until its second branch refuses; then with the other term."""
    net, x = start()
    inner = net.node("Add", net.conv(x, 4, 2), net.conv(x, 4, 2))
    inner = net.node("Add", inner, net.init(net.draw(2, 1, 1)))
    left = net.node("Concat", inner, net.node("Relu", net.conv(x, 4, 2)), axis=1)
    net.output(net.bn(net.node("Add", left, conv(net, x)), 4, name="bn", stats=POSITIVE))
    result = expect(net.model(), folded={"bn"})
    assert len(result.folds[0].into) == 4


def test_a_consumer_that_reads_the_tensor_twice() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn")
    net.output(conv(net, net.node("Add", y, y)))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
def test_a_producer_read_twice_by_one_node(op: str) -> None:
    net, x = start()
    y = conv(net, x)
    net.output(net.bn(net.node(op, y, y), 4, name="bn"))
    nothing_moved(net.model(), {"bn": "BNF010" if op in {"Add", "Sub"} else "BNF019"})


def test_a_diamond_that_meets_again_forward() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn", stats=SCALING)
    net.output(conv(net, net.node("Add", net.node("Relu", y), net.node("Relu", y))))
    expect(net.model(), folded={"bn"})


def test_a_diamond_that_meets_again_backward() -> None:
    net, x = start()
    y = conv(net, x)
    y = net.node("Add", net.node("Relu", y), net.node("Relu", y))
    net.output(net.bn(y, 4, name="bn", stats=SCALING))
    nothing_moved(net.model(), {"bn": "BNF010"})


@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_concat_of_a_tensor_with_itself(direction: str) -> None:
    net, x = start()
    if direction == "backward":
        y = conv(net, x)
        net.output(net.bn(net.node("Concat", y, y, axis=1), 8, name="bn"))
    else:
        y = net.bn(x, 4, name="bn")
        net.output(net.conv(net.node("Concat", y, y, axis=1), 8, 4))
        expect(net.model(), folded={"bn"})
        return
    nothing_moved(net.model(), {"bn": "BNF010"})


def test_two_convolutions_with_one_weight() -> None:
    """Both branches absorb, each its own channels: the shared weight becomes two."""
    net, x = start()
    w = net.init(net.draw(4, 4, 3, 3))
    y = net.node("Concat", conv(net, x, weight=w), conv(net, x, weight=w), axis=1)
    net.output(net.bn(y, 8, name="bn"))
    expect(net.model(), folded={"bn"})


def test_the_output_of_a_normalization_is_a_graph_output() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn", out="y")
    net.output("y", conv(net, y))
    nothing_moved(net.model(), {"bn": "BNF011"})


def test_a_tensor_on_the_way_is_a_graph_output() -> None:
    net, x = start()
    y = net.node("Transpose", conv(net, x), perm=[0, 1, 3, 2])
    net.output(y, net.bn(net.node("Identity", y), 4, name="bn"))
    nothing_moved(net.model(), {"bn": "BNF011"})


def test_consumers_in_both_bodies_of_an_if() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn")
    bodies = {}
    for which in ("then_branch", "else_branch"):
        inner = Net(prefix=which)
        inner.output(conv(inner, y, name=which), shape=[1, 4, 4, 4])
        bodies[which] = inner.graph(which)
    net.input("condition", elem=9)
    net.output(net.node("If", "condition", **bodies))
    result = expect(net.model(), folded={"bn"})
    assert set(result.folds[0].into) == {"then_branch", "else_branch"}


def test_a_consumer_in_one_body_that_cannot() -> None:
    net, x = start()
    y = net.bn(x, 4, name="bn")
    bodies = {}
    for which in ("then_branch", "else_branch"):
        inner = Net(prefix=which)
        z = conv(inner, y) if which == "then_branch" else conv(inner, inner.node("Sigmoid", y))
        inner.output(z, shape=[1, 4, 4, 4])
        bodies[which] = inner.graph(which)
    net.input("condition", elem=9)
    net.output(net.node("If", "condition", **bodies))
    nothing_moved(net.model(), {"bn": "BNF019"})


# --- chains -----------------------------------------------------------------------------------------------


def chain(net: Net, x: str, broken: str | None) -> str:
    """One operator of each kind, on four channels; of `broken` a form that does not let the map pass."""
    last, first = [0, 2, 3, 1], [0, 3, 1, 2]
    y = net.node("Transpose", x, perm=last)
    y = net.node("Slice", y, net.ints(1), net.ints(6), net.ints(2))
    y = net.node("Pad", y, net.ints(0, 1, 1, 0, 0, 1, 1, 0), mode="edge")
    y = net.node("Transpose", y, perm=last if broken == "Transpose" else first, name="Transpose")
    pads = [1, 1, 1, 1] if broken == "AveragePool" else [0, 0, 0, 0]
    y = net.node("AveragePool", y, kernel_shape=[3, 3], pads=pads, count_include_pad=1, name="AveragePool")
    y = net.node("Gather", y, net.init(np.array([2, 0, 3, 1]), elem=7), axis=1)
    y = net.node("Clip", y, net.init(0.0), name="Clip") if broken == "Clip" else y
    y = net.node("Concat", y, net.node("Identity", y), axis=2)
    return net.node("Mul", y, net.init(net.draw(4, 1, 1)))


@pytest.mark.parametrize(
    ("broken", "code"),
    [(None, None), ("Transpose", "BNF023"), ("AveragePool", "BNF014"), ("Clip", "BNF018")],
)
def test_a_chain_breaks_at_its_weakest_link_or_nowhere(broken: str | None, code: str | None) -> None:
    net, x = start()
    y = net.node("Identity", net.bn(x, 4, name="bn", stats=POSITIVE))
    net.output(net.conv(chain(net, y, broken), 4, 3, (1, 1)), shape=(None,) * 4)
    kept = {} if code is None else {"bn": code}
    result = expect(net.model(), folded={"bn"} - set(kept), kept=kept)
    if broken in {"AveragePool", "Clip"}:
        assert result.kept[0].reason.blocking == broken


# --- one normalization after another ----------------------------------------------------------------------


def test_two_normalizations_in_a_row_before_a_convolution() -> None:
    """The second goes into the first, which then goes on as what it has become."""
    net, x = start()
    y = net.bn(net.bn(x, 4, name="first"), 4, name="second")
    net.output(conv(net, y))
    assert ops(expect(net.model(), folded={"first", "second"}).model) == ["Conv"]


def test_a_normalization_that_took_another_in_goes_on_forward() -> None:
    net, x = start()
    y = net.node("MaxPool", net.bn(x, 4, name="first", stats=POSITIVE), kernel_shape=[2, 2])
    y = net.bn(y, 4, name="second", stats={"scale": -np.ones(4)})
    net.output(conv(net, y))
    assert ops(expect(net.model(), folded={"first", "second"}).model) == ["MaxPool", "Conv"]


def test_two_thousand_normalizations_in_a_row() -> None:
    net = Net()
    x = net.input("x", 1, 1, 1, 1)
    for i in range(2000):
        gain = {"scale": np.ones(1), "mean": np.ones(1) * (i % 3 - 1), "var": np.ones(1)}
        x = net.bn(x, 1, name=f"bn{i}", stats=gain)
    net.output(net.conv(x, 1, 1, (1, 1)))
    result = bnfold.optimize(net.model(), verify=False)
    assert ops(result.model) == ["Conv"]
    assert len(result.folds) == 2000


# --- the true reason --------------------------------------------------------------------------------------


def test_the_reason_lies_deepest_upstream() -> None:
    """Not the Transpose that was passed, but the Sigmoid behind it."""
    net, x = start()
    y = net.node("Sigmoid", conv(net, x), name="blocks")
    y = net.node("Transpose", net.node("Transpose", y, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF019"})
    assert result.kept[0].reason.blocking == "blocks"


def test_the_reason_lies_deepest_downstream() -> None:
    """Upstream the search ends at once, downstream three nodes later at a padded convolution."""
    net, x = start()
    y = net.node("Identity", net.node("Identity", net.bn(x, 4, name="bn")))
    net.output(conv(net, y, name="blocks", pads=[1, 1, 1, 1]))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF014"})
    assert result.kept[0].reason.blocking == "blocks"


def test_the_reason_of_a_shared_edge_is_the_edge_only_if_there_are_weights() -> None:
    net, x = start()
    y = conv(net, x)
    net.output(net.bn(y, 4, name="shared"), net.node("Sigmoid", y, name="s"))
    expect(net.model(), folded=set(), kept={"shared": "BNF010"})
    net, x = start()
    y = net.node("Sigmoid", conv(net, x))
    net.output(net.bn(y, 4, name="shared"), net.node("Sigmoid", y))
    expect(net.model(), folded=set(), kept={"shared": "BNF019"})


def test_a_normalization_that_reads_an_input_and_feeds_nothing_linear() -> None:
    net, x = start()
    net.output(net.node("Sigmoid", net.bn(x, 4, name="bn")))
    nothing_moved(net.model(), {"bn": "BNF019"})


# --- cost -------------------------------------------------------------------------------------------------


def test_one_normalization_is_not_exchanged_for_three_additions() -> None:
    net = Net()
    x = net.input("x", 2, 4, 4)
    y = net.node("Transpose", net.bn(x, 4, name="bn"), perm=[0, 2, 1])
    net.output(*(net.node("MatMul", y, net.init(net.draw(4, 5))) for _ in range(3)))
    nothing_moved(net.model(), {"bn": "BNF025"})


def test_one_normalization_is_exchanged_for_one_addition() -> None:
    net = Net()
    x = net.input("x", 2, 4, 4)
    y = net.node("Transpose", net.bn(x, 4, name="bn"), perm=[0, 2, 1])
    net.output(net.node("MatMul", y, net.init(net.draw(4, 5))))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "MatMul", "Add"]


def test_one_normalization_is_not_exchanged_for_two_additions() -> None:
    """One more than the only addition that is a gain."""
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 2, 4, 4), 4, name="bn"), perm=[0, 2, 1])
    net.output(*(net.node("MatMul", y, net.init(net.draw(4, 5))) for _ in range(2)))
    nothing_moved(net.model(), {"bn": "BNF025"})


def test_one_addition_beside_a_convolution_that_needs_none() -> None:
    net = Net()
    x = net.input("x", 2, 4, 4)
    y = net.bn(x, 4, name="bn")
    product = net.node("MatMul", net.node("Transpose", y, perm=[0, 2, 1]), net.init(net.draw(4, 5)))
    net.output(product, net.conv(y, 4, 3, (1,)))
    assert sorted(ops(expect(net.model(), folded={"bn"}).model)) == ["Add", "Conv", "MatMul", "Transpose"]


def test_backward_one_normalization_is_not_exchanged_for_two_additions() -> None:
    """Two products of their own features, joined before the normalization."""
    for parts, kept in ((1, {}), (2, {"bn": "BNF025"})):
        net = Net()
        x = net.input("x", 2, 3, 4)
        products = [net.node("MatMul", x, net.init(net.draw(4, 2))) for _ in range(parts)]
        y = net.node("Transpose", net.node("Concat", *products, axis=2), perm=[0, 2, 1])
        net.output(net.bn(y, 2 * parts, name="bn"))
        if kept:
            nothing_moved(net.model(), kept)
        else:
            assert ops(expect(net.model(), folded={"bn"}).model).count("Add") == 1


@pytest.mark.parametrize("stats", [None, POSITIVE, SCALING])
def test_a_normalization_that_stays_is_not_spelled_out(stats: Mapping[str, Any] | None) -> None:
    """Not even by the one Mul that a scale without a shift would be."""
    net, x = start()
    y = net.bn(net.node("Sigmoid", x), 4, name="bn", stats=stats)
    net.output(net.node("Sigmoid", y))
    nothing_moved(net.model(), {"bn": "BNF019"})


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_no_layer_is_computed_twice_to_free_a_tensor(op: str) -> None:
    net = Net()
    if op.startswith("Conv"):
        y = net.node(op, net.input("x", 1, 4, 5, 5), net.init(net.draw(4, 4, 1, 1)))
    else:
        y = net.node(op, net.input("x", 2, 4), net.init(net.draw(4, 4)))
    net.output(net.node("Sigmoid", y), net.node("Sigmoid", net.bn(y, 4, name="bn")))
    nothing_moved(net.model(), {"bn": "BNF010"})


def test_three_matrix_products_without_a_shift_need_no_addition() -> None:
    net = Net()
    x = net.input("x", 2, 4, 4)
    y = net.node("Transpose", net.bn(x, 4, name="bn", stats=SCALING), perm=[0, 2, 1])
    net.output(*(net.node("MatMul", y, net.init(net.draw(4, 5))) for _ in range(3)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "MatMul", "MatMul", "MatMul"]


# --- no graph takes long ----------------------------------------------------------------------------------


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each operator is asked, in either direction."""
    asked: Counter[str] = Counter()

    def counted(op: str, rule: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if rule is None:
            return None

        def ask(*args: Any) -> Any:  # noqa: ANN401 - whatever the rule takes and gives
            asked[op] += 1
            return rule(*args)

        return ask

    table = {
        op: replace(row, backward=counted(op, row.backward), forward=counted(op, row.forward))
        for op, row in TABLE.items()
    }
    monkeypatch.setattr(search, "TABLE", table)
    return asked


def tree(net: Net, x: str, depth: int, *, last: str = "Conv") -> str:
    """`Add(Add(Add(c, c), c), c)`: linear branches, the innermost one of `last`."""
    y = net.conv(x, 2, 2, (1, 1))
    y = y if last == "Conv" else net.node(last, y)
    for _ in range(depth):
        y = net.node("Add", y, net.conv(x, 2, 2, (1, 1)))
    return y


def biased_tree(net: Net, x: str, depth: int) -> str:
    """The same with a constant added at every step, so that a map without a shift gets one on the way."""
    y = net.node("Sigmoid", net.conv(x, 2, 2, (1, 1)))
    for _ in range(depth):
        y = net.node("Add", net.node("Add", y, net.conv(x, 2, 2, (1, 1))), net.init(net.draw(2, 1, 1)))
    return y


def diamonds(net: Net, x: str, depth: int) -> str:
    """Each sum reads the one before twice, by two ways: 2**depth paths."""
    y = net.conv(x, 2, 2, (1, 1))
    for _ in range(depth):
        y = net.node("Add", net.node("Identity", y), net.node("Identity", y))
    return y


def scaled_diamonds(net: Net, x: str, depth: int) -> str:
    """The same, with another scale on every path."""
    y = net.conv(x, 2, 2, (1, 1))
    for i in range(depth):
        halves = [
            net.node("Mul", y, net.init(np.array([[[1.0 + i]], [[1 / (2.0 + i + j)]]]))) for j in (0, 1)
        ]
        y = net.node("Add", *halves)
    return y


def concats(net: Net, x: str, depth: int) -> str:
    """Concat of Concat of ..., halved again each time."""
    y = net.conv(x, 2, 2, (1, 1))
    for _ in range(depth):
        y = net.node("Concat", net.node("Identity", y), net.node("Identity", y), axis=1)
        y = net.node("Slice", y, net.ints(1), net.ints(3), net.ints(1))
    return y


def dense(net: Net, x: str, depth: int) -> str:
    """DenseNet: every layer reads all that came before it."""
    y = net.conv(x, 2, 2, (1, 1))
    for i in range(depth):
        y = net.node("Concat", y, net.conv(y, 2 + i, 1, (1, 1)), axis=1)
    return net.node("Slice", y, net.ints(0), net.ints(2), net.ints(1))


def dense_norms(net: Net, x: str, depth: int) -> str:
    """The same with a normalization before every layer, that no layer can take in."""
    y = net.conv(x, 2, 2, (1, 1))
    for i in range(depth):
        z = net.node("Relu", net.bn(y, 2 + i, stats={"scale": -np.linspace(0.5, 1.5, 2 + i)}))
        y = net.node("Concat", y, net.conv(z, 2 + i, 1, (1, 1)), axis=1)
    return y


def taps(net: Net, x: str, depth: int) -> str:
    """One long chain at whose end many sums read."""
    end = net.conv(x, 2, 2, (1, 1))
    for _ in range(depth):
        end = net.node("Identity", end)
    y = end
    for _ in range(depth):
        y = net.node("Add", y, net.node("Identity", end))
    return y


def forks(net: Net, x: str, depth: int) -> str:
    """Forward: at every step a Conv takes its part, and the rest goes on."""
    y = net.bn(x, 2, stats={"scale": np.ones(2) * 0.5})
    for _ in range(depth):
        net.output(net.conv(y, 2, 2, (1, 1)))
        y = net.node("MaxPool", y, kernel_shape=[1, 1])
    return net.conv(y, 2, 2, (1, 1))


def forward_concats(net: Net, x: str, depth: int) -> str:
    """Forward: every Concat gets the map by two ways."""
    y = net.bn(x, 2, stats={"scale": np.ones(2) * 0.5})
    for _ in range(depth):
        y = net.node("Concat", net.node("Identity", y), net.node("Identity", y), axis=1)
        y = net.node("Slice", y, net.ints(1), net.ints(3), net.ints(1))
    return net.conv(y, 2, 2, (1, 1))


LADDERS = [tree, biased_tree, diamonds, scaled_diamonds, concats, dense, taps, forks, forward_concats]


def asked_in(ladder: Callable[[Net, str, int], str], depth: int, asked: Counter[str]) -> int:
    net = Net()
    y = ladder(net, net.input("x", 1, 2, 3, 3), depth)
    net.output(net.bn(y, 2, stats={"scale": np.array([0.5, 1.5])}))
    asked.clear()
    bnfold.optimize(net.model(), verify=False, merge=False)
    return asked.total()


@pytest.mark.parametrize("ladder", [item for item in LADDERS if item is not biased_tree])
def test_twice_the_depth_takes_twice_the_questions(
    ladder: Callable[[Net, str, int], str], questions: Counter[str]
) -> None:
    counts = [asked_in(ladder, depth, questions) for depth in (30, 60, 120, 240)]
    assert counts[0] > 30, "the ladder is climbed at all"
    for shorter, longer in pairwise(counts):
        assert longer <= 2.2 * shorter, counts


def residual(net: Net, x: str, depth: int) -> str:
    """A normalization at the head of every branch, as in a pre-activation ResNet: all of them stay."""
    y = net.conv(x, 2, 2, (1, 1))
    for _ in range(depth):
        z = net.bn(y, 2, stats={"scale": np.array([-0.5, 1.5])})
        y = net.node("Add", y, net.conv(net.node("Relu", z), 2, 2, (1, 1)))
    return y


@pytest.mark.parametrize("ladder", [residual, dense_norms])
def test_many_normalizations_look_behind_the_same_edges(
    ladder: Callable[[Net, str, int], str], questions: Counter[str]
) -> None:
    """What one of them found there is not asked again for the next."""
    counts = []
    for depth in (30, 60, 120):
        net = Net()
        net.output(ladder(net, net.input("x", 1, 2, 3, 3), depth))
        questions.clear()
        result = bnfold.inspect(net.model(), merge=False)
        assert len(result.kept) >= depth
        assert {r.code for r in result.kept} == {"BNF010"}
        counts.append(questions.total())
    for shorter, longer in pairwise(counts):
        assert longer <= 2.2 * shorter, counts


def test_shifts_picked_up_on_the_way_take_no_more_than_the_square(questions: Counter[str]) -> None:
    """At each depth there are as many different maps as sums that may have kept their shift."""
    counts = [asked_in(biased_tree, depth, questions) for depth in (15, 30, 60)]
    for shorter, longer in pairwise(counts):
        assert longer <= 4.4 * shorter, counts


@pytest.mark.parametrize("last", ["Conv", "Sigmoid"])
def test_a_deep_tree_of_sums(last: str) -> None:
    """Deeper than Python's own stack."""
    net = Net()
    y = tree(net, net.input("x", 1, 2, 3, 3), 400, last=last)
    net.output(net.bn(y, 2, name="bn"))
    result = bnfold.optimize(net.model(), verify=False, merge=False)
    assert len(result.folds) == (last == "Conv")


@pytest.mark.parametrize("depth", [100, 3000])
@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_a_long_chain(direction: str, depth: int) -> None:
    """A chain beyond the horizon is left alone, with a reason."""
    net, x = start()
    y = conv(net, x) if direction == "backward" else net.bn(x, 4, name="bn")
    for _ in range(depth):
        y = net.node("Identity", y)
    net.output(net.bn(y, 4, name="bn") if direction == "backward" else conv(net, y))
    result = bnfold.optimize(net.model(), verify=False)
    near = depth < HORIZON
    assert len(result.folds) == near
    assert [(r.node, str(r.code)) for r in result.kept] == ([] if near else [("bn", "BNF019")])


def test_two_thousand_normalizations_side_by_side(questions: Counter[str]) -> None:
    net, x = start()
    for _ in range(2000):
        net.output(net.bn(net.conv(x, 4, 1, (1, 1)), 1))
    result = bnfold.optimize(net.model(), verify=False)
    assert BN not in ops(result.model)
    assert questions.total() == 2000


def test_a_reader_that_undoes_the_map_reads_the_tensor_all_the_same() -> None:
    """Its result would be that of no arithmetic at all; but it is there, and would be wrong by the map."""
    net, x = start()
    y = conv(net, x)
    half = np.full((4, 1, 1), 0.5)
    stats = {"scale": np.ones(4), "bias": half.reshape(4), "mean": np.zeros(4), "var": np.ones(4)}
    normalized = net.bn(y, 4, name="bn", stats=stats, epsilon=0.0)
    net.output(normalized, net.node("Sub", y, net.init(half)))
    expect(net.model(), kept={"bn": "BNF010"})
