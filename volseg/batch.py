"""A folder of cases in, a folder of masks and one row per case out."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import fastremap
import pandas as pd

from volseg import __version__
from volseg.cases import Case, Dataset, find_inputs
from volseg.cases.case import as_case_id, stem
from volseg.checkpoint import Model, load_model, model_file
from volseg.config import DataConfig, dump
from volseg.errors import CheckpointError, ConfigError, DataError, OutputError
from volseg.export import (
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
from volseg.export.labels import LABELS_FILE, write_labels
from volseg.export.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.io import stands_for
from volseg.io.files import atomic_path, make_folder, remove_leftovers, without_root
from volseg.io.source import FileSource, digest
from volseg.networks import choose_device
from volseg.prediction import check_ensemble, predict
from volseg.progress import Progress, silent
from volseg.volume import Label, Mask

CASES_FILE = "cases.csv"
ITKSNAP_FILE, NIIVUE_FILE = "itksnap_labels.txt", "niivue_colormap.json"
LOG_FILE = "volseg.log"

logger = logging.getLogger(__name__)


class Status(StrEnum):
    """What became of a discovered case."""

    SEGMENTED = "segmented"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class CaseReport:
    """One row of cases.csv.

    Attributes:
        case_id: The case, or a name made from the path of something that is no case.
        status: What became of it.
        reason: Why it was skipped or failed; empty otherwise.
        seconds: Time it took.
        peak_memory_mb: Largest memory of the process while it was worked on.
        volumes_ml: Label name -> volume in the mask.
        key: Hash of the input, the models and the formats, by which a continued batch knows that a mask is up to date.
    """

    case_id: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    volumes_ml: dict[str, float] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class Request:
    """What is to be made of each case.

    Attributes:
        output: Gets a mask per case and format, cases.csv and labels.json.
        formats: Of the masks.
        encoding: Of DICOM Segmentations.
        allow_gaps: Whether DICOM series with missing slices are bridged, whatever the model's configuration says.
    """

    output: Path
    formats: tuple[Format, ...] = ("nifti",)
    encoding: Encoding = "binary"
    allow_gaps: bool = False

    @property
    def all_formats(self) -> list[Format]:
        """Each format once, and those that they need."""
        return with_needed(self.formats)

    def paths(self, case_id: str) -> dict[Format, Path]:
        """Where the masks of a case go."""
        return {form: output_path(self.output, case_id, form) for form in self.all_formats}


def predict_folder(
    source: Path, models: Sequence[Path], request: Request, progress: Progress = silent
) -> list[CaseReport]:
    """Segment everything in a folder; one bad case never stops the others.

    A batch that was interrupted goes on where it was: a case whose input, models and formats are unchanged and whose
    masks are there is not segmented again.

    Args:
        source: A data set, a file, a DICOM folder or a tree of these.
        models: Runs or model files; the answers of several are averaged.
        request: What is made of each case.
        progress: Told per case.

    Returns:
        One report per discovered case, in the order of cases.csv.

    Raises:
        DataError: If there is nothing to segment at `source`.
        CheckpointError: If a model is missing, damaged, or does not go with the others.
        OutputError: If the output cannot be written (the reports so far are in cases.csv).
    """
    loaded = [load_model(path, choose_device()) for path in models]
    check_ensemble(loaded)
    data, output = loaded[0].config.data, request.output
    rules = data.model_copy(update={"allow_gaps": data.allow_gaps or request.allow_gaps})
    source = stands_for(source)
    if output.resolve() == source.resolve():
        raise OutputError(f"{output} is the input, too", hint="choose an --output of its own, so that no image is lost")
    dataset = find_inputs(source, data.channels, rules, progress)
    make_folder(output)
    remove_leftovers(output)
    _write_sidecars(data.output_labels, request)
    settings = json.dumps([__version__, request.all_formats, request.encoding, _hash_models(loaded, models)])
    earlier = _read_reports(output / CASES_FILE, data)
    reports = {report.case_id: report for report in _skipped(dataset, source)}
    for case_id in set(reports) & set(earlier):
        _remove_masks(output, case_id)
    waiting = {case.case_id: earlier[case.case_id] for case in dataset.cases if case.case_id in earlier}
    for done, case in enumerate(dataset.cases):
        progress("predict", done, len(dataset.cases), case.case_id)
        report = _predict_case(case, loaded, request, settings, waiting.get(case.case_id))
        reports[case.case_id] = replace(report, reason=without_root(report.reason, source))
        if report is not waiting.pop(case.case_id, None):  # cases still waiting keep their rows, should this end here
            _write_reports([*reports.values(), *waiting.values()], data, output / CASES_FILE)
    progress("predict", len(dataset.cases), len(dataset.cases))
    _write_reports(list(reports.values()), data, output / CASES_FILE)
    return sorted(reports.values(), key=lambda report: report.case_id)


def _write_sidecars(labels: Sequence[Label], request: Request) -> None:
    """What label maps cannot say themselves."""
    write_labels(labels, request.output / LABELS_FILE)
    if "nifti" in request.formats:
        write_itksnap_labels(labels, request.output / ITKSNAP_FILE)
        write_niivue_colormap(labels, request.output / NIIVUE_FILE)
    warn_of_private_codes(labels, request.all_formats)


def segmented_cases(path: Path) -> list[str]:
    """The ids of the cases that a cases.csv says are segmented.

    Raises:
        DataError: If it is not of that form.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return list(table.loc[table["status"] == Status.SEGMENTED, "case_id"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no list of cases: {error!r}") from error


def _predict_case(
    case: Case, models: Sequence[Model], request: Request, settings: str, earlier: CaseReport | None
) -> CaseReport:
    """Segment one case and write its masks, whatever is wrong with it."""
    began = time.monotonic()
    _reset_peak_memory()
    paths = request.paths(case.case_id)
    try:
        key = digest(case.images.values(), settings)
        if earlier and earlier.key == key and _are_there(paths, earlier):
            logger.info("case %s is up to date", case.case_id)
            return earlier
        image = case.images[models[0].config.data.channels[0]]
        check_formats(image, request.all_formats)
        mask = predict(case, models)
        if earlier:
            _remove_masks(request.output, case.case_id)
        for form, path in paths.items():
            write(mask, image, path, form, request.encoding)
    except (OutputError, ConfigError, CheckpointError):
        raise  # no other case would fare better
    except DataError as error:
        reason, key = str(error), ""
    except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the other cases; it is kept in full
        reason, key = f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}", ""
        with (request.output / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(f"case {case.case_id}\n{traceback.format_exc()}\n")
    else:
        return CaseReport(
            case.case_id, Status.SEGMENTED, "", time.monotonic() - began, _peak_memory_mb(), _volumes_ml(mask), key
        )
    _remove_masks(request.output, case.case_id)
    logger.info("case %s failed: %s", case.case_id, reason)
    return CaseReport(case.case_id, Status.FAILED, reason, time.monotonic() - began, _peak_memory_mb())


def _skipped(dataset: Dataset, root: Path) -> list[CaseReport]:
    taken = {case.case_id for case in dataset.cases}
    reports = []
    for item in dataset.set_aside:
        parts = item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()
        parts = parts or (item.path.name,)
        case_id = as_case_id([*parts[:-1], stem(Path(parts[-1]))], taken)
        taken.add(case_id)
        reports.append(CaseReport(case_id, Status.SKIPPED, without_root(item.reason, root)))
        logger.info("%s is skipped: %s", item.path, item.reason)
    return reports


def _volumes_ml(mask: Mask) -> dict[str, float]:
    values, counts = fastremap.unique(mask.array, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {label.name: found.get(label.value, 0) * mask.geometry.voxel_volume_ml for label in mask.labels}


def _remove_masks(output: Path, case_id: str) -> None:
    """No mask of an earlier batch, in whatever format, may stand beside a row that does not tell of it."""
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


def _are_there(paths: Mapping[Format, Path], earlier: CaseReport) -> bool:
    """Whether the masks of a case are; an empty one has no meshes."""
    meshless = not any(earlier.volumes_ml.values())
    return all(path.exists() or (meshless and form in MESHES) for form, path in paths.items())


def _write_reports(reports: Sequence[CaseReport], data: DataConfig, path: Path) -> None:
    rows = [
        {
            "case_id": report.case_id,
            "status": str(report.status),
            "reason": report.reason,
            "seconds": round(report.seconds, 2),
            "peak_memory_mb": round(report.peak_memory_mb),
            **{f"{label.name}_ml": report.volumes_ml.get(label.name) for label in data.output_labels},
            "key": report.key,
        }
        for report in sorted(reports, key=lambda report: report.case_id)
    ]
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")


def _read_reports(path: Path, data: DataConfig) -> dict[str, CaseReport]:
    """The reports of an earlier, interrupted batch; none if the file is not one of this model."""
    columns = [f"{label.name}_ml" for label in data.output_labels]
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype={"case_id": str, "key": str, "reason": str})
    except (FileNotFoundError, ValueError):
        return {}
    if not {"case_id", "status", "reason", "seconds", "peak_memory_mb", "key", *columns} <= set(table.columns):
        return {}
    segmented = table[table["status"] == Status.SEGMENTED]
    return {str(row["case_id"]): _report(row, data) for row in segmented.to_dict("records")}


def _report(row: dict[Any, Any], data: DataConfig) -> CaseReport:
    volumes = {label.name: float(row[f"{label.name}_ml"]) for label in data.output_labels}
    return CaseReport(
        row["case_id"],
        Status.SEGMENTED,
        "",
        float(row["seconds"]),
        float(row["peak_memory_mb"]),
        volumes,
        row["key"],
    )


def _hash_models(models: Sequence[Model], paths: Sequence[Path]) -> list[str]:
    pairs = zip(models, paths, strict=True)
    return [digest([FileSource(model_file(path))], dump(model.config)) for model, path in pairs]


def _reset_peak_memory() -> None:
    """Let the kernel measure the peak anew (Linux: proc(5), clear_refs); elsewhere it is the peak since the start."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_memory_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
