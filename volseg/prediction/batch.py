"""A folder of cases in, a folder of masks and one row per case out."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from volseg.about import ABOUT_FILE
from volseg.cases import Case, Dataset, find_inputs
from volseg.cases.case import as_case_id, stem
from volseg.cases.content import refuse_label_maps
from volseg.config import DataConfig
from volseg.errors import CheckpointError, ConfigError, DataError, OutputError, OutputExistsError
from volseg.exporting import (
    MESHES,
    Encoding,
    Format,
    check_formats,
    claim_masks,
    output_path,
    warn_of_private_codes,
    with_needed,
    write_all,
)
from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.image.volume import Label
from volseg.io import Source, stands_for, write_probabilities
from volseg.io.files import append_text, locked_folder, make_folder, remove_leftovers, without_root
from volseg.io.labels import LABELS_FILE, write_labels
from volseg.io.source import digest
from volseg.io.written import Inputs, claim
from volseg.memory import peak_mb, reset_peak
from volseg.model.checkpoint import TrainedNetwork
from volseg.parallel import helpers, pipeline
from volseg.prediction.cases_csv import (
    CASES_FILE,
    CaseResult,
    CaseStatus,
    Effort,
    meant_otherwise,
    merge_results,
    probability_file,
    read_results,
)
from volseg.prediction.outdated import remove_masks
from volseg.prediction.predictor import Predictor, Prepared, Segmented
from volseg.progress import Cancelled, Progress, ignore_progress
from volseg.version import __version__

ITKSNAP_FILE, NIIVUE_FILE = "itksnap_labels.txt", "niivue_colormap.json"
LOG_FILE = "volseg.log"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be made of each case.

    Attributes:
        output: Gets a mask per case and format, cases.csv and labels.json.
        formats: Of the masks.
        encoding: Of DICOM Segmentations.
        probabilities: Whether they are written, too.
        allow_mismatch: Whether images that the models were not made for are segmented all the same.
        overwrite: Whether the user gave up files that lie where masks and tables are to be; never the input.
    """

    output: Path
    formats: tuple[Format, ...] = ("nifti",)
    encoding: Encoding = "binary"
    probabilities: bool = False
    allow_mismatch: bool = False
    overwrite: bool = False

    @property
    def all_formats(self) -> list[Format]:
        """Each format once, and those that they need."""
        return with_needed(self.formats)

    def paths(self, case_id: str) -> dict[Format, Path]:
        """Where the masks of a case go."""
        return {form: output_path(self.output, case_id, form) for form in self.all_formats}

    @property
    def tables(self) -> list[Path]:
        """What is written once for all cases."""
        of_viewers = (ITKSNAP_FILE, NIIVUE_FILE) if "nifti" in self.formats else ()
        return [self.output / name for name in (CASES_FILE, LABELS_FILE, ABOUT_FILE, *of_viewers)]

    def claim(self, case_id: str, labels: Sequence[Label], inputs: Inputs) -> None:
        """Make sure that what is made of a case replaces no file of the user's, before it is made.

        Raises:
            OutputExistsError: If it would.
        """
        claim_masks(self.paths(case_id), labels, inputs, overwrite=self.overwrite)
        if self.probabilities:
            claim([probability_file(self.output, case_id)], inputs, overwrite=self.overwrite)

    def are_there(self, case_id: str, report: CaseResult) -> bool:
        """Whether all that is to be made of a case is; an empty mask has no meshes."""
        meshless = not any(report.volumes_ml.values())
        masks = all(path.exists() or (meshless and form in MESHES) for form, path in self.paths(case_id).items())
        return masks and (not self.probabilities or probability_file(self.output, case_id).exists())


@dataclass(frozen=True, eq=False)
class BatchInputs:
    """What is to be segmented.

    Attributes:
        source: Where it was found.
        dataset: The cases, and what was set aside.
    """

    source: Path
    dataset: Dataset

    @cached_property
    def files(self) -> Inputs:
        """All that is read."""
        images = (source for case in self.dataset.cases for source in case.images.values())
        return Inputs.of(self.source, *(path for image in images for path in image.files))


@dataclass(frozen=True, eq=False)
class _Job:
    """A case on its way through the stages, with what they made of it so far.

    Attributes:
        case: The case.
        key: By which a continued batch knows its mask.
        prepared: After it was read; gone as soon as the networks saw it: the next case needs the room.
        read_seconds: What reading and preparing it took.
        segmented: After the networks saw it.
        warning: What must be told beside its mask.
        peak_memory_mb: Largest memory of the process while they did.
        result: What became of it, once that is known: it failed, or its mask is up to date. Later stages pass it on.
    """

    case: Case
    key: str = ""
    prepared: Prepared | None = None
    read_seconds: float = 0.0
    segmented: Segmented | None = None
    warning: str = ""
    peak_memory_mb: float = 0.0
    result: CaseResult | None = None


