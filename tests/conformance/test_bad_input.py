"""Bad input: exit 3, one line on stderr that says what and where, no traceback, no output file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from support.build import Net, tensor

import bnfold
from bnfold.errors import ModelError

Damage = Callable[[Path], None]


def model() -> ModelProto:
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    y = net.conv(x, 3, 4, name="conv", weight=net.init(net.draw(4, 3, 3, 3), "the_weight"), out="conv_out")
    y = net.node("Relu", net.bn(y, 4, name="the_bn", out="bn_out"), name="act", out="act_out")
    net.output(net.conv(y, 4, 2, name="last", out="y"))
    return net.model()


def saved(change: Callable[[ModelProto], object]) -> Damage:
    """The model with one thing wrong in it."""

    def write(path: Path) -> None:
        broken = model()
        change(broken)
        path.write_bytes(broken.SerializeToString())

    return write


def raw(data: bytes | Callable[[bytes], bytes]) -> Damage:
    def write(path: Path) -> None:
        path.write_bytes(data if isinstance(data, bytes) else data(model().SerializeToString()))

    return write


def find(broken: ModelProto, name: str) -> TensorProto:
    found: TensorProto = next(t for t in broken.graph.initializer if t.name == name)
    return found


def cycle(broken: ModelProto) -> None:
    broken.graph.node[0].input[0] = "act_out"


def unsorted(broken: ModelProto) -> None:
    first = broken.graph.node[0]
    copy = onnx.NodeProto()
    copy.CopyFrom(first)
    del broken.graph.node[0]
    broken.graph.node.append(copy)


def missing_tensor(broken: ModelProto) -> None:
    broken.graph.node[2].input[0] = "nowhere"


def missing_weight(broken: ModelProto) -> None:
    broken.graph.initializer.remove(find(broken, "the_weight"))


def missing_output(broken: ModelProto) -> None:
    broken.graph.output[0].name = "never_made"


def value_twice(broken: ModelProto) -> None:
    broken.graph.node[2].output[0] = "bn_out"


def initializer_twice(broken: ModelProto) -> None:
    broken.graph.initializer.append(find(broken, "the_weight"))


def input_made_again(broken: ModelProto) -> None:
    broken.graph.node[2].output[0] = "x"


def no_opset(broken: ModelProto) -> None:
    del broken.opset_import[:]


def bn_input_missing(broken: ModelProto) -> None:
    del broken.graph.node[1].input[-1]


def bn_input_empty(broken: ModelProto) -> None:
    broken.graph.node[1].input[3] = ""


def statistics_of_wrong_length(broken: ModelProto) -> None:
    name = broken.graph.node[1].input[3]
    find(broken, name).CopyFrom(tensor(np.ones(5), name))


def scalar_statistics(broken: ModelProto) -> None:
    for name in list(broken.graph.node[1].input)[1:]:
        find(broken, name).CopyFrom(tensor(np.ones(1), name))


def weight_data_short(broken: ModelProto) -> None:
    weight = find(broken, "the_weight")
    weight.raw_data = weight.raw_data[:-4]


def weight_data_long(broken: ModelProto) -> None:
    find(broken, "the_weight").raw_data += b"\0\0\0\0"


def weight_data_absent(broken: ModelProto) -> None:
    find(broken, "the_weight").ClearField("raw_data")


def typed_data_short(broken: ModelProto) -> None:
    weight = find(broken, "the_weight")
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(tensor(values, "the_weight", typed=True))
    del weight.float_data[-1]


def negative_dimension(broken: ModelProto) -> None:
    find(broken, "the_weight").dims[0] = -4


def no_graph(broken: ModelProto) -> None:
    broken.ClearField("graph")


def external(location: str, *, offset: str = "0", length: str | None = None) -> Damage:
    """The weight's bytes in another file, as the model claims."""

    def write(path: Path) -> None:
        broken = model()
        weight = find(broken, "the_weight")
        data = weight.raw_data
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        weight.external_data.add(key="offset", value=offset)
        weight.external_data.add(key="length", value=str(len(data)) if length is None else length)
        (path.parent / "weights.bin").write_bytes(data)
        (path.parent.parent / "outside.bin").write_bytes(data)
        path.write_bytes(broken.SerializeToString())

    return write


def symlinked_out(path: Path) -> None:
    external("link.bin")(path)
    (path.parent / "link.bin").symlink_to(path.parent.parent / "outside.bin")


def absolute(path: Path) -> None:
    external(str(path.parent.parent / "outside.bin"))(path)


