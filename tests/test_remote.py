"""Models at URLs: in memory of fsspec, and on a web server of this machine."""

from __future__ import annotations

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import onnx
import pytest
from onnx import ModelProto
from support import command

import bnfold
from bnfold.errors import EnvironmentFault, ModelError, UsageError
from bnfold.urls import is_url, located, shown

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def memory() -> Iterator[Any]:
    """`memory://`, with nothing in it."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bnfold keeps what it has fetched, as long as it works."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def external(model: ModelProto, folder: Path, location: str = "sub/weights") -> bytes:
    """The model file of one whose weights lie in `location`."""
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model,
        str(folder / "external.onnx"),
        save_as_external_data=True,
        location=location,
        size_threshold=0,
    )
    return (folder / "external.onnx").read_bytes()


def stored(memory: Any) -> list[str]:  # noqa: ANN401  # a filesystem
    return sorted(memory.find("/"))


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["s3://b/m.onnx", "GS://b/m", "https://h:8/m?x", "memory://m", "abfs://c@a.dfs/m"]
)
def test_urls(url: str) -> None:
    assert is_url(url)
    assert located(url) == url


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("model.onnx", "model.onnx"),
        ("./a//b.onnx", "a/b.onnx"),
        (r"C:\models\m.onnx", r"C:\models\m.onnx"),
        ("c:/m.onnx", "c:/m.onnx"),
        ("C://m.onnx", "C:/m.onnx"),
        ("file:///models/a%20b.onnx", "/models/a b.onnx"),
        ("file://localhost/m.onnx", "/m.onnx"),
        ("", "."),
    ],
)
def test_what_is_a_path(text: str, path: str) -> None:
    assert not is_url(text)
    assert located(text) == Path(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://user:secret@host/m.onnx", "https://***host/m.onnx"),
        ("https://token@host/m.onnx", "https://***host/m.onnx"),
        ("s3://key:se/cr@et@bucket/m.onnx", "s3://***bucket/m.onnx"),
        ("https://h/m.onnx?X-Signature=abc&k=v", "https://h/m.onnx?***"),
        ("https://h:8080/m@v1/m.onnx", "https://h:8080/m@v1/m.onnx"),
        ("https://h/m@v1.onnx", "https://h/m@v1.onnx"),
        ("403 at 'https://u:p@h/m?sig=1', sorry", "403 at 'https://***h/m?***', sorry"),
        ("memory://m.onnx", "memory://m.onnx"),
        ("is this a model?yes", "is this a model?yes"),
    ],
)
def test_secrets_are_not_shown(text: str, said: str) -> None:
    assert shown(text) == said


# --- models -------------------------------------------------------------------------------------------------


def test_from_and_to_a_url(memory: Any, scratch: Path) -> None:  # noqa: ANN401  # a filesystem
    memory.pipe_file("/in/model.onnx", command.small().SerializeToString())
    result = bnfold.optimize("memory://in/model.onnx", output="memory://out/small.onnx")
    result.raise_for_status()
    assert (result.report.source, result.report.output) == (
        "memory://in/model.onnx",
        "memory://out/small.onnx",
    )
    there = memory.cat_file("/out/small.onnx")
    assert there == bnfold.optimize(memory.cat_file("/in/model.onnx"), verify=False).content
    assert stored(memory) == ["/in/model.onnx", "/out/small.onnx"]
    assert list(scratch.iterdir()) == []
    with pytest.raises(UsageError, match="fetch it from there"):
        _ = result.model
    assert bnfold.verify("memory://in/model.onnx", "memory://out/small.onnx").status == "equivalent"
    assert len(bnfold.inspect(model="memory://in/model.onnx").folds) == 1


def test_from_a_url_to_memory_and_to_a_file(memory: Any, tmp_path: Path) -> None:  # noqa: ANN401
    memory.pipe_file("/model.onnx", command.small().SerializeToString())
    result = bnfold.optimize("memory://model.onnx", verify=False)
    assert result.content is not None
    bnfold.optimize("memory://model.onnx", output=tmp_path / "out.onnx", verify=False)
    assert (tmp_path / "out.onnx").read_bytes() == result.content
    path = (tmp_path / "out.onnx").as_uri()
    assert not bnfold.optimize(path, verify=False).folds


def test_external_data_comes_along(memory: Any, tmp_path: Path) -> None:  # noqa: ANN401
    memory.pipe_file("/in/m.onnx", external(command.small(), tmp_path))
    memory.pipe_file("/in/sub/weights", (tmp_path / "sub/weights").read_bytes())
    bnfold.optimize("memory://in/m.onnx", output="memory://out/m.onnx").raise_for_status()
    _, data = names = stored(memory)[2:]
    assert [Path(n).name.split("-")[0] for n in names] == ["m.onnx", "m.onnx"]
    assert data.endswith(".data")
    memory.get("/out/", str(tmp_path / "got"), recursive=True)
    assert bnfold.verify(tmp_path / "external.onnx", tmp_path / "got" / "m.onnx").status == "equivalent"


def test_external_data_that_is_missing(memory: Any, tmp_path: Path) -> None:  # noqa: ANN401
    memory.pipe_file("/in/m.onnx", external(command.small(), tmp_path))
    with pytest.raises(ModelError, match=r"memory://in.*missing"):
        bnfold.inspect("memory://in/m.onnx")


@pytest.mark.parametrize("location", ["../secret", "/etc/secret", "sub/../../secret", r"C:\secret"])
def test_external_data_that_leaves_the_folder_is_not_fetched(
    memory: Any,  # noqa: ANN401  # a filesystem
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
) -> None:
    model = ModelProto.FromString(external(command.small(), tmp_path, "weights"))
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    memory.pipe_file("/in/m.onnx", model.SerializeToString())
    memory.pipe_file("/secret", b"s" * 10_000)
    fetched: list[str] = []
    get = type(memory).get_file

    def telling(self: object, path: str, target: str) -> None:
        fetched.append(path)
        get(self, path, target)

    monkeypatch.setattr(type(memory), "get_file", telling)
    with pytest.raises(ModelError):
        bnfold.inspect("memory://in/m.onnx")
    assert fetched == ["/in/m.onnx"]


def test_what_goes_wrong_names_the_url(memory: Any, scratch: Path) -> None:  # noqa: ANN401
    memory.pipe_file("/broken.onnx", b"no model")
    for verb in (bnfold.optimize, bnfold.inspect):
        with pytest.raises(ModelError, match=r"memory://broken\.onnx") as caught:
            verb("memory://broken.onnx")
        assert str(scratch) not in str(caught.value)
    with pytest.raises(ModelError, match=r"memory://missing\.onnx cannot be opened"):
        bnfold.inspect("memory://missing.onnx")
    with pytest.raises(UsageError, match="is no URL that can be read"):
        bnfold.inspect("gopher://m.onnx")
    with pytest.raises(UsageError, match="in place"):
        bnfold.optimize("memory://broken.onnx", in_place=True)
    with pytest.raises(UsageError, match="no result can be written there"):
        bnfold.optimize(command.small(), output="https://u:secret@h/m.onnx")
    assert list(scratch.iterdir()) == []


def test_a_result_that_cannot_be_put_leaves_nothing(
    memory: Any,  # noqa: ANN401  # a filesystem
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory.pipe_file("/out.onnx", b"an older result")

    def refuse(_self: object, _from: str, _to: str) -> None:
        raise OSError("the store is full, says s3://key:secret@bucket/x")

    monkeypatch.setattr(type(memory), "mv", refuse)
    with pytest.raises(EnvironmentFault, match="the store is full") as caught:
        bnfold.optimize(command.small(), output="memory://out.onnx", verify=False)
    assert "secret" not in str(caught.value)
    assert stored(memory) == ["/out.onnx"]
    assert memory.cat_file("/out.onnx") == b"an older result"


def test_a_result_that_differs_is_not_put(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    verdict = bnfold.verify(command.small(), command.other())
    monkeypatch.setattr("bnfold.checking.Check._verdict", lambda *_: verdict)
    result = bnfold.optimize(command.small(), output="memory://out.onnx")
    assert result.report.output is None
    assert stored(memory) == []


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(EnvironmentFault, match=r"bnfold\[remote\]"):
        bnfold.inspect("s3://b/m.onnx")


def test_several_models_at_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one at a time"):
        bnfold.optimize_many(["https://u:secret@h/m.onnx"], out_dir=tmp_path)


# --- a web server -------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, to those who know the token."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/private") and query != "token=secret":
            self.send_error(403)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", folder
        serving.shutdown()
        thread.join()


def test_over_http(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    external(command.small(), folder, "sub/weights 1")
    command.save(command.small(), folder / "plain.onnx")
    for name in ("plain", "external"):
        result = bnfold.optimize(f"{url}/{name}.onnx", output=tmp_path / f"{name}.onnx")
        result.raise_for_status()
        assert result.report.source == f"{url}/{name}.onnx"
        assert len(result.folds) == 1
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be opened"):
        bnfold.inspect(f"{url}/missing.onnx")


def test_a_signed_url(server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "private").mkdir()
    external(command.small(), folder / "private", "weights")
    report = bnfold.inspect(f"{url}/private/external.onnx?token=secret").report
    assert report.source == f"{url}/private/external.onnx?***"
    assert "secret" not in report.to_json()
    with pytest.raises(EnvironmentFault, match="403") as caught:
        bnfold.inspect(f"{url}/private/external.onnx?token=wrong")
    assert "wrong" not in str(caught.value)


def test_a_benchmark_over_http(server: tuple[str, Path], scratch: Path) -> None:
    url, folder = server
    (folder / "private").mkdir()
    external(command.small(), folder / "private", "weights")
    signed = f"{url}/private/external.onnx?token=secret"
    found = bnfold.benchmark(signed, command.small(), levels=["enable_all"], seconds=0.01)
    assert found.a.source == f"{url}/private/external.onnx?***"
    assert "secret" not in found.to_json()
    assert str(scratch) not in found.to_json()
