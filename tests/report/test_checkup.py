"""The checkup as a person sees it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from bnfold.doctor import Check, Checkup, Package, Provider
from bnfold.report.checkup import render_checkup

CHECKUP = Checkup(
    bnfold="1.2.3",
    python="3.11.0 (CPython)",
    platform="Linux 6 x86_64",
    packages=(Package("onnx", "1.20"), Package("onnxruntime", None)),
    providers=(
        Provider("CUDAExecutionProvider", starts=False, detail="silently took CPUExecutionProvider"),
        Provider("AzureExecutionProvider", starts=None, detail="bnfold does not use it"),
        Provider("CPUExecutionProvider", starts=True, detail="a session ran"),
    ),
    checks=(Check("reference, numpy float32", ok=True, detail="12 results"),),
    warnings=("two of them",),
)


def text(checkup: Checkup) -> str:
    console = Console(file=StringIO(), width=120, markup=False)
    with console.capture() as captured:
        console.print(render_checkup(checkup))
    return captured.get()


def test_everything_is_there() -> None:
    lines = [" ".join(line.split()) for line in text(CHECKUP).splitlines()]
    for expected in (
        "bnfold 1.2.3",
        "onnx 1.20",
        "onnxruntime not installed",
        "no CUDAExecutionProvider silently took CPUExecutionProvider",
        "- AzureExecutionProvider bnfold does not use it",
        "ok CPUExecutionProvider a session ran",
        "ok reference, numpy float32 12 results",
        "warning: two of them",
    ):
        assert expected in lines
    assert lines[-1].startswith("healthy")


def test_a_sick_installation_is_called_so() -> None:
    sick = replace(CHECKUP, checks=(Check("reference", ok=False, detail="numpy is missing"),))
    assert text(sick).splitlines()[-1].startswith("not healthy")
