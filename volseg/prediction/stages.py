"""The stages of a case in a batch: read, segment, write; a case that fails in one passes the others as failed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from volseg.cases import Case
from volseg.errors import CheckpointError, ConfigError, DataError, ItemOutputError, OutputError
from volseg.exporting import check_formats, write_all
from volseg.io import SeriesSource, Source, write_probabilities
from volseg.io.source import digest
from volseg.memory import peak_mb, reset_peak
from volseg.prediction.batch_inputs import BatchInputs
from volseg.prediction.cases_csv import CaseResult, CaseStatus, Effort, probability_file
from volseg.prediction.defects import reason_of_defect
from volseg.prediction.outdated import remove_masks
from volseg.prediction.parts import CasePredictor, PreparedVolume
from volseg.prediction.predictor import Segmented
from volseg.prediction.prepared import IN_SPITE, Prepared
from volseg.prediction.request import Request
from volseg.progress import Cancelled, Progress, ignore_progress
from volseg.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """A case on its way through the stages, with their results so far.

    Attributes:
        case: The case.
        key: Hash by which a continued batch recognises its mask.
        prepared: The case after reading; dropped after the networks saw it, since the next case needs the memory.
        read_seconds: Time to read and prepare it.
        segmented: The result of the networks.
        warning: A warning to report with its mask.
        peak_memory_mb: Peak memory of the process while the networks processed it.
        result: Its outcome, once known: it failed, or its mask is up to date. Later stages pass it on.
    """

    case: Case
    key: str = ""
    prepared: Prepared | PreparedVolume | None = None
    read_seconds: float = 0.0
    segmented: Segmented | None = None
    warning: str = ""
    peak_memory_mb: float = 0.0
    result: CaseResult | None = None


class Stages:
    """The three stages of a case: read, segment, write.

    Args:
        predictor: The models.
        request: What to write for each case.
        inputs: All files that are read.
        earlier: Case id -> its row in an earlier batch.
        record: Stores the outcome of a case, unless its mask was up to date.
        progress: Called per case and window.
        total: Number of cases.
    """

    def __init__(
        self,
        predictor: CasePredictor,
        request: Request,
        inputs: BatchInputs,
        earlier: Mapping[str, CaseResult],
        record: Callable[[CaseResult], None],
        progress: Progress = ignore_progress,
        total: int = 1,
    ) -> None:
        self.predictor, self.request, self.earlier, self.record = predictor, request, earlier, record
        self.progress, self.total, self.done = progress, total, 0
        self.inputs = inputs
        self.settings = json.dumps([__version__, request.settings, predictor.identity])

    def read(self, case: Case) -> Job:
        """Read and prepare a case, or find its mask up to date."""
        return self._attempt(self._read, Job(case))

    def segment(self, job: Job) -> Job:
        """Run the networks on a case."""
        self.progress("predict", self.done, self.total, job.case.case_id)
        job = self._attempt(self._segment, job)
        self.done += 1
        return job

    def write(self, job: Job) -> CaseResult:
        """Write the masks of a case and its row, in a thread that Ctrl-C cannot interrupt between the two."""
        job = self._attempt(self._write, job)
        if job.result is None:
            raise RuntimeError(f"case {job.case.case_id} went through all stages without a result")
        result = self.inputs.described(job.result)
        if not result.is_unchanged:
            self.record(result)
        return result

    def leaves_room(self, job: Job) -> bool:
        """Return whether another case of this size fits into memory at the same time."""
        return job.prepared is None or 2 * job.prepared.gigabytes < self.predictor.memory_gb

    def _read(self, job: Job) -> Job:
        earlier = self.earlier.get(job.case.case_id)
        region = [job.case.region] if job.case.region else []
        key = digest([*job.case.images.values(), *region], self.settings)
        allowed = earlier is not None and (self.request.allow_mismatch or IN_SPITE not in earlier.reason)
        if earlier and allowed and earlier.key == key and self.request.are_there(job.case.case_id, earlier):
            logger.info("case %s is up to date", job.case.case_id)
            return replace(job, result=replace(earlier, is_unchanged=True))
        check_formats(self._image(job.case), self.request.all_formats)
        self.request.claim(job.case.case_id, self.predictor.data.output_labels, self.inputs.files)
        began = time.perf_counter()
        prepared = self.predictor.prepare(job.case)
        if not self.request.allow_mismatch:
            prepared.refuse_mismatch()
        return replace(job, key=key, prepared=prepared, read_seconds=time.perf_counter() - began)

    def _segment(self, job: Job) -> Job:
        if job.prepared is None:
            return job
        reset_peak()
        room = self.request.output if self.request.probabilities else None
        on_window = _WindowProgress(self.progress, self.done, self.total)
        segmented = self.predictor.segment(job.prepared, on_window, room)
        bridged = (
            job.case.image.bridged(job.prepared.geometry.shape[2]) if isinstance(job.case.image, SeriesSource) else ""
        )
        warning = "; ".join(filter(None, (job.prepared.warning, bridged)))
        return replace(job, prepared=None, segmented=segmented, warning=warning, peak_memory_mb=peak_mb())

    def _write(self, job: Job) -> Job:
        if job.segmented is None:
            return job
        began = time.perf_counter()
        case_id = job.case.case_id
        mask = self.predictor.finish(job.segmented)
        remove_masks(
            self.request.output,
            case_id,
            self.inputs.files,
            self.request.all_formats,
            probabilities=self.request.probabilities,
        )
        description = self.request.description
        write_all(
            mask,
            self._image(job.case),
            self.request.paths(case_id),
            self.request.encoding,
            description=description,
        )
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
        made_by = str(description.model or "")
        result = CaseResult(case_id, CaseStatus.SEGMENTED, job.warning, effort, mask.volumes_ml, job.key, model=made_by)
        return replace(job, result=result)

    def _attempt(self, stage: Callable[[Job], Job], job: Job) -> Job:
        """Run a stage on a case, turning any error into a failed result."""
        if job.result:
            return job
        try:
            return stage(job)
        except (DataError, ItemOutputError) as error:
            reason = error.explanation
        except (OutputError, ConfigError, CheckpointError, Cancelled):
            raise  # no other case would fare better
        except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
            item = f"case {job.case.case_id}"
            reason = reason_of_defect(error, item, self.request.output, self.inputs.tellable)
        try:
            remove_masks(self.request.output, job.case.case_id, self.inputs.files)
        except ItemOutputError as error:
            reason = f"{reason}; its files from an earlier batch remain: {error}"
        reason = self.inputs.tellable(reason)
        logger.info("case %s failed: %s", job.case.case_id, reason)
        return Job(job.case, result=CaseResult(job.case.case_id, CaseStatus.FAILED, reason))

    def _image(self, case: Case) -> Source:
        return case.images[self.predictor.data.channels[0]]


class _WindowProgress:
    """Reports the windows of one case as a note on the progress of the batch."""

    def __init__(self, progress: Progress, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total
        self._began = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        rate = done / max(time.perf_counter() - self._began, 1e-6)
        left = (total - done) / rate if rate else 0.0
        note = f"window {done} of {total}, {rate:.2g} a second, {left:.0f} s left in this case"
        self._progress("predict", self._done, self._total, note)
