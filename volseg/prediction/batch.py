"""Segment a folder of cases into a folder of masks, with one row per case."""

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
        executor: Reads and writes cases; two threads by default.

    Returns:
        One result per discovered case, in the order of their ids.

    Raises:
        CheckpointError: If the models are incompatible.
        ConfigError: If post-processing does not fit the labels.
        OutputError: If the output cannot be written (the results so far are in cases.csv).
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
