"""The package as a whole: its face, its metadata, and whether what its documents say is so."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support import command

import bnfold
from bnfold import errors
from bnfold.cli import Exit
from bnfold.fold.ops import TABLE
from bnfold.fold.reasons import Code
from bnfold.gate import baseline
from bnfold.gate.policy import CHOICES
from bnfold.report.rules import FINDINGS, REASONS
from bnfold.verification import judge

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "models/README.md"),
    *("docs/python.md", "docs/verification.md"),
)


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: rows of cells, without the header."""
    found = re.findall(r"^\|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in body.splitlines()] for body in found
    ]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


# --- the face -----------------------------------------------------------------------------------------------


def test_the_names_of_the_package() -> None:
    assert sorted(bnfold.__all__) == [
        "Outcome", "Result", "__version__", "benchmark", "inspect", "optimize", "optimize_many", "verify",
    ]  # fmt: skip
    for name in bnfold.__all__:
        assert getattr(bnfold, name) is not None
    assert callable(bnfold.verify)
    with pytest.raises(AttributeError, match="fold_everything"):
        _ = bnfold.fold_everything


def test_importing_a_part_does_not_hide_a_verb(tmp_path: Path) -> None:
    """A package below bnfold must not take the place of a function with its name."""
    code = (
        "import bnfold.pipeline, bnfold.cli, bnfold.doctor, bnfold.fleet.run, bnfold.runtime, bnfold\n"
        "bnfold.optimize('model.onnx')\n"
        "verbs = 'optimize', 'optimize_many', 'inspect', 'verify'\n"
        "assert all(callable(getattr(bnfold, verb)) for verb in verbs)\n"
    )
    command.save(command.small(), tmp_path / "model.onnx")
    found = command.run(cwd=tmp_path, program=(sys.executable, "-c", code))
    assert found.returncode == 0, found.stderr


def test_importing_is_cheap(tmp_path: Path) -> None:
    code = "import sys, bnfold; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    found = command.run(cwd=tmp_path, program=(sys.executable, "-c", code))
    assert not {"numpy", "onnx", "onnxruntime", "rich", "typer"} & set(found.stdout.split())


def test_the_error_tree_is_as_drawn() -> None:
    """Every class of the drawing exists, with the exit code beside it, and none is missing."""
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"(?:├|└)── (\w+)\s+(\d)", errors.__doc__))
    classes = {c.__name__: c for c in errors.BnfoldError.__subclasses__()}
    assert drawn.keys() == classes.keys()
    for name, code in drawn.items():
        made = errors.VerdictError("m", exit_code=1) if name == "VerdictError" else classes[name]("m")
        assert made.exit_code == int(code)


def test_it_is_typed() -> None:
    assert (Path(bnfold.__file__).parent / "py.typed").exists()


def test_onnxruntime_and_graphsurgeon_stay_in_their_places() -> None:
    """Read from the source, since a linter can be told to look away."""
    importers: dict[str, set[str]] = {"onnxruntime": set(), "onnx_graphsurgeon": set()}
    for path in (ROOT / "bnfold").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                importers.get(name.split(".")[0], set()).add(path.relative_to(ROOT / "bnfold").as_posix())
    assert importers["onnx_graphsurgeon"] == {"model/view.py"}
    assert {Path(name).name for name in importers["onnxruntime"]} == {"worker.py"}


# --- the README ---------------------------------------------------------------------------------------------


def test_the_readme_has_two_commands() -> None:
    """Each in one line; .ci/run runs them."""
    commands = [line for block in blocks(README, "sh") for line in block.splitlines()]
    assert len(commands) == 2
    main, tests = commands
    assert re.search(r"bnfold optimize (models/\S+\.onnx)$", main)
    assert tests.endswith("pytest")
    assert "'.[test]'" in tests
    for each in commands:
        assert each.startswith("python3 -m venv ")


def test_the_model_of_the_readme_gives_what_it_shows(tmp_path: Path) -> None:
    """All but the errors, which rounding may move elsewhere."""
    (shown,) = (block for block in blocks(README, "text") if block.startswith("models/"))
    name = shown.split()[0]
    found = command.run("optimize", ROOT / name, "-o", tmp_path / "out.onnx", cwd=tmp_path)
    assert found.returncode == Exit.DONE, found.stderr
    said = found.stdout.replace(f"{ROOT}/", "").replace(
        str(tmp_path / "out.onnx"), "models/digits.folded.onnx"
    )
    assert said.split("\n\n")[0] == shown.split("\n\n")[0]
    # The levels come in the order of their errors; of the stages only those that took time are named.
    number = r"\b\d+(\.\d+)?(e[-+]\d+)?\b|\(.*\)$"
    tails = [text.split("\n\n")[1].splitlines() for text in (shown, said)]
    one, other = (sorted(re.sub(number, "#", " ".join(line.split())) for line in tail) for tail in tails)
    assert one == other


