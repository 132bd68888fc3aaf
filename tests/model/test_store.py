from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnxfiles import (
    Builder,
    every_tensor,
    externalized,
    model,
    padded_varint,
    shipped_models,
    value_info,
)

from bnfold.errors import BnfoldError, EnvironmentFault, ModelError
from bnfold.model.store import THRESHOLD, ModelFile, open_model, tensors

RNG = np.random.default_rng(0)


def compare_all(opened: ModelFile, full: onnx.ModelProto, folder: Path | None = None) -> None:
    """Every tensor as onnx reads it from the whole model."""
    ours = [tensor for tensor, _ in tensors(opened.proto)]
    theirs = {id(t): t for t in every_tensor(full)}
    assert len(ours) == len(theirs)
    order = [tensor for tensor, _ in tensors(full)]
    for mine, other in zip(ours, order, strict=True):
        expected = numpy_helper.to_array(other, str(folder) if folder else "")
        got = opened.array(mine)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("path", shipped_models(), ids=lambda p: p.parent.name + "/" + p.name)
def test_models_of_onnx(path: Path) -> None:
    opened = open_model(path)
    full = onnx.load(path)
    compare_all(opened, full)
    assert opened.size_bytes == path.stat().st_size
    if all(len(t.raw_data) <= THRESHOLD for t in every_tensor(full)):
        assert opened.proto == full


@pytest.mark.parametrize("seed", range(30))
def test_random_models(seed: int, tmp_path: Path) -> None:
    full = Builder(seed).model()
    data = full.SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    for source in (data, full, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        opened = open_model(source)
        compare_all(opened, full)
        assert opened.proto.ByteSize() < len(data) or len(data) < 50_000
        for tensor in every_tensor(opened.proto):
            assert len(tensor.raw_data) <= THRESHOLD
    assert full.SerializeToString() == data


@pytest.mark.parametrize("seed", range(10))
def test_random_models_with_external_data(seed: int, tmp_path: Path) -> None:
    proto = externalized(Builder(seed).model(), tmp_path / "w.bin", seed=seed)
    onnx.save(proto, tmp_path / "m.onnx")
    opened = open_model(tmp_path / "m.onnx")
    compare_all(opened, proto, tmp_path)
    assert opened.external
    assert opened.external_files == (tmp_path / "w.bin",)
    assert opened.size_bytes == sum((tmp_path / name).stat().st_size for name in ("m.onnx", "w.bin"))


@pytest.mark.slow
def test_models_of_the_onnx_operator_tests() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy, about the extreme values that some cases compute
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds

        cases = collect_testcases(None)
    assert len(cases) > 1000
    for case in cases:
        assert case.model is not None
        compare_all(open_model(case.model), case.model)


def big(tmp_path: Path, shape: tuple[int, ...] = (1000, 500)) -> tuple[ModelFile, np.ndarray]:
    array = RNG.normal(size=shape).astype(np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(array, "w")])
    (tmp_path / "m.onnx").write_bytes(model(graph).SerializeToString())
    return open_model(tmp_path / "m.onnx"), array


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    opened, array = big(tmp_path)
    got = opened.array(opened.proto.graph.initializer[0])
    assert np.shares_memory(got, np.frombuffer(opened.buffer, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    opened.release(opened.proto.graph.initializer[0])
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("nbytes", [1, 1999, 2000, 6000, 10**9])
def test_blocks_cover_a_tensor(nbytes: int, tmp_path: Path) -> None:
    opened, array = big(tmp_path)
    seen = np.zeros(len(array), int)
    for rows, block in opened.blocks(opened.proto.graph.initializer[0], nbytes):
        np.testing.assert_array_equal(block, array[rows])
        seen[rows] += 1
        assert block.nbytes <= max(nbytes, 2000)
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (1,)])
def test_blocks_of_small_tensors(shape: tuple[int, ...], tmp_path: Path) -> None:
    opened, array = big(tmp_path, shape)
    parts = [block for _, block in opened.blocks(opened.proto.graph.initializer[0], 4)]
    if array.size:
        np.testing.assert_array_equal(np.concatenate([np.atleast_1d(p) for p in parts]), np.atleast_1d(array))
    else:
        assert all(part.size == 0 for part in parts)


