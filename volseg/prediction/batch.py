"""A folder of cases in, a folder of masks and one row per case out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext

from volseg.config import DataConfig
from volseg.errors import OutputError
from volseg.exporting import warn_of_private_codes
from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.io.files import locked_folder, make_folder, remove_leftovers
from volseg.io.labels import LABELS_FILE, write_labels
from volseg.io.written import claim
from volseg.model.checkpoint import TrainedNetwork
from volseg.parallel import helpers, pipeline
from volseg.prediction.batch_inputs import KEY_FILE, BatchInputs
from volseg.prediction.cases_csv import (
    CASES_FILE,
    CaseResult,
    meant_otherwise,
    merge_results,
    read_origins,
    read_results,
)
from volseg.prediction.outdated import remove_masks
from volseg.prediction.parts import predictor_of
from volseg.prediction.request import ITKSNAP_FILE, NIIVUE_FILE, Request
from volseg.prediction.stages import Stages
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


def segment_batch(
    inputs: BatchInputs,
    models: Sequence[TrainedNetwork],
    request: Request,
    progress: Progress = ignore_progress,
    on_case_done: Callable[[CaseResult], None] | None = None,
    executor: Executor | None = None,
) -> list[CaseResult]:
    """Segment everything that was found; one bad case never stops the others.

    While the networks work on one case, the next one is read and the last one is written. A batch that was interrupted
    goes on where it was: a case whose input, models and formats are unchanged and whose masks are there is not
    segmented again. What other batches left in the output stays, and so do their rows in cases.csv.

    Nothing is replaced but what volseg wrote: a table in the way ends the batch before it begins, a mask in the way
    makes its case fail.

    Args:
        inputs: What was found.
        models: Their answers are averaged.
        request: What is made of each case.
        progress: Told per case and window; what it raises ends the batch, which can be continued.
        on_case_done: Gets each result as the case is done; none of a case whose mask is up to date.
        executor: Reads and writes cases; two threads unless another is given.

    Returns:
        One result per discovered case, in the order of their ids.

    Raises:
        CheckpointError: If the models do not go with each other.
        ConfigError: If post-processing does not go with the labels.
        OutputError: If the output cannot be written (the results so far are in cases.csv).
    """
    source, output = inputs.source, request.output
    predictor = predictor_of(models)
    data = predictor.data
    if output.resolve() == source.resolve():
        raise OutputError(f"{output} is the input, too", hint="choose an --output of its own, so that no image is lost")
    tables = [*request.tables, *([output / KEY_FILE] if inputs.naming == "hash" else [])]
    claim(tables, inputs.files, overwrite=request.overwrite)
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data, request)
    if inputs.naming == "hash":
        inputs.write_key(output)
    earlier = read_results(output / CASES_FILE, data)
    origins = read_origins(output / CASES_FILE)
    results = {result.case_id: result for result in inputs.skipped_beside(origins)}
    for case_id, result in results.items():
        logger.info("%s is skipped: %s", case_id, result.reason)
        if case_id in earlier:
            remove_masks(output, case_id, inputs.files)
    strangers = inputs.strangers(origins)
    results |= {result.case_id: result for result in strangers.values()}
    cases = [case for case in inputs.dataset.cases if case.case_id not in strangers]
    stages = Stages(predictor, request, inputs, earlier, progress, len(cases))
    with nullcontext(executor) if executor else helpers(2) as workers:
        done = pipeline(cases, stages.read, stages.segment, stages.write, workers, stages.leaves_room)
        for result in done:
            results[result.case_id] = result
            if on_case_done and not result.is_unchanged:
                on_case_done(result)
    progress("predict", len(cases), len(cases))
    merge_results(list(results.values()), data, output / CASES_FILE)
    return sorted(results.values(), key=lambda result: result.case_id)


def _write_sidecars(data: DataConfig, request: Request) -> None:
    """What label maps cannot say themselves, of these masks and of those that are there already."""
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