def test_the_exit_codes_are_documented() -> None:
    (rows,) = (rows for rows in tables(README) if rows[0][0] == "0")
    assert sorted(int(code) for code, _ in rows) == sorted(Exit)


def test_the_reason_codes_are_documented() -> None:
    """As SARIF has them."""
    (rows,) = (rows for rows in tables(README) if rows[0][0].startswith("BNF01"))
    assert rows == [[rule.code, rule.meaning, rule.remedy] for rule in REASONS]
    assert [rule.code for rule in REASONS] == [code.value for code in Code]


def test_the_findings_of_the_gate_are_documented() -> None:
    (rows,) = (rows for rows in tables(README) if rows[0][0] == "BNF001")
    own = {rule.code: [rule.meaning, rule.remedy] for rule in FINDINGS}
    assert {code: [meaning, remedy] for code, meaning, _, remedy in rows if code in own} == own
    kinds = {word for _, _, fails, _ in rows for word in re.findall(r"^\w+", fails)}
    assert kinds == {kind.value for kind in CHOICES}


def test_the_schemas_are_documented() -> None:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "bnfold").rglob("*.py"))
    schemas = {
        name for text in texts for name in re.findall(r'^SCHEMA = "(bnfold\.\w+/\d+)"$', text, re.MULTILINE)
    }
    # A baseline is no report.
    assert set(re.findall(r"`(bnfold\.\w+/\d+)`", README)) == schemas - {baseline.SCHEMA}


def test_the_operators_are_documented() -> None:
    """Each once, and those with weights are said to take the map in."""
    (rows,) = (rows for rows in tables(README) if rows[0][0].startswith("Conv"))
    documented = [(name, what) for names, what in rows for name in names.split(", ")]
    assert sorted(name for name, _ in documented) == sorted(TABLE)
    takes_in = {name for name, what in documented if what.startswith("takes it in")}
    assert takes_in >= {name for name, entry in TABLE.items() if entry.linear}
    written = runpy.run_path(str(ROOT / ".ci" / "operators.py"))["written"]
    assert written(README) == README, "run python .ci/operators.py"


def test_the_bounds_are_documented() -> None:
    """The factors, in the order of the formula."""
    (formula,) = (block for block in blocks(README, "text") if block.startswith("rms(folded error)"))
    factors = [float(number) for number in re.findall(r"(?<=[=+] )\d+", formula)]
    assert factors == [
        *(judge.RMS_FACTOR, judge.RMS_ALLOWANCE, judge.RMS_ULP),
        *(judge.MAX_FACTOR, judge.MAX_ALLOWANCE, judge.MAX_ULP),
    ]
    assert judge.ILL_CONDITIONED == 1 / 20
    assert "a twentieth of its signal" in README


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = blocks(README, "python")
    command.save(command.small(), tmp_path / "model.onnx")
    found = command.run(cwd=tmp_path, program=(sys.executable, "-W", "error", "-c", code))
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("1 folded, 1 kept: equivalent")
    assert "BNF019" in found.stdout
    assert (tmp_path / "model.folded.onnx").exists()


def test_the_python_for_many_models_runs(tmp_path: Path) -> None:
    """A pool of threads stands for the cluster."""
    (code,) = blocks(README, "py")
    (tmp_path / "models").mkdir()
    command.save(command.small(), tmp_path / "models" / "model.onnx")
    (tmp_path / "script.py").write_text(
        "import bnfold\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "class client: get_executor = staticmethod(lambda: ThreadPoolExecutor(1))\n"
        f"{code}\n    print([o.exit_code for o in outcomes])\n"
    )
    found = command.run(cwd=tmp_path, program=(sys.executable, "-W", "error", "script.py"))
    assert (found.returncode, found.stdout) == (0, "[0]\n"), found.stderr
    assert (tmp_path / "folded" / "model.onnx").exists()


def test_the_options_of_the_readme_exist(tmp_path: Path) -> None:
    (usage,) = (block for block in blocks(README, "text") if block.startswith("bnfold optimize"))
    for verb, rest in re.findall(r"^bnfold (\w+)((?:.*\n)(?: .*\n)*)", usage, flags=re.MULTILINE):
        helped = command.run(verb, "--help", cwd=tmp_path).stdout
        missing = [option for option in re.findall(r"--[a-z-]+", rest) if option not in helped]
        assert (verb, missing) == (verb, [])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_documents_point_to_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    missing = [link for link in sorted(links) if not (ROOT / name).parent.joinpath(link).exists()]
    paths = re.findall(r"`((?:bnfold|tests|models|benchmarks|docs|\.ci)/[\w./]+)`", text)
    paths += re.findall(r"(?:python|bash) ((?:benchmarks|models|\.ci)/[\w./]+)", text)
    missing += [path for path in sorted(set(paths)) if not (ROOT / path).exists()]
    assert missing == []


# --- metadata -----------------------------------------------------------------------------------------------


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", bnfold.__version__)


def test_the_continuous_integration_is_a_sound_script() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)  # noqa: S607 - wherever it is
