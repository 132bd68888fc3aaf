"""Writing: self-contained results, and what happens when something goes wrong in the middle."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnxfiles import Builder, applied, every_tensor, externalized, internalized, model, value_info

from bnfold.errors import EnvironmentFault, ModelError, UsageError
from bnfold.model.edits import GraphEdits, ModelEdits, NewTensor
from bnfold.model.store import open_model
from bnfold.model.write import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.model.store import ModelFile

SIZE = 300_000  # elements of float32: above the size that is aligned to 64 KiB
DATA_FILE = re.compile(r"out\.onnx-[0-9a-f]{12}\.data")


def weights(value: float) -> np.ndarray:
    return np.full(SIZE, value, np.float32)


def make(folder: Path, *, external: bool, name: str = "in.onnx") -> Path:
    """y = x + a + b; with external data, a and b lie in weights.bin."""
    folder.mkdir(exist_ok=True)
    nodes = [helper.make_node("Add", ["x", "a"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [value_info("x", (SIZE,))],
        [value_info("y", (SIZE,))],
        [numpy_helper.from_array(weights(1), "a"), numpy_helper.from_array(weights(2), "b")],
    )
    path = folder / name
    if external:
        onnx.save(model(graph), path, save_as_external_data=True, location="weights.bin")
    else:
        onnx.save(model(graph), path)
    return path


def change(value: float) -> ModelEdits:
    return ModelEdits((GraphEdits(initializers={"a": NewTensor.of("a", weights(value))}),))


def commit(source: Path, edits: ModelEdits, target: Path) -> None:
    with staged(open_model(source), edits, target) as result:
        result.commit()


def total(path: Path) -> float:
    """What the model adds to its input, as onnx reads it; every value must be the same."""
    loaded = onnx.load(path)
    onnx.checker.check_model(path)
    values = np.unique(sum(numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer))
    assert values.size == 1
    return float(values[0])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("external", [False, True])
def test_the_result_is_complete_before_and_after_commit(external: bool, tmp_path: Path) -> None:
    source = make(tmp_path / "from", external=external)
    before = {path: path.read_bytes() for path in source.parent.iterdir()}
    folder = tmp_path / "to"
    folder.mkdir()
    target = folder / "out.onnx"
    with staged(open_model(source), change(10), target) as result:
        assert result.path.parent == folder
        assert total(result.path) == 12
        assert not target.exists()
        result.commit()
        assert total(target) == 12
    assert total(target) == 12
    data = sorted(names(folder) - {"out.onnx"})
    assert len(data) == external
    assert all(DATA_FILE.fullmatch(name) for name in data)
    assert {path: path.read_bytes() for path in source.parent.iterdir()} == before


@pytest.mark.parametrize("external", [False, True])
def test_onnxruntime_loads_the_staged_result(external: bool, tmp_path: Path) -> None:
    source = make(tmp_path, external=external)
    run = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(set(session.run(None, {"x": numpy.zeros(300_000, numpy.float32)})[0].tolist()))
"""
    with staged(open_model(source), change(10), tmp_path / "out.onnx") as result:
        command = [sys.executable, "-c", run, str(result.path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.stdout.strip() == "{12.0}", ran.stderr


@pytest.mark.parametrize("external", [False, True])
def test_nothing_stays_without_commit(external: bool, tmp_path: Path) -> None:
    source = make(tmp_path, external=external)
    before = names(tmp_path)
    with staged(open_model(source), change(10), tmp_path / "out.onnx"):
        pass
    assert names(tmp_path) == before
    with pytest.raises(KeyboardInterrupt), staged(open_model(source), change(10), tmp_path / "out.onnx"):
        raise KeyboardInterrupt
    assert names(tmp_path) == before


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError, ValueError])
def test_nothing_stays_after_an_error_while_writing(
    external: bool, error: type[BaseException], tmp_path: Path
) -> None:
    source = make(tmp_path, external=external)
    before = names(tmp_path)

    def chunks() -> Iterator[bytes]:
        yield bytes(SIZE)
        raise error

    edits = ModelEdits((GraphEdits(initializers={"a": NewTensor("a", (SIZE,), 1, 4 * SIZE, chunks)}),))
    with pytest.raises(error), staged(open_model(source), edits, tmp_path / "out.onnx"):
        pytest.fail("not complete")
    assert names(tmp_path) == before


