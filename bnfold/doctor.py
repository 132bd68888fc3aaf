"""Can bnfold work here? Versions, the providers that really start, and whether the semantics hold.

A broken installation is what this module exists for, so nothing here takes a package for granted: whatever
cannot be imported, started or run becomes a row that says so. onnxruntime runs in processes of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.environment import PACKAGES, python, system, version
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

_CPU = "CPUExecutionProvider"
_PATIENCE = 120.0  # seconds for onnxruntime to start a session: the first on a GPU may compile kernels


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that bnfold uses; `version` is None where it is not installed."""

    name: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider that onnxruntime lists.

    Attributes:
        name: onnxruntime's name of it.
        starts: whether a session really ran on it; None for one that bnfold never asks for.
        detail: one line: what was seen.
    """

    name: str
    starts: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Check:
    """A check of what BatchNormalization means here.

    Attributes:
        name: who computed what.
        ok: whether it holds; None where it could not be run.
        detail: one line: what was seen, or why nothing was.
    """

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found.

    Attributes:
        bnfold: its version.
        python: version and implementation.
        platform: operating system and machine.
        packages: bnfold's dependencies.
        providers: what onnxruntime lists, tried.
        checks: the semantics.
        warnings: what will hurt sooner or later, one line each.
    """

    bnfold: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    providers: tuple[Provider, ...]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether bnfold has all it needs: onnxruntime on the CPU, and no check that fails."""
        starts = any(provider.name == _CPU and provider.starts for provider in self.providers)
        return starts and bool(self.checks) and all(check.ok is not False for check in self.checks)


def examine() -> Checkup:
    """Look at this installation; takes a few seconds, and never raises for what it finds."""
    return Checkup(
        bnfold=__version__,
        python=python(),
        platform=system(),
        packages=tuple(Package(name, version(name)) for name in PACKAGES),
        providers=tuple(_providers()),
        checks=tuple(_checks()),
        warnings=tuple(_warnings()),
    )


def _warnings() -> Iterator[str]:
    owners = sorted(set(metadata.packages_distributions().get("onnxruntime", ())))
    if len(owners) > 1:
        yield (
            f"{' and '.join(owners)} are both installed and overwrite each other's files: uninstall all of "
            "them, then install one"
        )


def _providers() -> Iterator[Provider]:
    listed = _listed()
    if isinstance(listed, str):
        yield Provider(_CPU, starts=False, detail=listed)
        return
    try:
        from bnfold.verification.sessions import PROVIDERS  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        yield Provider(_CPU, starts=False, detail=str(error))
        return
    keys = {name: key for key, name in PROVIDERS.items()}
    for name in listed:
        if name in keys:
            failure = _failure(keys[name])
            yield Provider(name, starts=failure is None, detail=failure or "a session ran")
        else:
            yield Provider(name, starts=None, detail="bnfold does not use it")


def _listed() -> list[str] | str:
    """The names of the providers, or why there are none."""
    code = "import onnxruntime; print(*onnxruntime.get_available_providers())"
    try:
        ran = subprocess.run(  # noqa: S603  # this interpreter, with a constant program
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"importing onnxruntime took more than {_PATIENCE:g} s"
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines()
        return f"onnxruntime cannot be imported: {said[-1] if said else f'status {ran.returncode}'}"
    return ran.stdout.split()


def _checks() -> Iterator[Check]:
    try:
        from bnfold.runtime.selftest import self_test  # noqa: PLC0415  # may be what is broken

        for row in self_test():
            yield Check(f"reference, {row.name}", row.ok, row.detail)
        failure = _failure("cpu")
    except ImportError as error:
        yield Check("reference", ok=False, detail=str(error))
    else:
        yield Check("onnxruntime, CPU", failure is None, failure or "computes what the reference computes")


def _failure(provider: str) -> str | None:
    """What goes wrong when a provider runs a BatchNormalization; None when nothing does."""
    import numpy as np  # noqa: PLC0415  # may be what is broken
    from onnx import TensorProto, helper  # noqa: PLC0415  # likewise

    from bnfold import runtime  # noqa: PLC0415  # likewise
    from bnfold.verification.sessions import Failure, Run, run_model  # noqa: PLC0415  # likewise

    # Every intermediate is exact in binary: var + epsilon is 16 and 4.
    epsilon, shape = 12.0, (2, 2, 1, 2)
    x = np.arange(8, dtype=np.float32).reshape(shape)
    scale, bias = np.array([2, -1], np.float32), np.array([1, 0.5], np.float32)
    mean, var = np.array([2, -3], np.float32), np.array([4, -8], np.float32)
    expected = runtime.infer(x, scale, bias, mean, var, epsilon=epsilon, backend="numpy")
    graph = helper.make_graph(
        [
            helper.make_node(
                "BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y"], epsilon=epsilon
            )
        ],
        "checkup",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor(name, TensorProto.FLOAT, [2], values)
            for name, values in (("scale", scale), ("bias", bias), ("mean", mean), ("var", var))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        path = Path(folder, "checkup.onnx")
        path.write_bytes(model.SerializeToString())
        run = Run("disable_all", "checkup", {"x": x})
        outcome = run_model(path, [run], provider=provider, timeout=_PATIENCE)[run.level, run.feed]
    if isinstance(outcome, Failure):
        return outcome.reason
    result = np.asarray(outcome.outputs["y"])
    # A GPU may take the root with two units in the last place; the product and the sum after it add one each.
    if np.allclose(result, expected, rtol=4 * float(np.finfo(np.float32).eps), atol=0):
        return None
    return f"BatchNormalization gives {result.ravel().tolist()}, not {expected.ravel().tolist()}"
