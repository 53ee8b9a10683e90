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
from pathlib import Path

from volseg.cases import Case, Dataset, find_inputs
from volseg.cases.case import as_case_id, stem
from volseg.config import DataConfig
from volseg.errors import CheckpointError, ConfigError, DataError, OutputError
from volseg.exporting import (
    FORMATS,
    MESHES,
    Encoding,
    Format,
    check_formats,
    output_path,
    warn_of_private_codes,
    with_needed,
    write_all,
)
from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.image.volume import Label
from volseg.io import Source, stands_for, write_probabilities
from volseg.io.files import make_folder, remove_leftovers, without_root
from volseg.io.labels import LABELS_FILE, write_labels
from volseg.io.source import digest
from volseg.memory import peak_mb, reset_peak
from volseg.model.checkpoint import TrainedNetwork
from volseg.parallel import helpers, pipeline
from volseg.prediction.cases_csv import (
    CASES_FILE,
    CaseResult,
    CaseStatus,
    Effort,
    probability_file,
    read_results,
    write_results,
)
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
    """

    output: Path
    formats: tuple[Format, ...] = ("nifti",)
    encoding: Encoding = "binary"
    probabilities: bool = False
    allow_mismatch: bool = False

    @property
    def all_formats(self) -> list[Format]:
        """Each format once, and those that they need."""
        return with_needed(self.formats)

    def paths(self, case_id: str) -> dict[Format, Path]:
        """Where the masks of a case go."""
        return {form: output_path(self.output, case_id, form) for form in self.all_formats}

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
        DataError: If there is nothing to segment.
    """
    source = stands_for(source)
    return BatchInputs(source, find_inputs(source, data.channels, data, progress))


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
    segmented again.

    Args:
        inputs: What was found.
        models: Their answers are averaged.
        request: What is made of each case.
        progress: Told per case and window; what it raises ends the batch, which can be continued.
        on_case_done: Gets each result as the case is done.
        executor: Reads and writes cases; two threads unless another is given.

    Returns:
        One result per discovered case, in the order of cases.csv.

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
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data.output_labels, request)
    earlier = read_results(output / CASES_FILE, data)
    results = {result.case_id: result for result in _skipped(dataset, source)}
    for case_id in set(results) & set(earlier):
        _remove_masks(output, case_id)
    waiting = {case.case_id: earlier[case.case_id] for case in dataset.cases if case.case_id in earlier}
    stages = _Stages(predictor, request, waiting.copy(), progress, len(dataset.cases))
    with nullcontext(executor) if executor else helpers(2) as workers:
        done = pipeline(dataset.cases, stages.read, stages.segment, stages.write, workers, stages.leaves_room)
        for result in done:
            results[result.case_id] = replace(result, reason=without_root(result.reason, source))
            if result is waiting.pop(result.case_id, None):
                continue
            # Cases still waiting keep their rows, should this end here.
            write_results([*results.values(), *waiting.values()], data, output / CASES_FILE)
            if on_case_done:
                on_case_done(results[result.case_id])
    progress("predict", len(dataset.cases), len(dataset.cases))
    write_results(list(results.values()), data, output / CASES_FILE)
    return sorted(results.values(), key=lambda result: result.case_id)


class _Stages:
    """The three stages of a case: read, segment, write.

    Args:
        predictor: The models.
        request: What is made of each case.
        earlier: Case id -> its row in an earlier batch.
        progress: Told per case and window.
        total: How many cases there are.
    """

    def __init__(
        self,
        predictor: Predictor,
        request: Request,
        earlier: Mapping[str, CaseResult],
        progress: Progress,
        total: int,
    ) -> None:
        self.predictor, self.request, self.earlier = predictor, request, earlier
        self.progress, self.total, self.done = progress, total, 0
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
        if case_id in self.earlier:
            _remove_masks(self.request.output, case_id)
        write_all(mask, self._image(job.case), self.request.paths(case_id), self.request.encoding)
        if job.segmented.probabilities is not None:
            path = probability_file(self.request.output, case_id)
            write_probabilities(job.segmented.probabilities, mask.geometry, path)
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
        except (OutputError, ConfigError, CheckpointError, Cancelled):
            raise  # no other case would fare better
        except DataError as error:
            reason = error.explanation
        except MemoryError:
            reason = "it needs more memory than there is; close other programs, or use a machine with more memory"
        except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
            reason = f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}"
            with (self.request.output / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(f"case {job.case.case_id}\n{traceback.format_exc()}\n")
        _remove_masks(self.request.output, job.case.case_id)
        logger.info("case %s failed: %s", job.case.case_id, reason)
        return _Job(job.case, result=CaseResult(job.case.case_id, CaseStatus.FAILED, reason))

    def _image(self, case: Case) -> Source:
        return case.images[self.predictor.data.channels[0]]


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


def _write_sidecars(labels: Sequence[Label], request: Request) -> None:
    """What label maps cannot say themselves."""
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


def _remove_masks(output: Path, case_id: str) -> None:
    """No mask of an earlier batch, in whatever format, may stand beside a row that does not tell of it."""
    probability_file(output, case_id).unlink(missing_ok=True)
    for form in FORMATS:
        path = output_path(output, case_id, form)
        if path.is_dir():
            _remove_meshes(path, form)
        else:
            path.unlink(missing_ok=True)


def _remove_meshes(folder: Path, form: Format) -> None:
    for path in folder.glob(f"*.{form}"):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