# What is wrong, and words of which one must be in the message: the place or the thing.
CASES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "empty": (raw(b""), ("empty",)),
    "truncated": (raw(lambda data: data[: len(data) // 2]), ("truncated", "not", "parse", "read")),
    "truncated_by_one": (raw(lambda data: data[:-1]), ("truncated", "not", "parse", "read")),
    "text": (raw(b"this is no model\n" * 20), ("ONNX",)),
    "image": (raw(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), ("ONNX",)),
    "zeros": (raw(bytes(1000)), ("ONNX",)),
    "zip": (raw(b"PK\x03\x04" + bytes(200)), ("ONNX",)),
    "no_graph": (saved(no_graph), ("graph",)),
    "cycle": (saved(cycle), ("conv", "act_out")),
    "unsorted": (saved(unsorted), ("the_bn", "conv_out")),
    "missing_tensor": (saved(missing_tensor), ("nowhere",)),
    "missing_weight": (saved(missing_weight), ("the_weight",)),
    "missing_output": (saved(missing_output), ("never_made",)),
    "value_twice": (saved(value_twice), ("bn_out",)),
    "initializer_twice": (saved(initializer_twice), ("the_weight",)),
    "input_made_again": (saved(input_made_again), ("'x'", '"x"', " x")),
    "no_opset": (saved(no_opset), ("opset", "operator set")),
    "bn_input_missing": (saved(bn_input_missing), ("the_bn",)),
    "bn_input_empty": (saved(bn_input_empty), ("the_bn",)),
    "statistics_of_wrong_length": (saved(statistics_of_wrong_length), ("the_bn", "w_")),
    "scalar_statistics": (saved(scalar_statistics), ("the_bn", "w_")),
    "weight_data_short": (saved(weight_data_short), ("the_weight",)),
    "weight_data_long": (saved(weight_data_long), ("the_weight",)),
    "weight_data_absent": (saved(weight_data_absent), ("the_weight",)),
    "typed_data_short": (saved(typed_data_short), ("the_weight",)),
    "negative_dimension": (saved(negative_dimension), ("the_weight",)),
    "external_file_missing": (external("gone.bin"), ("gone.bin",)),
    "external_offset_past_the_end": (external("weights.bin", offset="100000"), ("weights.bin", "the_weight")),
    "external_length_past_the_end": (external("weights.bin", length="100000"), ("weights.bin", "the_weight")),
    "external_length_too_short": (external("weights.bin", length="8"), ("weights.bin", "the_weight")),
    "external_offset_negative": (external("weights.bin", offset="-4"), ("weights.bin", "the_weight")),
    "external_offset_no_number": (external("weights.bin", offset="four"), ("weights.bin", "the_weight")),
    "external_leaves_the_folder": (external("../outside.bin"), ("outside.bin",)),
    "external_absolute": (absolute, ("outside.bin",)),
    "external_symlink_out": (symlinked_out, ("link.bin",)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the model's own, so that the one around it is outside."""
    inner = tmp_path / "inner"
    inner.mkdir()
    return inner


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnfold", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def assert_refused(done: subprocess.CompletedProcess[str], words: tuple[str, ...]) -> None:
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "model.onnx" in lines[0], "which file"
    assert any(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("case", CASES)
def test_the_command_line_refuses(case: str, folder: Path) -> None:
    damage, words = CASES[case]
    path = folder / "model.onnx"
    damage(path)
    before = {p: p.read_bytes() for p in folder.rglob("*")}
    assert_refused(run("optimize", str(path), "--no-verify"), words)
    assert {p: p.read_bytes() for p in folder.rglob("*")} == before, "nothing is written"


@pytest.mark.parametrize("case", CASES)
def test_the_api_raises(case: str, folder: Path) -> None:
    damage, words = CASES[case]
    path = folder / "model.onnx"
    damage(path)
    with pytest.raises(ModelError) as caught:
        bnfold.optimize(path, output=folder / "out.onnx", verify=False)
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in words), str(caught.value)
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("case", ["cycle", "weight_data_short", "bn_input_missing", "truncated"])
@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_the_other_commands_refuse_too(case: str, command: str, folder: Path) -> None:
    damage, words = CASES[case]
    path = folder / "model.onnx"
    damage(path)
    assert_refused(run(command, str(path), *([str(path)] if command == "verify" else [])), words)


def test_a_file_that_is_not_there(folder: Path) -> None:
    done = run("optimize", str(folder / "model.onnx"))
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())


def test_a_folder_instead_of_a_file(folder: Path) -> None:
    done = run("optimize", str(folder))
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())


def test_the_sound_model_is_not_refused(folder: Path) -> None:
    """The counter-check: what the damages start from folds."""
    path = folder / "model.onnx"
    path.write_bytes(model().SerializeToString())
    done = run("optimize", str(path), "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "BatchNormalization" not in [n.op_type for n in onnx.load(folder / "model.folded.onnx").graph.node]


def test_sound_external_data_is_not_refused(folder: Path) -> None:
    path = folder / "model.onnx"
    external("weights.bin")(path)
    done = run("optimize", str(path), "--no-verify")
    assert done.returncode == 0, done.stderr
    after = onnx.load(folder / "model.folded.onnx")
    assert "BatchNormalization" not in [n.op_type for n in after.graph.node]


def test_a_symlink_inside_the_folder_is_fine(folder: Path) -> None:
    path = folder / "model.onnx"
    external("inner.bin")(path)
    (folder / "inner.bin").symlink_to(folder / "weights.bin")
    assert run("optimize", str(path), "--no-verify").returncode == 0


@pytest.mark.parametrize("change", [cycle, missing_tensor, value_twice, bn_input_missing, weight_data_short])
def test_a_model_in_memory_is_refused_as_well(change: Callable[[ModelProto], object]) -> None:
    broken = model()
    change(broken)
    before = broken.SerializeToString()
    with pytest.raises(ModelError):
        bnfold.optimize(broken, verify=False)
    assert broken.SerializeToString() == before
