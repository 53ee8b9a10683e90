"""A folder of cases in, a folder of masks and one row per case out."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import fastremap

from volseg.cases import Case, Dataset, find_inputs
from volseg.cases.case import as_case_id, stem
from volseg.config import DicomRules, dump, merge, validate
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
    write,
)
from volseg.exporting.labels import LABELS_FILE, write_labels
from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.image.volume import Label, Mask
from volseg.inference.segmentation import OnWindow
from volseg.io import Source, stands_for, write_probabilities
from volseg.io.files import make_folder, remove_leftovers, without_root
from volseg.io.source import FileSource, digest
from volseg.memory import peak_mb, reset_peak
from volseg.model.checkpoint import TrainedNetwork, load_model, model_files
from volseg.model.networks import choose_device
from volseg.parallel import helpers
from volseg.prediction.cases_csv import (
    CASES_FILE,
    CaseResult,
    CaseStatus,
    Effort,
    probability_file,
    read_reports,
    write_reports,
)
from volseg.prediction.predictor import Predictor, Prepared, Segmented, check_ensemble
from volseg.progress import Progress, ignore_progress
from volseg.version import __version__

ITKSNAP_FILE, NIIVUE_FILE = "itksnap_labels.txt", "niivue_colormap.json"
LOG_FILE = "volseg.log"

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be made of each case.

    Attributes:
        output: Gets a mask per case and format, cases.csv and labels.json.
        formats: Of the masks.
        encoding: Of DICOM Segmentations.
        probabilities: Whether they are written, too.
    """

    output: Path
    formats: tuple[Format, ...] = ("nifti",)
    encoding: Encoding = "binary"
    probabilities: bool = False

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
class _Job:
    """A case on its way.

    Attributes:
        case: The case.
        key: By which a continued batch knows its mask.
        earlier: Its row in an earlier batch.
        read_seconds: What it took to read and prepare it.
    """

    case: Case
    key: str
    earlier: CaseResult | None
    read_seconds: float


@dataclass(frozen=True, eq=False)
class Batch:
    """What is to be segmented, and with what.

    Attributes:
        source: Where it was found.
        dataset: The cases, and what was set aside.
        files: The models' files.
        models: Loaded.
    """

    source: Path
    dataset: Dataset
    files: tuple[Path, ...]
    models: tuple[TrainedNetwork, ...]


def predict_folder(
    source: Path,
    models: Sequence[Path],
    request: Request,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = ignore_progress,
    told: Callable[[CaseResult], None] = lambda report: None,  # noqa: ARG005  nobody wants to know
) -> list[CaseResult]:
    """Segment everything in a folder; one bad case never stops the others.

    While the networks work on one case, the next one is read and the last one is written. A batch that was interrupted
    goes on where it was: a case whose input, models and formats are unchanged and whose masks are there is not
    segmented again.

    Args:
        source: A data set, a file, a DICOM folder or a tree of these.
        models: Runs or model files; the answers of several, or of all folds of a run, are averaged.
        request: What is made of each case.
        overrides: Keys of the models' configurations that are to be others: of `inference`, `postprocess`, and how
            DICOM is read.
        progress: Told per case and window.
        told: Gets each report as the case is done.

    Returns:
        One report per discovered case, in the order of cases.csv.

    Raises:
        DataError: If there is nothing to segment at `source`.
        ConfigError: If the overrides are not valid.
        CheckpointError: If a model is missing, damaged, or does not go with the others.
        OutputError: If the output cannot be written (the reports so far are in cases.csv).
    """
    batch = open_batch(source, models, overrides, progress)
    return segment_batch(batch, request, progress, told)