def test_no_edits_give_the_same_file(tmp_path: Path) -> None:
    for external in (False, True):
        source = make(tmp_path / str(external), external=external)
        commit(source, ModelEdits(), source.with_name("out.onnx"))
        assert source.with_name("out.onnx").read_bytes() == source.read_bytes()
        assert total(source.with_name("out.onnx")) == 3
        before = source.read_bytes()
        commit(source, ModelEdits(), source)
        assert source.read_bytes() == before


def test_no_edits_in_another_folder_bring_the_data_along(tmp_path: Path) -> None:
    source = make(tmp_path / "from", external=True)
    (tmp_path / "to").mkdir()
    commit(source, ModelEdits((GraphEdits(),)), tmp_path / "to" / "out.onnx")
    for path in source.parent.iterdir():
        path.unlink()
    assert total(tmp_path / "to" / "out.onnx") == 3


@pytest.mark.parametrize("external", [False, True])
def test_the_same_twice_is_the_same(external: bool, tmp_path: Path) -> None:
    source = make(tmp_path / "from", external=external)
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        commit(source, change(10), tmp_path / name / "out.onnx")
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    commit(source, change(10), tmp_path / "one" / "out.onnx")
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == contents[0]


@pytest.mark.parametrize("seed", range(20))
def test_random_models_with_external_data(seed: int, tmp_path: Path) -> None:
    proto = externalized(Builder(seed).model(), tmp_path / "w.bin", seed=seed)
    source = tmp_path / "m.onnx"
    onnx.save(proto, source)
    (tmp_path / "to").mkdir()
    target = tmp_path / "to" / "out.onnx"
    opened = open_model(source)
    name = next((t.name for t in opened.proto.graph.initializer), None)
    new = {} if name is None else {name: NewTensor.of(name, np.arange(700, dtype=np.float32))}
    edits = ModelEdits((GraphEdits(initializers=new),), {"k": "v"})
    with staged(opened, edits, target) as result:
        result.commit()
    stored = onnx.load(target, load_external_data=False)
    assert internalized(stored, target.parent) == applied(internalized(proto, tmp_path), edits)
    # What was external is external, what was inline is inline; all in one file, aligned, without overlap.
    was = [tensor.data_location for tensor in every_tensor(proto)]
    assert [tensor.data_location for tensor in every_tensor(stored)] == was
    spans = sorted(
        (int(entry["offset"]), int(entry["length"]))
        for entry in ({e.key: e.value for e in t.external_data} for t in every_tensor(stored))
        if entry
    )
    assert all(offset % (65536 if length > 2**20 else 64) == 0 for offset, length in spans)
    assert all(a + n <= b for (a, n), (b, _) in pairwise(spans))
    locations = {e.value for t in every_tensor(stored) for e in t.external_data if e.key == "location"}
    assert locations == names(target.parent) - {"out.onnx"}


