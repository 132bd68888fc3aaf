"""What a result says about where it comes from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import ModelProto
from support import command

import bnfold
from bnfold.fold.options import Options, Rejected
from bnfold.provenance import Provenance, config_sha256

if TYPE_CHECKING:
    from pathlib import Path

# Of `{"exclude": [], "freeze": false, "include": [], "merge": true}`, by sha256sum. It never changes: results
# of the same version are compared by it.
DEFAULT_CONFIG = "20048523f1cfebe3487292e097d87ae9a95fbc32d9d6bceea26c0a92527777f8"


def entries(model: ModelProto) -> dict[str, str]:
    found = [(p.key, p.value) for p in model.metadata_props if p.key.startswith("bnfold.")]
    assert len(found) == len(dict(found)), "an entry is there twice"
    return dict(found)


@pytest.mark.parametrize("kind", ["memory", "file", "in place", "external"])
def test_a_changed_model_says_where_it_comes_from(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        command.small(),
        str(path),
        save_as_external_data=kind == "external",
        location="w",
        size_threshold=0,
    )
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    output = None if kind == "memory" else tmp_path / "out.onnx"
    if kind == "in place":
        result = bnfold.optimize(path, in_place=True, verify=False)
    else:
        result = bnfold.optimize(path, output=output, verify=False)
    assert entries(result.model) == {
        "bnfold.version": bnfold.__version__,
        "bnfold.source_sha256": source,
        "bnfold.config_sha256": DEFAULT_CONFIG,
        "bnfold.folds": "1",
    }
    assert result.report.source_sha256 == source


def test_a_model_in_memory_is_digested_as_it_would_be_saved() -> None:
    model = command.small()
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    for source in (model, model.SerializeToString(deterministic=True)):
        made = bnfold.optimize(source, verify=False).model
        assert entries(made)["bnfold.source_sha256"] == digest


def test_the_default_configuration() -> None:
    text = '{"exclude": [], "freeze": false, "include": [], "merge": true}'
    assert hashlib.sha256(text.encode()).hexdigest() == DEFAULT_CONFIG


@pytest.mark.parametrize(
    "options",
    [{"freeze": True}, {"merge": False}, {"include": ["b*"]}, {"exclude": ["other"]}],
    ids=lambda o: next(iter(o)),
)
def test_every_option_that_decides_counts(options: dict[str, Any]) -> None:
    changed = entries(bnfold.optimize(command.small(), verify=False, **options).model)
    assert changed["bnfold.config_sha256"] != DEFAULT_CONFIG


def test_options_that_mean_the_same_are_the_same() -> None:
    assert config_sha256(Options(include=("a", "b"))) == config_sha256(Options(include=("b", "a", "b")))
    assert config_sha256(Options(include=("a",))) != config_sha256(Options(exclude=("a",)))
    assert config_sha256(Options(rejected=(Rejected("a", "", "evidence"),))) != config_sha256(Options())
    # A name that is no text, as the shell may hand it over.
    assert len(config_sha256(Options(include=("\udcff",)))) == 64


def test_how_it_was_verified_does_not_count() -> None:
    """The same fold is the same file, whoever looks at it."""
    made = [
        bnfold.optimize(command.small(), **o).model.SerializeToString()
        for o in ({"verify": False}, {"verify": True}, {"seed": 7})
    ]
    assert len(set(made)) == 1


def test_without() -> None:
    plain = bnfold.optimize(command.small(), verify=False, provenance=False).model
    assert len(plain.metadata_props) == 0
    told = bnfold.optimize(command.small(), verify=False).model
    del told.metadata_props[:]
    assert plain == told, "the entries are all that is different"


def test_an_unchanged_model_says_nothing_new(tmp_path: Path) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    command.save(command.small(), path)
    bnfold.optimize(path, output=out, verify=False, exclude=["*"])
    assert out.read_bytes() == path.read_bytes()


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    result = bnfold.optimize(command.small(), verify=False)
    result.save(first)
    again = bnfold.optimize(first, output=second, verify=False)
    assert not again.folds
    assert second.read_bytes() == first.read_bytes()
    bnfold.optimize(first, in_place=True, verify=False)
    assert second.read_bytes() == first.read_bytes()


def test_the_entries_of_an_earlier_run_are_replaced_in_their_place() -> None:
    net = command.folding()
    net.outputs.clear()
    net.output(net.bn(net.conv(net.input("z", 1, 3, 6, 6), 3, 4, name="late"), 4, name="late_bn"))
    model = net.model()
    model.metadata_props.add(key="before", value="1")
    half = bnfold.optimize(model, verify=False, exclude=["late_bn"]).model
    half.metadata_props.add(key="behind", value="2")
    whole = bnfold.optimize(half, verify=False)
    assert [f.node for f in whole.folds] == ["late_bn"]
    assert [p.key for p in whole.model.metadata_props] == [
        "before",
        "bnfold.version",
        "bnfold.source_sha256",
        "bnfold.config_sha256",
        "bnfold.folds",
        "behind",
    ]
    said = entries(whole.model)
    assert said["bnfold.config_sha256"] == DEFAULT_CONFIG
    assert said["bnfold.source_sha256"] == whole.report.source_sha256
    assert said["bnfold.source_sha256"] != entries(half)["bnfold.source_sha256"]


def test_what_freezes_without_a_fold_says_so_too() -> None:
    net = command.folding()
    net.inputs.append(onnx.helper.make_tensor_value_info(net.initializers[0].name, 1, [4, 3, 3, 3]))
    result = bnfold.optimize(net.model(), verify=False, freeze=True, exclude=["*"])
    assert result.report.frozen
    assert entries(result.model)["bnfold.folds"] == "0"


def test_reading_it_back() -> None:
    model = bnfold.optimize(command.small(), verify=False).model
    said = Provenance.of(model)
    assert said is not None
    assert said.entries() == entries(model)
    assert Provenance.of(command.small()) is None
    for spoilt in ({"bnfold.folds": "many"}, {"bnfold.version": None}):
        copy = ModelProto.FromString(model.SerializeToString())
        kept = [(p.key, spoilt.get(p.key, p.value)) for p in copy.metadata_props]
        del copy.metadata_props[:]
        for key, value in kept:
            if value is not None:
                copy.metadata_props.add(key=key, value=value)
        assert Provenance.of(copy) is None


def test_the_command_line(tmp_path: Path) -> None:
    command.save(command.small(), tmp_path / "model.onnx")
    for option, name in (("--provenance", "with"), ("--no-provenance", "without")):
        found = command.run(
            "optimize", "model.onnx", "-o", f"{name}.onnx", "--no-verify", option, "--json", cwd=tmp_path
        )
        assert found.returncode == 0, found.stderr
        made = onnx.load(str(tmp_path / f"{name}.onnx"))
        assert bool(entries(made)) == (name == "with")
        digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
        assert json.loads(found.stdout)["model"]["sha256"] == digest
