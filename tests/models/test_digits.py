"""The sample model: trained with this project's batch normalization, and folded by it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime  # noqa: TID251 - the judge of the stored model, not part of the package
import pytest
from onnx import numpy_helper

import bnfold
from bnfold import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.onnx"
# As promised in models/README.md.
ACCURACY = 0.97


@pytest.fixture(scope="module")
def held_out() -> dict[str, NDArray[Any]]:
    with np.load(MODELS / "digits_test.npz") as file:
        return dict(file)


def logits_of(model: onnx.ModelProto, images: NDArray[Any]) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {"image": images})
    return np.asarray(logits)


def accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def test_the_held_out_digits_are_what_the_readme_says(held_out: dict[str, NDArray[Any]]) -> None:
    image, label = held_out["image"], held_out["label"]
    assert image.shape == (360, 1, 8, 8)
    assert image.dtype == np.float32
    assert image.min() == 0
    assert image.max() == 1
    assert set(label) == set(range(10))
    assert DIGITS.stat().st_size < 1_000_000


def test_the_stored_model_recognizes_digits_it_has_not_seen(held_out: dict[str, NDArray[Any]]) -> None:
    logits = logits_of(onnx.load(DIGITS), held_out["image"])
    assert accuracy(logits, held_out["label"]) >= ACCURACY


def test_it_keeps_its_batch_normalizations_in_inference_mode() -> None:
    model = onnx.load(DIGITS)
    onnx.checker.check_model(model, full_check=True)
    producers = {o: n.op_type for n in model.graph.node for o in n.output}
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert [producers[n.input[0]] for n in norms] == ["Conv", "Conv", "ConvTranspose", "Conv", "Gemm"]
    assert all(len(n.output) == 1 for n in norms)
    (image,) = model.graph.input
    assert image.type.tensor_type.shape.dim[0].dim_param == "N"


def test_its_statistics_were_learned() -> None:
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(DIGITS).graph.initializer}
    for name in ("stem", "down", "up", "mix", "dense"):
        assert np.abs(values[f"{name}.bn.mean"]).max() > 0.1
        assert (values[f"{name}.bn.var"] > 0).all()
        assert np.abs(values[f"{name}.bn.var"] - 1).max() > 0.1
        assert np.abs(values[f"{name}.bn.scale"] - 1).max() > 0.01
        assert np.abs(values[f"{name}.bn.bias"]).max() > 0.01


def test_a_digit_alone_and_in_a_batch_get_the_same_answer(held_out: dict[str, NDArray[Any]]) -> None:
    model = onnx.load(DIGITS)
    together = logits_of(model, held_out["image"][:16])
    for i in range(16):
        alone = logits_of(model, held_out["image"][i : i + 1])
        assert alone.argmax() == together[i].argmax()
        # Only the order of the matrix products' sums may change with the batch.
        np.testing.assert_allclose(alone[0], together[i], rtol=0, atol=1e-4)


def test_its_running_averages_are_close_to_the_population(held_out: dict[str, NDArray[Any]]) -> None:
    # Of the first normalization, whose inputs the held-out images give: the moving average over augmented
    # training batches and the exact statistics of images it never saw estimate one population.
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(DIGITS).graph.initializer}
    padded = np.pad(held_out["image"], ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    before = np.einsum("nchwij,ocij->nohw", windows, values["stem.linear.weight"])
    exact = runtime.recalibrate(np.array_split(before, 7))
    np.testing.assert_allclose(
        values["stem.bn.mean"], exact.mean, rtol=0, atol=0.1 * np.sqrt(exact.var()).max()
    )
    np.testing.assert_allclose(values["stem.bn.var"], exact.var(), rtol=0.15)


def test_folding_keeps_every_prediction(held_out: dict[str, NDArray[Any]]) -> None:
    image, label = held_out["image"], held_out["label"]
    before = logits_of(onnx.load(DIGITS), image)
    folded = bnfold.optimize(str(DIGITS)).model
    assert not [n for n in folded.graph.node if n.op_type == "BatchNormalization"]
    after = logits_of(folded, image)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert accuracy(after, label) == accuracy(before, label)
    # Float32 on both sides and logits up to about 15: 1e-4 is a hundred roundings of the largest.
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


@pytest.mark.peers
def test_training_again_gives_as_good_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: dict[str, NDArray[Any]]
) -> None:
    # Needs scikit-learn. Bytes are compared between two runs on one machine only: another BLAS sums in
    # another order, and training carries the last bit into every weight.
    module = runpy.run_path(str(MODELS / "train_digits.py"))
    images, labels = module["digits"]()
    np.testing.assert_array_equal(images[:360], held_out["image"])
    np.testing.assert_array_equal(labels[:360], held_out["label"])
    monkeypatch.setitem(module["main"].__globals__, "FOLDER", tmp_path)
    module["main"]()
    first = (tmp_path / "digits.onnx").read_bytes()
    module["main"]()
    assert (tmp_path / "digits.onnx").read_bytes() == first
    assert accuracy(logits_of(onnx.load_from_string(first), held_out["image"]), held_out["label"]) >= ACCURACY
