"""Segment a folder on an executor: each case is a task, which any process can do that sees the same folders."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from volseg.about import Hardware
from volseg.cases import Case
from volseg.errors import SHARE_FOLDERS, UnfitWorkerError, WorkerLostError
from volseg.io import written
from volseg.io.files import appears, locked_folder, remove_leftovers
from volseg.io.sizes import stored_voxels
from volseg.io.written import discard, remove_if_empty, unfinished
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.hardware import this_hardware
from volseg.model.stored import StoredModel
from volseg.parallel import unordered
from volseg.prediction.batch import Listeners, open_batch
from volseg.prediction.batch_inputs import BatchInputs
from volseg.prediction.cases_csv import CASES_FILE, ROWS_FOLDER, CaseResult, merge_results
from volseg.prediction.parts import CasePredictor, predictor_of
from volseg.prediction.request import Request
from volseg.prediction.rows import collect_rows, write_row
from volseg.prediction.stages import Stages
from volseg.progress import Progress, ignore_progress

#: How often rows are merged into cases.csv, which takes longer the more rows there are.
_COLLECT_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class BatchTask:
    """What is the same for every case of a batch.

    Attributes:
        model: Where the networks are.
        identity: Hash of everything that masks depend on beside the images: the networks and their settings.
        request: What to write for each case.
        inputs: Where the cases were found, without the cases.
        proof: A file in the output folder, whose name nobody can guess.
    """

    model: StoredModel
    identity: str
    request: Request
    inputs: BatchInputs
    proof: Path


@dataclass(frozen=True, eq=False)
class CaseTask:
    """A case to segment.

    Attributes:
        case: The case.
        earlier: Its row in an earlier batch, if there is one.
    """

    case: Case
    earlier: CaseResult | None


def segment_batch_on(
    executor: Executor,
    model: StoredModel,
    inputs: BatchInputs,
    models: Sequence[TrainedNetwork],
    request: Request,
    progress: Progress = ignore_progress,
    on_case_done: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Segment everything that was found, as `segment_batch` does, on the workers of an executor.

    The workers write masks and rows; this process alone merges the rows into cases.csv. The largest cases begin first,
    so that none of them is left when all others are done.

    Args:
        executor: Its workers see the same files.
        model: Where the workers load the models from.
        inputs: What was found.
        models: The same models, loaded here.
        request: What to write for each case.
        progress: Called per case; if it raises, the batch stops and can be continued.
        on_case_done: Called with each result as soon as the case is done; not for a case whose mask is up to date.

    Returns:
        One result per discovered case, in the order of their ids.

    Raises:
        CheckpointError: If the models are incompatible.
        OutputError: If the output cannot be written (the results so far are in cases.csv).
        WorkerError: If there is no worker that can do it.
    """
    batch = open_batch(inputs, models, request, Listeners(progress, on_case_done))
    data, output = batch.predictor.data, request.output
    tasks = [CaseTask(case, batch.earlier.get(case.case_id)) for case in sorted(batch.cases, key=_size, reverse=True)]
    collected, done = time.monotonic(), 0

    def tick(note: str = "") -> None:
        progress("predict", done, len(tasks), note)

    tick()
    with (
        batch_task(model, batch.predictor, request, inputs) as same_for_all,
        closing(unordered(executor, partial(segment_case, same_for_all), tasks, tick)) as outcomes,
    ):
        for task, outcome in outcomes:
            if isinstance(outcome, WorkerLostError):
                batch.note(batch.lost(task.case, outcome.explanation))
            else:
                batch.note(inputs.described(outcome))
            done += 1
            tick(task.case.case_id)
            if time.monotonic() - collected > _COLLECT_SECONDS:
                collect_rows(output, data.output_labels)
                collected = time.monotonic()
    collect_rows(output, data.output_labels)
    remove_leftovers(output)
    remove_if_empty(output / ROWS_FOLDER)
    results = batch.finish()
    merge_results(results, data, output / CASES_FILE)
    return results


def _size(case: Case) -> int:
    """Return how many voxels a case has."""
    return sum(map(stored_voxels, case.images.values()))


@contextmanager
def batch_task(
    model: StoredModel, predictor: CasePredictor, request: Request, inputs: BatchInputs
) -> Iterator[BatchTask]:
    """Describe a batch for other processes; while it runs, a file in the output folder proves that they see it.

    Args:
        model: Where the networks are.
        predictor: The same networks, loaded here.
        request: What to write for each case.
        inputs: What was found.

    Raises:
        OutputError: If the folder cannot be written.
    """
    described = replace(inputs, dataset=replace(inputs.dataset, cases=(), set_aside=(), splits=()))
    folder = request.output / ROWS_FOLDER
    with locked_folder(folder):  # which creates it
        proof = unfinished(folder / f"proof-{secrets.token_hex(16)}")  # a leftover once this process is gone
        proof.touch()
    try:
        yield BatchTask(model, identity_of(predictor), request, described, proof)
    finally:
        discard(proof)


def identity_of(predictor: CasePredictor) -> str:
    """Return a hash of everything that masks depend on beside the images."""
    return hashlib.sha256(json.dumps(predictor.identity).encode()).hexdigest()


def segment_case(batch: BatchTask, task: CaseTask) -> CaseResult:
    """Segment a case: write its masks, then its row in rows/.

    Args:
        batch: What is the same for every case.
        task: The case.

    Returns:
        Its outcome, with the machine that ran the networks.

    Raises:
        UnfitWorkerError: If this process does not have the same model, or does not see the same folders.
        OutputError: If the output cannot be written.
    """
    predictor = _WORKPLACE.predictor_for(batch)
    record = partial(write_row, data=predictor.data, output=batch.request.output)
    earlier = {task.case.case_id: task.earlier} if task.earlier else {}
    stages = Stages(predictor, batch.request, batch.inputs.of_case(task.case), earlier, record)
    result = stages.write(stages.segment(stages.read(task.case)))
    return replace(result, machine=_WORKPLACE.hardware)


class _Workplace:
    """What a process keeps from case to case: the networks of one batch, since they may take gigabytes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._proof: Path | None = None
        self._key: tuple[str, str | None] | None = None
        self._predictor: CasePredictor | None = None
        self.hardware: Hardware | None = None

    def predictor_for(self, batch: BatchTask) -> CasePredictor:
        """Return the networks of a batch, after checking once that this process is fit for it."""
        with self._lock:
            if self._proof != batch.proof:
                _check_output(batch)
            key = batch.identity, batch.model.device
            if self._predictor is None or self._key != key:
                self._predictor = None  # makes room
                networks = batch.model.load()
                predictor = predictor_of(networks)
                if identity_of(predictor) != batch.identity:
                    files = ", ".join(map(str, batch.model.files))
                    raise UnfitWorkerError(
                        f"its {files} holds another model", hint="let every worker read the same model"
                    )
                self._predictor, self._key = predictor, key
                self.hardware = this_hardware(networks[0].device)
            self._proof = batch.proof
            return self._predictor


_WORKPLACE = _Workplace()


def _check_output(batch: BatchTask) -> None:
    """Check that this process sees and may write the output folder.

    Raises:
        UnfitWorkerError: If not.
    """
    output = batch.request.output
    if not appears(batch.proof):
        raise UnfitWorkerError(f"it does not see the output folder {output}", hint=SHARE_FOLDERS)
    if not os.access(output, os.W_OK):
        raise UnfitWorkerError(f"it may not write into {output}", hint="run it as a user who may")
    written.remove_leftovers(output)