def segment_batch(
    batch: Batch,
    request: Request,
    progress: Progress = ignore_progress,
    told: Callable[[CaseResult], None] = lambda report: None,  # noqa: ARG005  nobody wants to know
) -> list[CaseResult]:
    """Segment what was found; see `predict_folder`."""
    source, dataset, output = batch.source, batch.dataset, request.output
    predictor = Predictor(batch.models)
    data = predictor.data
    if output.resolve() == source.resolve():
        raise OutputError(f"{output} is the input, too", hint="choose an --output of its own, so that no image is lost")
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data.output_labels, request)
    wanted = [request.all_formats, request.encoding, request.probabilities]
    settings = json.dumps([__version__, wanted, _hash_models(batch.models, batch.files)])
    earlier = read_reports(output / CASES_FILE, data)
    reports = {report.case_id: report for report in _skipped(dataset, source)}
    for case_id in set(reports) & set(earlier):
        _remove_masks(output, case_id)
    waiting = {case.case_id: earlier[case.case_id] for case in dataset.cases if case.case_id in earlier}
    belt = _Belt(predictor, request, settings, waiting.copy())
    for report in belt.run(dataset.cases, progress):
        reports[report.case_id] = replace(report, reason=without_root(report.reason, source))
        if report is not waiting.pop(report.case_id, None):  # cases still waiting keep their rows, should this end here
            write_reports([*reports.values(), *waiting.values()], data, output / CASES_FILE)
            told(reports[report.case_id])
    write_reports(list(reports.values()), data, output / CASES_FILE)
    return sorted(reports.values(), key=lambda report: report.case_id)


def open_batch(
    source: Path,
    models: Sequence[Path],
    overrides: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = ignore_progress,
) -> Batch:
    """Load models and find what there is to segment; arguments and errors as those of `predict_folder`."""
    files = [file for path in models for file in model_files(path)]
    loaded = [_overridden(load_model(file, choose_device()), overrides) for file in files]
    check_ensemble(loaded)
    data = loaded[0].config.data
    source = stands_for(source)
    return Batch(source, find_inputs(source, data.channels, data, progress), tuple(files), tuple(loaded))


