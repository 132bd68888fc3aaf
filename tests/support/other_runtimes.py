"""Runtimes other than onnxruntime: how each is given a model, and how it is run.

    python other_runtimes.py RUNTIME MODEL FEEDS.npz RESULTS.npz OUTPUT ...

runs a model once and keeps the values of its outputs. Runtimes crash, and their packages want an environment
of their own: this file runs alone, in a process for each model, and imports nothing of this repository.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]
    Feeds = Mapping[str, Array]
    # A model's file, values of its inputs by name, names of its outputs; the values of those.
    Runtime = Callable[[Path, Feeds, Sequence[str]], Sequence[Array]]


def opencv(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """OpenCV's DNN module, the engine that it calls new."""
    return _opencv("ENGINE_NEW", path, feeds, outputs)


def opencv_classic(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """OpenCV's DNN module, the engine of OpenCV 4."""
    return _opencv("ENGINE_CLASSIC", path, feeds, outputs)


def _opencv(engine: str, path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    dnn = import_module("cv2").dnn
    net = dnn.readNetFromONNX(str(path), getattr(dnn, engine))
    for name, values in feeds.items():
        net.setInput(values, name)
    names = list(net.getUnconnectedOutLayersNames())
    results = dict(zip(names, net.forward(names), strict=True))
    # Where it renames outputs it keeps their order.
    return [results[name] for name in (outputs if set(outputs) <= set(results) else names)]


def openvino(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """OpenVINO's CPU plugin, in float32 also on processors that have a faster type."""
    core = import_module("openvino").Core()
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = model(dict(feeds))
    return [results[name] for name in outputs]


def tract(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """tract, a runtime in Rust."""
    model = import_module("tract").onnx().load(path)
    for index in range(model.input_count()):
        values = feeds[model.input_name(index)]
        shape = ",".join(map(str, values.shape))
        model.set_input_fact(index, f"{shape},{values.dtype.kind}{8 * values.dtype.itemsize}")
    ordered = [feeds[model.input_name(index)] for index in range(model.input_count())]
    results = model.into_model().into_runnable().run(ordered)
    return [result.to_numpy() for result in results[: len(outputs)]]


def ncnn(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """Tencent's ncnn, through the converter pnnx, both in float32. ncnn has no batches."""
    runtime = import_module("ncnn")
    # Importing pnnx would import PyTorch, which its program does not need.
    (place,) = find_spec("pnnx").submodule_search_locations  # type: ignore[union-attr, misc]  # it is installed
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(path.read_bytes())
        shapes = ",".join(f"[{','.join(map(str, values.shape))}]f32" for values in feeds.values())
        command = [str(Path(place, "pnnx")), str(copy), f"inputshape={shapes}", "fp16=0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        parameters = copy.with_name("model.ncnn.param")
        if done.returncode or not parameters.exists():
            raise RuntimeError(f"pnnx: {_last(done.stderr + done.stdout) or done.returncode}")
        net = runtime.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        if net.load_param(str(parameters)) or net.load_model(str(copy.with_name("model.ncnn.bin"))):
            raise RuntimeError("ncnn cannot load what pnnx made")
        extractor = net.create_extractor()
        for index, values in enumerate(feeds.values()):
            extractor.input(f"in{index}", runtime.Mat(np.ascontiguousarray(values[0])).clone())
        results = []
        for index in range(len(outputs)):
            status, result = extractor.extract(f"out{index}")
            if status:
                raise RuntimeError(f"ncnn: status {status}")
            results.append(np.array(result)[np.newaxis])
        return results


def onnx2torch(path: Path, feeds: Feeds, outputs: Sequence[str]) -> Sequence[Array]:
    """PyTorch, through the converter onnx2torch."""
    torch = import_module("torch")
    model = import_module("onnx2torch").convert(str(path)).eval()
    with torch.no_grad():
        results = model(*(torch.from_numpy(values) for values in feeds.values()))
    listed = [results] if len(outputs) == 1 else results
    return [result.numpy() for result in listed]


RUNTIMES: dict[str, Runtime] = {
    "OpenCV, new engine": opencv,
    "OpenCV, classic engine": opencv_classic,
    "OpenVINO": openvino,
    "tract": tract,
    "ncnn": ncnn,
    "PyTorch, onnx2torch": onnx2torch,
}
# The packages on PyPI that each of them takes.
PACKAGES: dict[str, tuple[str, ...]] = {
    "OpenCV, new engine": ("opencv-python-headless",),
    "OpenCV, classic engine": ("opencv-python-headless",),
    "OpenVINO": ("openvino",),
    "tract": ("tract",),
    "ncnn": ("pnnx", "ncnn"),
    "PyTorch, onnx2torch": ("onnx2torch", "torch"),
}

_REASON = 400  # characters of one; some have a whole backtrace in them


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main() -> None:
    """Run what the command line names, or print the versions of what it takes."""
    runtime, *rest = sys.argv[1:]
    if not rest:
        print(", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES[runtime]))  # noqa: T201
        return
    model, feeds, results, *outputs = rest
    with np.load(feeds) as opened:
        given = dict(opened)
    try:
        values = RUNTIMES[runtime](Path(model), given, outputs)
    except Exception as error:  # noqa: BLE001  # each runtime has exceptions of its own
        said = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(said[:_REASON])
    np.savez(results, *values)


if __name__ == "__main__":
    main()