MEMORY = """
import sys
import numpy as np, onnx
from bnfold.model.store import open_model
def peak():  # not ru_maxrss, which begins with what the parent had at the fork
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
opened = open_model(sys.argv[1])
total = 0.0
for tensor in opened.proto.graph.initializer:
    for _, block in opened.blocks(tensor):
        total += float(block.sum())
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("external", [False, True])
def test_reading_all_weights_takes_little_memory(external: bool, tmp_path: Path) -> None:
    array = np.zeros((2000, 10_000), np.float32)  # 80 MB each
    graph = helper.make_graph(
        [], "g", [], [], [numpy_helper.from_array(array, "a"), numpy_helper.from_array(array, "b")]
    )
    onnx.save(model(graph), tmp_path / "m.onnx", save_as_external_data=external)
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 20_000, "KiB above the interpreter, NumPy and onnx"


# --- external data: where it may be ---------------------------------------------------------------------


def with_external(tmp_path: Path, dims: tuple[int, ...] = (4,), **entries: str) -> Path:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    tensor = TensorProto(name="w", data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [], [value_info("y", dims)], [tensor]
    )
    path = folder / "m.onnx"
    path.write_bytes(model(graph).SerializeToString())
    return path


def refused(path: Path, *said: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def test_external_data_is_found(tmp_path: Path) -> None:
    path = with_external(tmp_path, location="sub/w.bin", offset="3", length="16")
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "w.bin").write_bytes(b"###" + np.arange(4, dtype=np.float32).tobytes())
    opened = open_model(path)
    assert opened.array(opened.proto.graph.initializer[0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("entries", [{}, {"offset": "0"}, {"length": "16"}])
def test_offset_and_length_are_optional(entries: dict[str, str], tmp_path: Path) -> None:
    path = with_external(tmp_path, (4,), location="w.bin", **entries)
    (path.parent / "w.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    opened = open_model(path)
    assert opened.array(opened.proto.graph.initializer[0]).tolist() == [0, 1, 2, 3]


def test_the_folder_is_the_models_and_not_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_external(tmp_path, location="w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path)
    opened = open_model("model/m.onnx")
    monkeypatch.chdir("/")
    assert opened.array(opened.proto.graph.initializer[0]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "{outside}", "sub/link.bin", "up/w.bin"])
def test_locations_outside_the_folder(location: str, tmp_path: Path) -> None:
    outside = tmp_path / "w.bin"
    outside.write_bytes(bytes(16))
    path = with_external(tmp_path, location=location.format(outside=outside))
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "link.bin").symlink_to(outside)
    (path.parent / "up").symlink_to(tmp_path)
    refused(path, "'w'", location.format(outside=outside), "leaves the folder of the model")


def test_an_absolute_location_inside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "model" / "w.bin"
    path = with_external(tmp_path, location=str(inside))
    inside.write_bytes(bytes(16))
    refused(path, "leaves the folder of the model")


def test_a_symlink_inside_the_folder(tmp_path: Path) -> None:
    path = with_external(tmp_path, location="link.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    (path.parent / "link.bin").symlink_to("w.bin")
    assert open_model(path).external_files == (path.parent / "w.bin",)


def test_a_download_cache_of_symlinks(tmp_path: Path) -> None:
    real = with_external(tmp_path, location="w.bin")
    (real.parent / "blob").write_bytes(bytes(16))
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "m.onnx").symlink_to(real)
    (snapshot / "w.bin").symlink_to(real.parent / "blob")
    assert open_model(snapshot / "m.onnx").external_files == (real.parent / "blob",)
    (tmp_path / "secret").write_bytes(bytes(16))
    (snapshot / "w.bin").unlink()
    (snapshot / "w.bin").symlink_to(tmp_path / "secret")
    refused(snapshot / "m.onnx", "leaves the folder")


def test_external_data_that_is_no_file(tmp_path: Path) -> None:
    path = with_external(tmp_path, location="w.bin")
    refused(path, "'w'", "'w.bin'", "is missing")
    (path.parent / "w.bin").mkdir()
    refused(path, "is not a regular file")
    (path.parent / "w.bin").rmdir()
    os.mkfifo(path.parent / "w.bin")
    refused(path, "is not a regular file")
    (path.parent / "w.bin").unlink()
    (path.parent / "w.bin").symlink_to("w.bin")
    refused(path, "'w.bin'")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "names no file"),
        ({"location": ""}, "names no file"),
        ({"location": "", "offset": "0", "length": "16"}, "names no file"),
        ({"location": "w\0.bin"}, "names no file"),
        ({"location": "w.bin", "offset": "1"}, "reach past the end"),
        ({"location": "w.bin", "offset": str(2**62)}, "reach past the end"),
        ({"location": "w.bin", "offset": "-1"}, "no number of bytes"),
        ({"location": "w.bin", "offset": "1e3"}, "no number of bytes"),
        ({"location": "w.bin", "offset": "9" * 5000}, "no number of bytes"),
        ({"location": "w.bin", "offset": "²"}, "no number of bytes"),
        ({"location": "w.bin", "length": "12"}, "takes 16"),
        ({"location": "w.bin", "length": "20"}, "takes 16"),
        ({"location": "x" * 5000}, "cannot be read"),
        ({"location": "w.bin/x"}, "is missing"),
    ],
)
def test_external_data_that_makes_no_sense(entries: dict[str, str], said: str, tmp_path: Path) -> None:
    path = with_external(tmp_path, (4,), **entries)
    (path.parent / "w.bin").write_bytes(bytes(16))
    refused(path, "'w'", said)


@pytest.mark.parametrize("dims", [(2**62, 2**62), (-4,), (2**31,)])
def test_external_data_of_absurd_shape(dims: tuple[int, ...], tmp_path: Path) -> None:
    path = with_external(tmp_path, dims, location="w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    refused(path, "'w'")


def test_inline_data_cannot_be_borrowed_from_the_model_file() -> None:
    weight = numpy_helper.from_array(np.arange(5000, dtype=np.float32), "w")
    graph = helper.make_graph([], "g", [], [], [weight])
    data = model(graph).SerializeToString()
    offset = data.index(weight.raw_data)
    for at in (
        offset,
        offset + 2,
        offset + 3,
    ):  # where the payload lies now, and with 14 bytes or so before it
        thief = TensorProto(name="thief", data_type=1, dims=(5000,), data_location=TensorProto.EXTERNAL)
        for key, value in {"location": "", "offset": str(at), "length": "20000"}.items():
            thief.external_data.add(key=key, value=value)
        twice = helper.make_graph([], "g", [], [], [weight, thief])
        with pytest.raises(ModelError, match="'thief'"):
            open_model(model(twice).SerializeToString())


def test_a_node_is_named_for_its_tensor(tmp_path: Path) -> None:
    tensor = TensorProto(data_type=1, dims=(4,), data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    node = helper.make_node("Constant", [], ["y"], name="the one", value=tensor)
    path = tmp_path / "m.onnx"
    onnx.save(model(helper.make_graph([node], "g", [], [])), path)
    refused(path, "'the one' (Constant)", "'w.bin'")


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    path = with_external(tmp_path, location="w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match="pass the path"):
        open_model(path.read_bytes())
    with pytest.raises(ModelError, match="pass the path"):
        open_model(onnx.load(path, load_external_data=False))


def test_external_data_that_shrinks_while_in_use(tmp_path: Path) -> None:
    path = with_external(tmp_path, location="w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    opened = open_model(path)
    (path.parent / "w.bin").write_bytes(bytes(8))
    with pytest.raises(ModelError, match="became shorter"):
        opened.array(opened.proto.graph.initializer[0])


def test_more_external_files_than_descriptors(tmp_path: Path) -> None:
    many = 200
    kept = []
    for index in range(many):
        tensor = TensorProto(name=f"w{index}", data_type=1, dims=(1,), data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{index}.bin")
        (tmp_path / f"{index}.bin").write_bytes(np.float32(index).tobytes())
        kept.append(tensor)
    onnx.save(model(helper.make_graph([], "g", [], [], kept)), tmp_path / "m.onnx")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 60, hard))
    try:
        opened = open_model(tmp_path / "m.onnx")
        assert [float(opened.array(t)[0]) for t in opened.proto.graph.initializer] == list(range(many))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- files that are no model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(20), "ORT format"),
        (b"ftrt" + bytes(20), "TensorRT"),
        (b'<\n ir_version: 8,\n opset_import: ["" : 17]\n>\ng () => () {}', "ONNX text format"),
        (b"<!DOCTYPE html><html><head>", "HTML"),
        (b'{"irVersion": "8"}', "JSON"),
        (b"ir_version: 8\nproducer_name: 'x'\n", "text form of protobuf"),
        (b"import torch\n", "is no ONNX model but text"),
        (bytes(100), "damaged"),
        (b"\xff" * 100, "damaged"),
        (onnx.GraphProto(name="g", doc_string="d").SerializeToString(), "holds no graph"),
    ],
)
def test_what_is_no_model(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, str(path), said)
    if content:
        with pytest.raises(ModelError, match=re.escape(said)):
            open_model(content)


def test_text_formats_as_onnx_writes_them(tmp_path: Path) -> None:
    proto = model(helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value_info("x")], []))
    for name, said in (("textproto", "text form of protobuf"), ("json", "JSON"), ("onnxtxt", "ONNX text")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx calls its text format experimental
            onnx.save(proto, tmp_path / "m", format=name)
        refused(tmp_path / "m", said)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.onnx", "none.onnx", "No such file")
    refused(tmp_path / ("x" * 5000), "cannot be opened")
    refused(Path("a\0b"), "cannot be opened")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    refused(Path("/dev/null"), "not a regular file")


AS_NOBODY = """
import os, sys
from bnfold.errors import BnfoldError
from bnfold.model.store import open_model
os.setgid(65534); os.setuid(65534)
try:
    open_model(sys.argv[1])