class _Belt:
    """Three steps side by side: reading the next case, segmenting one, writing the last.

    Args:
        predictor: The models.
        request: What is made of each case.
        settings: What the masks depend on beside the images.
        earlier: Case id -> its row in an earlier batch.
    """

    def __init__(
        self, predictor: Predictor, request: Request, settings: str, earlier: Mapping[str, CaseResult]
    ) -> None:
        self.predictor, self.request, self.settings, self.earlier = predictor, request, settings, earlier

    def run(self, cases: Sequence[Case], progress: Progress) -> Iterator[CaseResult]:
        """Segment cases.

        Args:
            cases: What is segmented.
            progress: Told per case and window.

        Yields:
            A report of each, in their order.
        """
        with helpers(1) as reader, helpers(1) as writer:
            reading, writing = None, None
            for n, case in enumerate(cases):
                progress("predict", n, len(cases), case.case_id)
                read = (reading or reader.submit(self._read, case)).result()
                following = cases[n + 1] if n + 1 < len(cases) else None
                fits = isinstance(read, CaseResult) or 2 * read[1].gigabytes < self.predictor.memory_gb
                reading = reader.submit(self._read, following) if following and fits else None
                done = self._segment(read, _Windows(progress, n, len(cases)))
                del read  # the next case needs the room
                if writing:
                    yield writing.result()
                writing = writer.submit(self._write, done, peak_mb())
            if writing:
                yield writing.result()
            progress("predict", len(cases), len(cases))

    def _read(self, case: Case) -> tuple[_Job, Prepared] | CaseResult:
        return self._attempt(case, lambda: self._prepare(case))

    def _prepare(self, case: Case) -> tuple[_Job, Prepared] | CaseResult:
        earlier = self.earlier.get(case.case_id)
        key = digest(case.images.values(), self.settings)
        if earlier and earlier.key == key and self.request.are_there(case.case_id, earlier):
            logger.info("case %s is up to date", case.case_id)
            return earlier
        check_formats(self._image(case), self.request.all_formats)
        prepared = self.predictor.prepare(case)
        return _Job(case, key, earlier, prepared.seconds), prepared

    def _segment(
        self, read: tuple[_Job, Prepared] | CaseResult, on_window: OnWindow
    ) -> tuple[_Job, Segmented] | CaseResult:
        if isinstance(read, CaseResult):
            return read
        job, prepared = read
        reset_peak()
        room = self.request.output if self.request.probabilities else None
        done = self._attempt(job.case, lambda: self.predictor.segment(prepared, on_window, room))
        return done if isinstance(done, CaseResult) else (job, done)

    def _write(self, done: tuple[_Job, Segmented] | CaseResult, memory_mb: float) -> CaseResult:
        if isinstance(done, CaseResult):
            return done
        job, segmented = done
        return self._attempt(job.case, lambda: self._finish(job, segmented, memory_mb))

    def _finish(self, job: _Job, done: Segmented, memory_mb: float) -> CaseResult:
        began = time.perf_counter()
        mask = self.predictor.finish(done)
        if job.earlier:
            _remove_masks(self.request.output, job.case.case_id)
        for form, path in self.request.paths(job.case.case_id).items():
            write(mask, self._image(job.case), path, form, self.request.encoding)
        if done.probabilities is not None:
            path = probability_file(self.request.output, job.case.case_id)
            write_probabilities(done.probabilities, mask.geometry, path)
        effort = Effort(
            job.read_seconds,
            done.network_seconds,
            done.restore_seconds,
            time.perf_counter() - began,
            done.windows,
            memory_mb,
        )
        return CaseResult(job.case.case_id, CaseStatus.SEGMENTED, "", effort, _volumes_ml(mask), job.key)

    def _attempt(self, case: Case, work: Callable[[], _Result]) -> _Result | CaseResult:
        """Do something for a case, whatever is wrong with it."""
        try:
            return work()
        except (OutputError, ConfigError, CheckpointError):
            raise  # no other case would fare better
        except DataError as error:
            reason = str(error)
        except MemoryError:
            reason = "it needs more memory than there is; close other programs, or use a machine with more memory"
        except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
            reason = f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}"
            with (self.request.output / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(f"case {case.case_id}\n{traceback.format_exc()}\n")
        _remove_masks(self.request.output, case.case_id)
        logger.info("case %s failed: %s", case.case_id, reason)
        return CaseResult(case.case_id, CaseStatus.FAILED, reason)

    def _image(self, case: Case) -> Source:
        return case.images[self.predictor.data.channels[0]]


class _Windows:
    """How far the windows of one case are, as a note on the progress of the batch."""

    def __init__(self, progress: Progress, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total
        self._began = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        rate = done / max(time.perf_counter() - self._began, 1e-6)
        left = (total - done) / rate if rate else 0.0
        note = f"window {done} of {total}, {rate:.2g} a second, {left:.0f} s left"
        self._progress("predict", self._done, self._total, note)


def _overridden(model: TrainedNetwork, overrides: Mapping[str, Any]) -> TrainedNetwork:
    """A model with other settings where they are not part of what was learned."""
    if not overrides:
        return model
    learned = set(overrides) - {"inference", "postprocess", "data"}
    learned |= {f"data.{key}" for key in set(overrides.get("data", {})) - set(DicomRules.model_fields)}
    if learned:
        raise ConfigError(
            f"{', '.join(sorted(learned))} cannot be changed after training",
            hint="predict takes keys of inference, of postprocess, and of how DICOM is read",
        )
    tree = merge(model.config.model_dump(mode="json"), overrides)
    return replace(model, config=validate(tree, "the model with what is to be changed"))


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


def _volumes_ml(mask: Mask) -> dict[str, float]:
    values, counts = fastremap.unique(mask.array, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {label.name: found.get(label.value, 0) * mask.geometry.voxel_volume_ml for label in mask.labels}


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


def _hash_models(models: Sequence[TrainedNetwork], paths: Sequence[Path]) -> list[str]:
    pairs = zip(models, paths, strict=True)
    return [digest([FileSource(path)], dump(model.config)) for model, path in pairs]
