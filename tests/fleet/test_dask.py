"""A fleet of models on a real Dask cluster of processes, one of which is killed at work."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import onnx
import pytest
from support import command
from support.claims import batch_norms

import bnfold

if TYPE_CHECKING:
    from pathlib import Path

distributed = pytest.importorskip("distributed", reason="the packages of bnfold[dask] are not installed")

# Dask's own affairs: ports that are taken, what it has not closed yet when a worker is killed.
pytestmark = [pytest.mark.dask, pytest.mark.filterwarnings("default")]

COUNT = 12


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for index in range(COUNT):
        command.save(command.folding(f"bn{index}").model(), folder / f"{index:02}.onnx")
    return folder


def test_killing_a_worker_loses_no_model(models: Path) -> None:
    out = models.parent / "out"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        victims = list(client.run(os.getpid).values())
        done: list[str] = []

        def kill_one(outcome: bnfold.Outcome) -> None:
            done.append(outcome.source)
            if len(done) == 2:
                os.kill(victims[0], signal.SIGKILL)

        outcomes = bnfold.optimize_many(
            [models], out_dir=out, executor=client.get_executor(), progress=kill_one
        )
        assert victims[0] not in client.run(os.getpid).values()
    assert sorted(done) == [str(models / f"{index:02}.onnx") for index in range(COUNT)]
    assert [o.source for o in outcomes] == sorted(done)
    assert [o.error for o in outcomes] == [None] * COUNT
    verdicts = [o.result.verdict.status for o in outcomes if o.result and o.result.verdict]
    assert verdicts == ["equivalent"] * COUNT
    # A lock that the killed worker left is gone with it, and what it was writing is removed by its successor.
    assert sorted(p.name for p in out.glob("*.onnx")) == [f"{index:02}.onnx" for index in range(COUNT)]
    for path in out.glob("*.onnx"):
        assert [node.name for node in batch_norms(onnx.load(str(path)))] == ["head"]


def test_every_outcome_as_without_a_cluster(models: Path) -> None:
    (models / "broken.onnx").write_bytes(b"no model")
    there_dir, here_dir = models.parent / "there", models.parent / "here"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = bnfold.optimize_many(
            [models], out_dir=there_dir, executor=client.get_executor(), verify=False
        )
    here = bnfold.optimize_many([models], out_dir=here_dir, verify=False, jobs=1)
    assert [o.exit_code for o in there] == [o.exit_code for o in here] == [0] * COUNT + [3]
    assert len(list(here_dir.glob("*.onnx"))) == COUNT
    for path in here_dir.glob("*.onnx"):
        assert (there_dir / path.name).read_bytes() == path.read_bytes()