except BnfoldError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        folder = Path(made)
        folder.chmod(0o755)
        path = with_external(folder, location="w.bin")
        (path.parent / "w.bin").write_bytes(bytes(16))
        (path.parent / "w.bin").chmod(0)
        for closed, said in (
            (path.parent / "w.bin", "'w.bin' may not be read"),
            (path, "m.onnx may not be read"),
        ):
            closed.chmod(0)
            ran = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=True
            )
            assert ran.stdout.startswith("EnvironmentFault")
            assert said in ran.stdout


def test_graphs_nested_without_end() -> None:
    graph = onnx.GraphProto(name="g" * 5000)
    for _ in range(150):
        outer = onnx.GraphProto(name="g" * 5000)
        attribute = outer.node.add().attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(graph)
        graph = outer
    with pytest.raises(ModelError, match="nested more than"):
        open_model(wrapped(graph))


def wrapped(graph: onnx.GraphProto) -> bytes:
    body: bytes = graph.SerializeToString()
    length = b""
    size = len(body)
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return b"\x08\x0a\x3a" + length + bytes([size]) + body


def test_two_graphs() -> None:
    data = wrapped(onnx.GraphProto(name="a")) + wrapped(onnx.GraphProto(name="b"))
    with pytest.raises(ModelError, match="there twice"):
        open_model(data)


