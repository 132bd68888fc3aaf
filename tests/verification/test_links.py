"""Models behind symbolic links, as download caches lay them out: names here, files elsewhere, renamed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from support.convnets import Net, build, changed, fold, weight

from bnfold import benchmark, optimize
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify

if TYPE_CHECKING:
    from bnfold.verification.options import TruthMode


def cached(model: onnx.ModelProto, folder: Path, *, data_linked: bool = True) -> Path:
    """The model and its external data in a cache, each file under a name that says nothing."""
    blobs, snapshot = folder / "blobs", folder / "snapshots"
    blobs.mkdir(parents=True)
    snapshot.mkdir()
    stored = blobs / "m.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # onnx.save moves the data out of what it is given
    onnx.save(copy, str(stored), save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    stored.rename(blobs / "5f3a")
    (snapshot / "m.onnx").symlink_to(Path("..", "blobs", "5f3a"))
    data = blobs / "m.onnx_data"
    if data_linked:
        data.rename(blobs / "9c1e")
        (snapshot / "m.onnx_data").symlink_to(Path("..", "blobs", "9c1e"))
    else:
        data.rename(snapshot / "m.onnx_data")
    return snapshot / "m.onnx"


@pytest.mark.parametrize("truth", ["full", "bound"])
@pytest.mark.parametrize("data_linked", [True, False])
def test_a_model_in_a_download_cache(tmp_path: Path, truth: TruthMode, data_linked: bool) -> None:
    model = build(Net(layers=2))
    folded = fold(model)
    wrong = weight(folded, "w1_folded").copy()
    wrong.flat[0] += 0.1
    original = cached(model, tmp_path / "a", data_linked=data_linked)
    right = cached(folded, tmp_path / "b", data_linked=data_linked)
    other = cached(changed(folded, "w1_folded", wrong), tmp_path / "c", data_linked=data_linked)
    assert verify(original, right, Verification(truth=truth)).status == "equivalent"
    assert verify(original, other, Verification(truth=truth)).status == "different"


def test_it_is_folded_verified_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Net(layers=2))
    cached(model, tmp_path)
    monkeypatch.chdir(tmp_path / "snapshots")
    result = optimize("m.onnx", output="folded.onnx", per_fold=True)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    assert sorted(each.tensor for each in result.verdict.per_fold) == ["bn0", "bn1"], result.verdict.per_fold
    measured = benchmark("m.onnx", "folded.onnx", levels=["disable_all"], seconds=0.5)
    assert measured.a.nodes > measured.b.nodes
    assert Path("m.onnx").is_symlink()
