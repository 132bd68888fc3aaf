"""Runs one tool once on one model: what `tools.py` starts and measures, one process a run.

    python drive.py TOOL MODEL RESULT
    python drive.py --version TOOL

Every tool is given the least work that removes BatchNormalization: only its BN rules where it can be told so.
Whatever one of them needs is imported for it alone, so that none pays for another.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ABSENT = 3


def bnfold(model: Path, result: Path) -> None:
    """Run `bnfold optimize --no-verify`."""
    sys.argv = ["bnfold", "optimize", "--no-verify", str(model), "-o", str(result)]
    import_module("bnfold.cli").main()


def onnxsim(model: Path, result: Path) -> None:
    """Run it as its command line does by default."""
    import_module("onnxsim").simplify(str(model), output_path=str(result))


def onnxslim(model: Path, result: Path) -> None:
    """Run it as its command line does by default."""
    import_module("onnxslim").slim(str(model), str(result), save_as_external_data=_has_data(model))


def onnxscript(model: Path, result: Path) -> None:
    """Run the optimizer, then the rules that fuse BatchNormalization; its weights are mapped, not read."""
    ir = import_module("onnx_ir")
    common = import_module("onnxscript.rewriter.rules.common")
    opened = ir.load(model)
    import_module("onnxscript.optimizer").optimize(opened)
    rules = [
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
    ]
    opened = import_module("onnxscript.rewriter").rewrite(opened, rules)
    ir.save(opened, result, external_data=f"{result.name}.data" if _has_data(model) else None)


def onnxoptimizer(model: Path, result: Path) -> None:
    """Run its one pass for BatchNormalization."""
    onnx = import_module("onnx")
    optimized = import_module("onnxoptimizer").optimize(onnx.load(model), ["fuse_bn_into_conv"])
    onnx.save(optimized, result, save_as_external_data=_has_data(model), location=f"{result.name}.data")


def onnxruntime(model: Path, result: Path) -> None:
    """Let a session write the graph that it optimized at level BASIC, the highest that stays plain ONNX."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    if _has_data(model):
        prefix = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{prefix}_file_name", f"{result.name}.data")
        options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def copy(model: Path, result: Path) -> None:
    """Copy the model and its data: the least that any tool can do."""
    shutil = import_module("shutil")
    for file in model.parent.iterdir():
        shutil.copyfile(file, result.parent / file.name)


def copy_durably(model: Path, result: Path) -> None:
    """Copy, and wait until the disk has it, as a tool must that promises an intact file after a power cut."""
    copy(model, result)
    for file in result.parent.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "bnfold": bnfold,
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
    "onnxscript": onnxscript,
    "onnxoptimizer": onnxoptimizer,
    "onnxruntime": onnxruntime,
    "copy": copy,
    "copy + fsync": copy_durably,
}

_DISTRIBUTIONS = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}


def _has_data(model: Path) -> bool:
    return any(file != model for file in model.parent.iterdir())


def _version(tool: str) -> None:
    if tool in {"copy", "copy + fsync"}:
        return
    if tool == "bnfold":
        print(import_module("bnfold").__version__)
        return
    metadata = import_module("importlib.metadata")
    for distribution in _DISTRIBUTIONS.get(tool, (tool,)):
        try:
            print(metadata.version(distribution))
        except metadata.PackageNotFoundError:
            continue
        return
    sys.exit(_ABSENT)


def main() -> None:
    """Run what the command line names."""
    if sys.argv[1] == "--version":
        _version(sys.argv[2])
        return
    tool, model, result = sys.argv[1:]
    TOOLS[tool](Path(model), Path(result))


if __name__ == "__main__":
    main()