def find_batch(source: Path, data: DataConfig, progress: Progress = ignore_progress) -> BatchInputs:
    """Find what there is to segment.

    Args:
        source: A data set, a file, a DICOM folder or a tree of these.
        data: The channels that a model needs, and how DICOM is read.
        progress: Told while files are looked at.

    Raises:
        DataError: If there is nothing to segment, or all of it is masks.
    """
    source = stands_for(source)
    dataset = find_inputs(source, data.channels, data, progress)
    refuse_label_maps(dataset, source)
    return BatchInputs(source, dataset)


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
        on_case_done: Gets each result as the case is done.
        executor: Reads and writes cases; two threads unless another is given.

    Returns:
        One result per discovered case, in the order of their ids.

    Raises:
        CheckpointError: If the models do not go with each other.
        ConfigError: If post-processing does not go with the labels.
        OutputError: If the output cannot be written (the results so far are in cases.csv).
    """
    dataset, source, output = inputs.dataset, inputs.source, request.output
    predictor = Predictor(models)
    data = predictor.data
    if output.resolve() == source.resolve():
        raise OutputError(f"{output} is the input, too", hint="choose an --output of its own, so that no image is lost")
    claim(request.tables, inputs.files, overwrite=request.overwrite)
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data, request)
    earlier = read_results(output / CASES_FILE, data)
    results = {result.case_id: result for result in _skipped(dataset, source)}
    for case_id in set(results) & set(earlier):
        remove_masks(output, case_id)
    stages = _Stages(predictor, request, inputs, earlier, progress)
    with nullcontext(executor) if executor else helpers(2) as workers:
        done = pipeline(dataset.cases, stages.read, stages.segment, stages.write, workers, stages.leaves_room)
        for result in done:
            results[result.case_id] = replace(result, reason=without_root(result.reason, source))
            if result is earlier.get(result.case_id):
                continue
            # Rows of cases that are still waiting stay as they are, should this end here.
            merge_results([results[result.case_id]], data, output / CASES_FILE)
            if on_case_done:
                on_case_done(results[result.case_id])
    progress("predict", len(dataset.cases), len(dataset.cases))
    merge_results(list(results.values()), data, output / CASES_FILE)
    return sorted(results.values(), key=lambda result: result.case_id)


class _Stages:
    """The three stages of a case: read, segment, write.

    Args:
        predictor: The models.
        request: What is made of each case.
        inputs: All that is read.
        earlier: Case id -> its row in an earlier batch.
        progress: Told per case and window.
    """

    def __init__(
        self,
        predictor: Predictor,
        request: Request,
        inputs: BatchInputs,
        earlier: Mapping[str, CaseResult],
        progress: Progress,
    ) -> None:
        self.predictor, self.request, self.earlier = predictor, request, earlier
        self.progress, self.total, self.done = progress, len(inputs.dataset.cases), 0
        self.inputs = inputs.files
        wanted = [request.all_formats, request.encoding, request.probabilities]
        self.settings = json.dumps([__version__, wanted, predictor.identity])

    def read(self, case: Case) -> _Job:
        """Read and prepare a case, or find its mask up to date."""
        return self._attempt(self._read, _Job(case))

    def segment(self, job: _Job) -> _Job:
        """Let the networks see a case."""
        self.progress("predict", self.done, self.total, job.case.case_id)
        job = self._attempt(self._segment, job)
        self.done += 1
        return job

    def write(self, job: _Job) -> CaseResult:
        """Write the masks of a case."""
        job = self._attempt(self._write, job)
        if job.result is None:
            raise RuntimeError(f"case {job.case.case_id} went through all stages without a result")
        return job.result

    def leaves_room(self, job: _Job) -> bool:
        """Whether another case of its size fits into memory beside it."""
        return job.prepared is None or 2 * job.prepared.gigabytes < self.predictor.memory_gb

    def _read(self, job: _Job) -> _Job:
        earlier = self.earlier.get(job.case.case_id)
        key = digest(job.case.images.values(), self.settings)
        allowed = earlier is not None and (self.request.allow_mismatch or not earlier.reason)
        if earlier and allowed and earlier.key == key and self.request.are_there(job.case.case_id, earlier):
            logger.info("case %s is up to date", job.case.case_id)
            return replace(job, result=earlier)
        check_formats(self._image(job.case), self.request.all_formats)
        self.request.claim(job.case.case_id, self.predictor.data.output_labels, self.inputs)
        began = time.perf_counter()
        prepared = self.predictor.prepare(job.case)
        if not self.request.allow_mismatch:
            prepared.refuse_mismatch()
        return replace(job, key=key, prepared=prepared, read_seconds=time.perf_counter() - began)

    def _segment(self, job: _Job) -> _Job:
        if job.prepared is None:
            return job
        reset_peak()
        room = self.request.output if self.request.probabilities else None
        on_window = _WindowProgress(self.progress, self.done, self.total)
        segmented = self.predictor.segment(job.prepared, on_window, room)
        warning = job.prepared.warning
        return replace(job, prepared=None, segmented=segmented, warning=warning, peak_memory_mb=peak_mb())

    def _write(self, job: _Job) -> _Job:
        if job.segmented is None:
            return job
        began = time.perf_counter()
        case_id = job.case.case_id
        mask = self.predictor.finish(job.segmented)
        remove_masks(self.request.output, case_id, self.request.all_formats, probabilities=self.request.probabilities)
        write_all(mask, self._image(job.case), self.request.paths(case_id), self.request.encoding)
        if job.segmented.probabilities is not None:
            path = probability_file(self.request.output, case_id)
            write_probabilities(job.segmented.probabilities, mask.geometry, path, self._image(job.case))
        effort = Effort(
            job.read_seconds,
            job.segmented.network_seconds,
            job.segmented.restore_seconds,
            time.perf_counter() - began,
            job.segmented.windows,
            job.peak_memory_mb,
        )
        return replace(
            job, result=CaseResult(case_id, CaseStatus.SEGMENTED, job.warning, effort, mask.volumes_ml, job.key)
        )

    def _attempt(self, stage: Callable[[_Job], _Job], job: _Job) -> _Job:
        """Take a case through a stage, whatever is wrong with it."""
        if job.result:
            return job
        try:
            return stage(job)
        except OutputExistsError as error:
            reason = error.explanation
        except (OutputError, ConfigError, CheckpointError, Cancelled):
            raise  # no other case would fare better
        except DataError as error:
            reason = error.explanation
        except MemoryError:
            reason = "it needs more memory than there is; close other programs, or use a machine with more memory"
        except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
            reason = f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}"
            self._keep(f"case {job.case.case_id}\n{traceback.format_exc()}\n")
        remove_masks(self.request.output, job.case.case_id)
        logger.info("case %s failed: %s", job.case.case_id, reason)
        return _Job(job.case, result=CaseResult(job.case.case_id, CaseStatus.FAILED, reason))

    def _image(self, case: Case) -> Source:
        return case.images[self.predictor.data.channels[0]]

    def _keep(self, story: str) -> None:
        """Put the story of a defect into the log of the folder, or tell it where the user has a file of that name."""
        try:
            append_text(self.request.output / LOG_FILE, story)
        except OutputExistsError:
            logger.warning("%s is not volseg's, so here it stands: %s", LOG_FILE, story)


class _WindowProgress:
    """How far the windows of one case are, as a note on the progress of the batch."""

    def __init__(self, progress: Progress, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total
        self._began = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        rate = done / max(time.perf_counter() - self._began, 1e-6)
        left = (total - done) / rate if rate else 0.0
        note = f"window {done} of {total}, {rate:.2g} a second, {left:.0f} s left"
        self._progress("predict", self._done, self._total, note)


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
        write_labels(labels, request.output / LABELS_FILE)
    if "nifti" in request.formats:
        write_itksnap_labels(labels, request.output / ITKSNAP_FILE)
        write_niivue_colormap(labels, request.output / NIIVUE_FILE)
    warn_of_private_codes(labels, request.all_formats)


def _skipped(dataset: Dataset, root: Path) -> list[CaseResult]:
    taken = {case.case_id for case in dataset.cases}
    reports = []
    for item in dataset.set_aside:
        parts = item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()
        parts = parts or (item.path.name,)
        case_id = as_case_id([*parts[:-1], stem(Path(parts[-1]))], taken)
        taken.add(case_id)
        reports.append(CaseResult(case_id, CaseStatus.SKIPPED, without_root(item.reason, root)))
        logger.info("%s is skipped: %s", item.path, item.reason)
    return reports
