"""Segment a folder of cases into a folder of masks, with one row per case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from volseg.cases import Case
from volseg.config import DataConfig
from volseg.errors import OutputError
from volseg.exporting import warn_of_private_codes
from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.io.files import locked_folder, make_folder, remove_leftovers
from volseg.io.labels import LABELS_FILE, write_labels
from volseg.io.written import claim, remove_if_empty
from volseg.model.checkpoint import TrainedNetwork
from volseg.parallel import helpers, pipeline
from volseg.prediction.batch_inputs import KEY_FILE, BatchInputs
from volseg.prediction.cases_csv import (
    CASES_FILE,
    ROWS_FOLDER,
    CaseResult,
    CaseStatus,
    meant_otherwise,
    merge_results,
    origins_of,
    results_of,
)
from volseg.prediction.outdated import remove_masks
from volseg.prediction.parts import CasePredictor, predictor_of
from volseg.prediction.request import ITKSNAP_FILE, NIIVUE_FILE, Request
from volseg.prediction.rows import collect_rows, known_rows
from volseg.prediction.stages import Stages
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listeners:
    """Who wants to hear of a batch.

    Attributes:
        progress: Called per case and window; if it raises, the batch stops and can be continued.
        on_case_done: Called with each result as soon as the case is done; not for a case whose mask is up to date.
    """

    progress: Progress = ignore_progress
    on_case_done: Callable[[CaseResult], None] | None = None


@dataclass(frozen=True, eq=False)
class OpenBatch:
    """A batch whose output folder is prepared, and which knows what is to be segmented.

    Attributes:
        inputs: What was found.
        predictor: The models.
        request: What to write for each case.
        listeners: Who wants to hear of it.
        cases: The cases to segment.
        earlier: Case id -> its row in an earlier batch.
        results: The outcomes so far: at first, what is skipped, and cases whose names belong to others.
    """

    inputs: BatchInputs
    predictor: CasePredictor
    request: Request
    listeners: Listeners
    cases: tuple[Case, ...]
    earlier: Mapping[str, CaseResult]
    results: dict[str, CaseResult] = field(default_factory=dict)

    def stages(self, record: Callable[[CaseResult], None]) -> Stages:
        """Return the stages of its cases in this process.

        Args:
            record: Stores the outcome of a case.
        """
        progress = self.listeners.progress
        return Stages(self.predictor, self.request, self.inputs, self.earlier, record, progress, len(self.cases))

    def note(self, result: CaseResult) -> None:
        """Take note of the outcome of a case."""
        self.results[result.case_id] = result
        if self.listeners.on_case_done and not result.is_unchanged:
            self.listeners.on_case_done(result)

    def lost(self, case: Case, reason: str) -> CaseResult:
        """Return the outcome of a case that ended the processes that segmented it; no earlier mask of it stays."""
        remove_masks(self.request.output, case.case_id, self.inputs.files)
        return self.inputs.described(CaseResult(case.case_id, CaseStatus.FAILED, reason))

    def finish(self) -> list[CaseResult]:
        """Return all outcomes, in the order of the case ids."""
        self.listeners.progress("predict", len(self.cases), len(self.cases))
        return sorted(self.results.values(), key=lambda result: result.case_id)


def segment_batch(
    inputs: BatchInputs,
    models: Sequence[TrainedNetwork],
    request: Request,
    progress: Progress = ignore_progress,
    on_case_done: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Segment everything that was found; one bad case never stops the others.

    While the networks process one case, the next one is read and the previous one is written. An interrupted batch
    continues where it stopped: a case whose input, models and formats are unchanged and whose masks exist is not
    segmented again. Masks of other batches in the output stay, and so do their rows in cases.csv.

    Only volseg's own files are replaced: a foreign table in the way stops the batch before it begins, a foreign mask in
    the way makes its case fail.

    Args:
        inputs: What was found.
        models: Their logits are averaged.
        request: What to write for each case.
        progress: Called per case and window; if it raises, the batch stops and can be continued.
        on_case_done: Called with each result as soon as the case is done; not for a case whose mask is up to date.

    Returns:
        One result per discovered case, in the order of their ids.

    Raises:
        CheckpointError: If the models are incompatible.
        ConfigError: If post-processing does not fit the labels.
        OutputError: If the output cannot be written (the results so far are in cases.csv).
    """
    batch = open_batch(inputs, models, request, Listeners(progress, on_case_done))
    data, table = batch.predictor.data, request.output / CASES_FILE
    stages = batch.stages(lambda result: merge_results([result], data, table))
    with helpers(2) as workers:
        for result in pipeline(batch.cases, stages.read, stages.segment, stages.write, workers, stages.leaves_room):
            batch.note(result)
    results = batch.finish()
    merge_results(results, data, table)
    return results


def everything(case_id: str) -> bool:  # noqa: ARG001  it is the same for all
    """Return that a case belongs to the batch."""
    return True


def open_batch(
    inputs: BatchInputs,
    models: Sequence[TrainedNetwork],
    request: Request,
    listeners: Listeners,
    belongs: Callable[[str], bool] = everything,
) -> OpenBatch:
    """Prepare the output folder, and find out what is to be segmented.

    Args:
        inputs: What was found.
        models: Their logits are averaged.
        request: What to write for each case.
        listeners: Who wants to hear of it.
        belongs: Whether a case is of this batch; other processes segment the others at the same time.

    Raises:
        CheckpointError: If the models are incompatible.
        OutputError: If the folder cannot be written, or is the input.
    """
    source, output = inputs.source, request.output
    predictor = predictor_of(models)
    data = predictor.data
    if output.resolve() == source.resolve():
        raise OutputError(f"{output} is also the input", hint="choose another --output, so that no image is lost")
    tables = [*request.tables, *([output / KEY_FILE] if inputs.naming == "hash" else [])]
    claim(tables, inputs.files, overwrite=request.overwrite)
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data, request)
    if inputs.naming == "hash":
        inputs.write_key(output)
    if belongs is everything:
        collect_rows(output, data.output_labels)  # of a batch that was interrupted
        remove_if_empty(output / ROWS_FOLDER)
    rows = known_rows(output)
    earlier, origins = results_of(rows, data), origins_of(rows)
    skipped = [result for result in inputs.skipped_beside(origins) if belongs(result.case_id)]
    for result in skipped:
        logger.info("%s is skipped: %s", result.case_id, result.reason)
        if result.case_id in earlier:
            remove_masks(output, result.case_id, inputs.files)
    strangers = inputs.strangers(origins)
    refused = [result for case_id, result in strangers.items() if belongs(case_id)]
    own = (case for case in inputs.dataset.cases if case.case_id not in strangers)
    cases = tuple(case for case in own if belongs(case.case_id))
    known = {result.case_id: result for result in (*skipped, *refused)}
    return OpenBatch(inputs, predictor, request, listeners, cases, earlier, known)


def _write_sidecars(data: DataConfig, request: Request) -> None:
    """Write label metadata that label maps cannot hold, for these masks and those of earlier batches."""
    labels = data.output_labels
    with locked_folder(request.output):
        if meant_otherwise(request.output, labels):
            raise OutputError(
                f"{request.output} holds masks with other labels than those of the model "
                f"({', '.join(label.name for label in labels)})",
                hint="choose another --output",
            )
        write_labels(labels, request.output / LABELS_FILE, data.others)
    if "nifti" in request.formats:
        write_itksnap_labels(labels, request.output / ITKSNAP_FILE)
        write_niivue_colormap(labels, request.output / NIIVUE_FILE)
    warn_of_private_codes(labels, request.all_formats)