def test_shared_external_data_stays_shared(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    proto = onnx.load(source, load_external_data=False)
    del proto.graph.initializer[1].external_data[:]
    proto.graph.initializer[1].external_data.extend(proto.graph.initializer[0].external_data)
    onnx.save(proto, source)
    commit(source, ModelEdits(metadata={"k": "v"}), tmp_path / "out.onnx")
    assert total(tmp_path / "out.onnx") == 2
    (data,) = [path for path in tmp_path.iterdir() if DATA_FILE.fullmatch(path.name)]
    assert data.stat().st_size == 4 * SIZE


def test_keys_that_described_the_old_file_go(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    proto = onnx.load(source, load_external_data=False)
    proto.graph.initializer[1].external_data.add(key="checksum", value="0" * 40)
    onnx.save(proto, source)
    commit(source, change(10), tmp_path / "out.onnx")
    stored = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    for tensor in stored.graph.initializer:
        assert [entry.key for entry in tensor.external_data] == ["location", "offset", "length"]


def test_new_tensors_follow_the_model(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    added = (NewTensor.of("big", np.zeros(257, np.float32)), NewTensor.of("small", np.zeros(256, np.float32)))
    commit(source, ModelEdits((GraphEdits(added=added),)), tmp_path / "out.onnx")
    stored = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    places = {tensor.name: tensor.data_location for tensor in stored.graph.initializer}
    assert places == {"a": 1, "b": 1, "big": 1, "small": 0}


# --- in place, and over an older result -----------------------------------------------------------------


@pytest.mark.parametrize("external", [False, True])
def test_in_place_again_and_again(external: bool, tmp_path: Path) -> None:
    source = make(tmp_path, external=external, name="out.onnx")
    for value in (10, 20, 20, 30):
        commit(source, change(value), source)
        assert total(source) == value + 2
    left = names(tmp_path) - {"out.onnx"}
    assert len({name for name in left if DATA_FILE.fullmatch(name)}) == external
    assert left - {name for name in left if DATA_FILE.fullmatch(name)} == (
        {"weights.bin"} if external else set()
    )


def test_weights_stay_readable_after_a_commit_in_place(tmp_path: Path) -> None:
    source = make(tmp_path, external=True, name="out.onnx")
    commit(source, change(10), source)
    opened = open_model(source)
    with staged(opened, change(20), source) as result:
        result.commit()
    assert opened.array(opened.proto.graph.initializer[0])[0] == 10


def test_the_data_of_a_copy_stays(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    commit(source, change(10), target)
    for copy, value in (("copy.onnx", 20), ("out.onnx.bak", 30)):
        before = total(target)
        (tmp_path / copy).write_bytes(target.read_bytes())
        commit(source, change(value), target)
        assert total(tmp_path / copy) == before
        assert total(target) == value + 2


def test_files_of_others_stay(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    for name in (
        "out.onnx-0123456789ab.data",
        "out.onnx.data",
        "out.onnx-zz.data",
        "xout.onnx-0123456789ab.data",
    ):
        (tmp_path / name).write_bytes(b"mine")
    before = names(tmp_path)
    commit(source, change(10), tmp_path / "out.onnx")
    commit(source, change(20), tmp_path / "out.onnx")
    assert before < names(tmp_path)


def data_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if DATA_FILE.fullmatch(path.name)]


def test_a_data_file_of_the_same_name_and_another_content(tmp_path: Path) -> None:
    """A change between the samples of the digest: the old target needs its data until the very end."""
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    commit(source, change(10), target)
    (old,) = data_files(tmp_path)
    array = weights(10)
    array[5000] = 99
    edits = ModelEdits((GraphEdits(initializers={"a": NewTensor.of("a", array)}),))
    with staged(open_model(source), edits, target) as result:
        assert total(target) == 12
        (new,) = set(data_files(tmp_path)) - {old}
        assert numpy_helper.to_array(onnx.load(result.path).graph.initializer[0])[5000] == 99
    assert data_files(tmp_path) == [old]
    commit(source, edits, target)
    assert data_files(tmp_path) == [new]
    commit(source, edits, target)
    assert data_files(tmp_path) == [old]  # its name is free again
    assert numpy_helper.to_array(onnx.load(target).graph.initializer[0])[5000] == 99


def test_names_that_are_all_taken(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    commit(source, change(10), target)
    (data,) = data_files(tmp_path)
    whole = hashlib.sha256(data.read_bytes()).hexdigest()[:12]
    for path in (data, tmp_path / f"out.onnx-{whole}.data"):
        path.write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(EnvironmentFault, match="another content"),
        staged(open_model(source), change(10), target),
    ):
        pytest.fail("no name is free")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_aborted_run_leaves_the_data_that_the_target_needs(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    commit(source, change(10), target)
    with staged(open_model(source), change(10), target):
        pass
    assert total(target) == 12


def test_permissions(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    old = os.umask(0o027)
    try:
        commit(source, change(10), target)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("out.onnx*")}
        assert modes == {0o640}
        target.chmod(0o604)
        commit(source, change(20), target)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("out.onnx*")}
    assert modes == {0o604}


def test_a_symlink_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    source = make(tmp_path / "real", external=False)
    link = tmp_path / "out.onnx"
    link.symlink_to(source)
    commit(link, change(10), link)
    assert not link.is_symlink()
    assert (total(link), total(source)) == (12, 3)
    (tmp_path / "broken.onnx").symlink_to("nowhere")
    commit(source, change(10), tmp_path / "broken.onnx")
    assert total(tmp_path / "broken.onnx") == 12


def test_targets_that_make_no_sense(tmp_path: Path) -> None:
    opened = open_model(make(tmp_path, external=True))
    os.mkfifo(tmp_path / "pipe")
    targets = [tmp_path, tmp_path / "none" / "out.onnx", tmp_path / "pipe", Path("/dev/null")]
    for target in [*targets, tmp_path / "\udcff.onnx"]:
        with pytest.raises(UsageError), staged(opened, change(10), target):
            pytest.fail("not a target")
    assert names(tmp_path) == {"in.onnx", "weights.bin", "pipe"}
    with pytest.raises(EnvironmentFault), staged(opened, change(10), tmp_path / ("x" * 250)):
        pytest.fail("not a target")


def test_two_runs_for_one_target(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    with staged(open_model(source), change(10), target) as first:
        with (
            pytest.raises(EnvironmentFault, match="another run"),
            staged(open_model(source), change(20), target),
        ):
            pytest.fail("the first is not done")
        with staged(open_model(source), change(30), tmp_path / "other.onnx") as other:
            other.commit()
        first.commit()
    assert (total(target), total(tmp_path / "other.onnx")) == (12, 32)


# --- killed in the middle -------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from bnfold.model import write
from bnfold.model.edits import GraphEdits, ModelEdits, NewTensor
from bnfold.model.store import open_model

source, target, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
size = 300_000
array = np.full(size, 10, np.float32)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def chunks():
    for start in range(0, size, size // 10):
        if point == f"chunk {10 * start // size}":
            die()
        yield array[start:start + size // 10]
    if point == "after chunks":
        die()

def around(name, function):
    calls = 0
    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if point == f"before {name} {calls}":
            die()
        result = function(*arguments, **options)
        if point == f"after {name} {calls}":
            die()
        return result
    return wrapped

os.replace = around("replace", os.replace)
os.fsync = around("fsync", os.fsync)
Path.unlink = around("unlink", Path.unlink)
edits = ModelEdits((GraphEdits(initializers={"a": NewTensor("a", (size,), 1, 4 * size, chunks)}),))
with write.staged(open_model(source), edits, target) as result:
    if point == "staged":
        die()
    result.commit()
    if point == "committed":
        die()
print("survived")
"""

POINTS = [
    *(f"chunk {k}" for k in (0, 1, 5, 9)),
    "after chunks",
    "staged",
    "committed",
    *(f"{when} {what}" for when in ("before", "after") for what in ("fsync 1", "replace 1")),
]
POINTS_EXTERNAL = [
    *POINTS,
    *(
        f"{when} {what}"
        for when in ("before", "after")
        for what in ("fsync 2", "fsync 3", "fsync 4", "replace 2", "unlink 1", "unlink 2")
    ),
]

AFTER_RENAME = {"after replace 2", "before fsync 4", "after fsync 4", "before unlink 2"}


def kill(source: Path, target: Path, point: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(target), point],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, (point, ran.stdout, ran.stderr)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("external", "point"), [(False, p) for p in POINTS] + [(True, p) for p in POINTS_EXTERNAL]
)
def test_killed_at_any_moment(external: bool, in_place: bool, point: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    source = make(folder, external=external, name="out.onnx" if in_place else "in.onnx")
    target = folder / "out.onnx"
    # The target exists already and, with external data, has a data file of its own.
    commit(source, change(5), target)
    kill(source, target, point)
    assert total(target) in (7, 12)
    if not in_place:
        assert total(source) == 3
    # The next run repairs everything and leaves nothing behind.
    commit(source, change(20), target)
    assert total(target) == 22
    left = names(folder) - {"in.onnx", "out.onnx", "weights.bin"}
    # Only between the rename and the removal of the old data does a kill leave that data for good.
    assert len(left) == external + (external and point in AFTER_RENAME)
    assert all(DATA_FILE.fullmatch(name) for name in left)


@pytest.mark.parametrize("point", ["staged", "after replace 1", "chunk 5"])
def test_the_same_run_again_after_a_kill(point: str, tmp_path: Path) -> None:
    """The data file of the killed run has the very name that the next run's will have."""
    source = make(tmp_path, external=True)
    target = tmp_path / "out.onnx"
    kill(source, target, point)
    with staged(open_model(source), change(10), target):
        pass
    assert names(tmp_path) == {"in.onnx", "weights.bin"}
    kill(source, target, point)
    commit(source, change(10), target)
    assert total(target) == 12
    assert len(names(tmp_path)) == 4


# --- a machine that refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("external", [False, True])
def test_no_space(external: bool, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: writes fail in the middle in the same way."""
    source = make(tmp_path, external=external)
    target = tmp_path / "out.onnx"
    commit(source, change(10), target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, 1_000_000, 2_000_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            with (
                pytest.raises(EnvironmentFault, match="no space is left"),
                staged(open_model(source), change(20), target),
            ):
                pytest.fail("too big")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)],  # noqa: S607 - where mount is varies
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607 - the same


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk(external: bool, tiny_disk: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "from", external=external)
    target = tiny_disk / "out.onnx"
    commit(source, change(10), target)
    with (
        pytest.raises(EnvironmentFault, match="no space is left"),
        staged(open_model(source), change(20), target),
    ):
        pytest.fail("too big")
    assert total(target) == 12
    assert len(names(tiny_disk)) == 1 + external


def test_a_disk_that_cannot_be_written(tiny_disk: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "from", external=False)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)  # noqa: S607 - where mount is varies
    with (
        pytest.raises(EnvironmentFault, match="no permission"),
        staged(open_model(source), change(20), tiny_disk / "out.onnx"),
    ):
        pytest.fail("read-only")


AS_NOBODY = """
import os, sys
from pathlib import Path
from bnfold.errors import BnfoldError
from bnfold.model.edits import ModelEdits
from bnfold.model.store import open_model
from bnfold.model.write import staged
os.setgid(65534); os.setuid(65534)
try:
    with staged(open_model(sys.argv[1]), ModelEdits(metadata={"k": "v"}), Path(sys.argv[2])):
        print("written")
except BnfoldError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_a_folder_without_permission() -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        folder = Path(made)
        folder.chmod(0o755)
        source = make(folder / "closed", external=True)
        for path in source.parent.iterdir():
            path.chmod(0o644)
        before = names(source.parent)
        ran = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(source), str(source.with_name("out.onnx"))],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.startswith("EnvironmentFault")
        assert "no permission to write" in ran.stdout
        assert names(source.parent) == before


def test_the_source_shrinks_while_it_is_copied(tmp_path: Path) -> None:
    source = make(tmp_path, external=True)
    opened: ModelFile = open_model(source)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match="became shorter"), staged(opened, change(10), tmp_path / "out.onnx"):
        pytest.fail("cannot be read")
    assert names(tmp_path) == {"in.onnx", "weights.bin"}


MEMORY = """
import sys
from pathlib import Path
import numpy as np, onnx
from bnfold.model.edits import GraphEdits, ModelEdits, NewTensor
from bnfold.model.store import open_model
from bnfold.model.write import staged
def peak():  # not ru_maxrss, which begins with what the parent had at the fork
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
opened = open_model(sys.argv[1])
tensor = opened.proto.graph.initializer[0]
span = opened.span(tensor)
def chunks():
    for _, block in opened.blocks(tensor):
        yield block * np.float32(2)
new = NewTensor("a", tuple(tensor.dims), 1, span.nbytes, chunks)
edits = ModelEdits((GraphEdits(initializers={"a": new}),))
with staged(opened, edits, Path(sys.argv[2])) as result:
    result.commit()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("count", [2, 60])
def test_writing_takes_little_memory(external: bool, count: int, tmp_path: Path) -> None:
    whole = np.ones((4000 // count, 10_000), np.float32)  # 160 MB in all
    arrays = [numpy_helper.from_array(whole, name) for name in ["a", *map(str, range(count - 1))]]
    graph = helper.make_graph([], "g", [], [], arrays)
    onnx.save(model(graph), tmp_path / "in.onnx", save_as_external_data=external)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 25_000, "KiB above the interpreter, NumPy and onnx"
    result = open_model(tmp_path / "out.onnx")
    assert [float(result.array(t)[-1, -1]) for t in result.proto.graph.initializer] == [2] + [1] * (count - 1)
    assert result.proto.graph.initializer[0].data_type == TensorProto.FLOAT