def test_unknown_big_and_odd_fields_are_left_alone() -> None:
    tensor = numpy_helper.from_array(np.zeros(5000, np.float32), "w").SerializeToString()
    twice = TensorProto.FromString(tensor).raw_data
    graph = helper.make_graph([], "g", [], [])
    for odd in (
        tensor + b"\x4a\x04" + twice[:4],  # raw_data again
        tensor + b"\x22\x04" + twice[:4],  # float_data too
        b"\x4a\x04" + twice[:4] + tensor.replace(b"\x4a", b"\x22", 1),  # raw_data before it
        tensor.replace(b"\x4a", b"\x22", 1) * 2,  # float_data in two parts
        tensor.replace(b"\x10\x01", b"\x10\x08", 1),  # strings
    ):
        body = graph.SerializeToString() + b"\x2a" + padded_varint(len(odd)) + odd
        data = b"\x08\x0a\x3a" + padded_varint(len(body)) + body
        assert open_model(data).proto == onnx.ModelProto.FromString(data)


# --- damage ---------------------------------------------------------------------------------------------


def survives(data: bytes) -> None:
    try:
        opened = open_model(data)
        for tensor, _ in tensors(opened.proto):
            opened.array(tensor)
    except BnfoldError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def test_truncated_anywhere() -> None:
    data = Builder(3).model().SerializeToString()
    step = max(1, len(data) // 3000)
    for cut in [*range(600), *range(600, len(data), step)]:
        with pytest.raises(ModelError) if cut_is_visible(data[:cut]) else EmptyContext():
            open_model(data[:cut])


class EmptyContext:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def cut_is_visible(data: bytes) -> bool:
    """Whether protobuf itself, or the lack of a graph, shows that a model was cut off."""
    try:
        return not onnx.ModelProto.FromString(data).HasField("graph")
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose module has no types
        return True


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = Builder(seed % 5).model().SerializeToString()
    for _ in range(100):
        data = bytearray(original)
        for at in rng.integers(0, len(data), size=rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(8)
        survives(bytes(data))


@pytest.mark.parametrize("seed", range(10))
def test_flipped_bits_near_the_structure(seed: int) -> None:
    """Small models, where a flip rarely falls into the values of a weight."""
    rng = np.random.default_rng(seed)
    w = numpy_helper.from_array(np.ones(3, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [value_info("x")], [value_info("y")], [w]
    )
    original = model(graph).SerializeToString()
    for _ in range(300):
        data = bytearray(original)
        for at in rng.integers(0, len(data), size=rng.integers(1, 4)):
            data[at] = rng.integers(256)
        survives(bytes(data))


def test_environment_fault_is_no_model_error() -> None:
    assert not issubclass(EnvironmentFault, ModelError)
