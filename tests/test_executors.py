"""The same work on executors of `concurrent.futures`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, make_case, train_folder
from test_job_array import files, table

import volseg
from volseg.errors import CheckpointError, UnfitWorkerError, WorkerLostError
from volseg.image.volume import Mask
from volseg.io import write_mask, write_volume
from volseg.loaded_model import Model
from volseg.prediction import tasks
from volseg.prediction.tasks import CaseTask
from volseg.progress import Cancelled


class Losing(Executor):
    """Does the work at once, except for what names a case: that ends its workers."""

    def __init__(self, lost: str = "case_2") -> None:
        self.lost = lost
        self.order: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.order += [each.case.case_id for each in args if isinstance(each, CaseTask)]
        if self.lost in repr(args):
            future.set_exception(WorkerLostError("it ended two workers (out of memory?)", hint="more memory"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return volseg.load(trained_run)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of growing size with references, and masks that differ."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(5):
        image, mask = make_case(seed, (20 + 4 * seed, 18, 16))
        write_volume(image, folder / "images" / f"case_{seed}.nii.gz")
        write_mask(mask, folder / "labels" / f"case_{seed}.nii.gz")
        moved = Mask(np.roll(mask.array, 1, axis=0), mask.geometry, mask.labels)
        write_mask(moved, folder / "masks" / f"case_{seed}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.slow
def test_processes_write_what_one_process_writes(model: Model, data: Path, processes: Executor, tmp_path: Path) -> None:
    (data / "images" / "broken.nii.gz").write_bytes(b"no image")
    alone = model.predict_folder(data / "images", tmp_path / "alone", probabilities=True)
    together = model.predict_folder(data / "images", tmp_path / "together", probabilities=True, executor=processes)
    (data / "images" / "broken.nii.gz").unlink()
    assert files(tmp_path / "alone") == files(tmp_path / "together")
    pd.testing.assert_frame_equal(table(tmp_path / "alone"), table(tmp_path / "together"))
    for case_id, case in alone.items():
        assert together[case_id].status == case.status
        for form, path in case.paths.items():
            assert together[case_id].paths[form].read_bytes() == path.read_bytes()
    again = model.predict_folder(data / "images", tmp_path / "together", probabilities=True, executor=processes)
    assert all(case.is_unchanged for case in again.values())


@pytest.mark.slow
def test_tables_of_processes_are_those_of_one(model: Model, data: Path, processes: Executor, tmp_path: Path) -> None:
    alone = volseg.evaluate(data / "masks", data / "labels", tmp_path / "alone", lesions=True)
    together = volseg.evaluate(data / "masks", data / "labels", tmp_path / "more", lesions=True, executor=processes)
    pd.testing.assert_frame_equal(alone.metrics, together.metrics)
    pd.testing.assert_frame_equal(alone.statistics, together.statistics)
    for options in ({}, {"model": model.files[0]}):
        one, more = volseg.inspect(data, **options), volseg.inspect(data, **options, executor=processes)
        pd.testing.assert_frame_equal(one.table, more.table)
        assert [each.refusal for each in one.readiness.cases] == [each.refusal for each in more.readiness.cases]
    assert volseg.plan(data).config == volseg.plan(data, executor=processes).config


def test_threads_share_the_networks(model: Model, data: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as executor:
        batch = model.predict_folder(data / "images", tmp_path, executor=executor)
    assert batch.count("segmented") == 5
    assert not (tmp_path / "rows").exists()


def test_the_largest_cases_begin_first(model: Model, data: Path, tmp_path: Path) -> None:
    executor = Losing("nothing")
    model.predict_folder(data / "images", tmp_path, executor=executor)
    assert executor.order == [f"case_{seed}" for seed in (4, 3, 2, 1, 0)]


def test_a_case_that_ends_its_workers_is_a_row_and_its_earlier_mask_goes(
    model: Model, data: Path, tmp_path: Path
) -> None:
    model.predict_folder(data / "images", tmp_path)
    batch = model.predict_folder(data / "images", tmp_path, executor=Losing())
    assert batch["case_2"].status == "failed"
    assert batch["case_2"].reason == "it ended two workers (out of memory?); more memory"
    assert batch.count("segmented") == 4
    assert not (tmp_path / "case_2.nii.gz").exists()
    row = table(tmp_path).set_index("case_id").loc["case_2"]
    assert (row["status"], row["source"]) == ("failed", "case_2.nii.gz")


def test_a_lost_case_is_named_by_every_verb(model: Model, data: Path, tmp_path: Path) -> None:
    result = volseg.evaluate(data / "masks", data / "labels", executor=Losing())
    assert [(failure.case_id, failure.reason) for failure in result.failures] == [
        ("case_2", "it ended two workers (out of memory?); more memory")
    ]
    found = volseg.inspect(data / "images", model=model.files[0], executor=Losing())
    assert [item.remark for item in found if "case_2" in item.path] == [
        "it ended two workers (out of memory?); more memory"
    ]
    assert volseg.plan(data, executor=Losing()).config.data.labels


def test_a_batch_that_is_cancelled_keeps_what_is_done(model: Model, data: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict" and done == 2:
            raise Cancelled

    with ThreadPoolExecutor(1) as executor, pytest.raises(Cancelled):
        model.predict_folder(data / "images", tmp_path, progress=stop, executor=executor)
    merged = volseg.merge(tmp_path)
    assert merged.counts["segmented"] >= 2
    batch = model.predict_folder(data / "images", tmp_path)
    assert sum(case.is_unchanged for case in batch.values()) == merged.counts["segmented"]


@pytest.fixture
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been loaded yet."""
    monkeypatch.setattr(tasks, "_WORKPLACE", tasks._Workplace())


@pytest.mark.usefixtures("_new_process")
def test_a_process_without_the_model_is_not_fit(trained_run: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "model.pt"
    file.write_bytes((trained_run / "model.pt").read_bytes())
    model = volseg.load(file)
    file.unlink()
    with ThreadPoolExecutor(1) as executor, pytest.raises(UnfitWorkerError, match="does not have the model"):
        model.predict_folder(data / "images", tmp_path / "masks", executor=executor)


@pytest.mark.usefixtures("_new_process")
def test_a_process_with_another_model_is_not_fit(data: Path, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "model.pt"
    file.write_bytes((trained_run / "model.pt").read_bytes())
    model = volseg.load(file)
    train_folder(data, tmp_path / "other", {**TINY, "training": {**TINY["training"], "epochs": 1}})
    file.write_bytes((tmp_path / "other" / "model.pt").read_bytes())
    with ThreadPoolExecutor(1) as executor, pytest.raises(UnfitWorkerError, match="holds another model"):
        model.predict_folder(data / "images", tmp_path / "masks", executor=executor)


def test_a_model_in_memory_cannot_be_sent(model: Model, data: Path, tmp_path: Path) -> None:
    loose = Model(model.networks)
    with ThreadPoolExecutor(1) as executor, pytest.raises(CheckpointError, match="in memory cannot be sent"):
        loose.predict_folder(data / "images", tmp_path, executor=executor)
