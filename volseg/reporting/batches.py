"""The page of a batch of masks without references: which of them to look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import cc3d
import numpy as np
from numpy.typing import NDArray

from volseg.about import Facts, facts_of_config, facts_of_models, made_now, read_about, write_about
from volseg.config import ReadingRules
from volseg.errors import DataError
from volseg.evaluation.pairing import masks_in
from volseg.image.box import Box
from volseg.image.units import Units
from volseg.image.volume import Label, Mask
from volseg.io import SegmentsSource, Source, read_grid, read_mask, read_probabilities
from volseg.io.files import without_root
from volseg.io.tables import read_table, write_table
from volseg.io.written import claim, remove_written
from volseg.metrics.crops import Crop, label_crops
from volseg.model.usual_volumes import VolumeRange
from volseg.prediction.cases_csv import CASES_FILE, CaseResult, CaseStatus, probability_file
from volseg.progress import Progress, ignore_progress
from volseg.reporting.gallery import (
    CaseView,
    colors_of,
    draw_cases,
    forget_report,
    image_on,
    kept_pictures,
    report_files,
)
from volseg.reporting.page import REVIEW_FILE, Number, Report, Tile, counted, write_report

if TYPE_CHECKING:
    import pandas as pd

    from volseg.model.checkpoint import TrainedNetwork
    from volseg.prediction.batch_inputs import BatchInputs


#: The ends of the axes of a volume in canonical order.
_EDGES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
_USUAL = "median in the cases that the model learned from and was tested with"
_NUMBERS = (
    Number("predicted_ml", "volume in the mask"),
    Number("predicted_px2", "area in the mask"),
    Number("usual_ml", _USUAL),
    Number("usual_px2", _USUAL),
    Number("parts", "pieces that do not touch, not even at a corner"),
    Number("confidence", "mean probability of the label where it was drawn", "higher"),
    Number("least_confidence", "the same in the axial slice where it is lowest", "higher"),
    Number("least_sure_slice", "that slice, counted from the lowest one, which is 0"),
)


@dataclass(frozen=True)
class ReviewRow:
    """The review of one label of one mask.

    Attributes:
        case_id: Of the mask.
        label: Its name; empty where the mask as a whole is meant.
        status: `ok`, or `check` if there is a reason to.
        predicted_ml: Its volume; of a picture, a thousand pixels are called a millilitre.
        usual_ml: The median of the model's own cases; NaN if it does not know.
        parts: Pieces; None where they could not be counted.
        confidence: Mean probability where it was drawn; NaN without probabilities.
        least_confidence: In the axial slice where it is lowest.
        least_sure_slice: That slice.
        reason: Why somebody should look.
    """

    case_id: str
    label: str = ""
    status: str = "check"
    predicted_ml: float = math.nan
    usual_ml: float = math.nan
    parts: int | None = None
    confidence: float = math.nan
    least_confidence: float = math.nan
    least_sure_slice: float = math.nan
    reason: str = ""


def claim_report(inputs: BatchInputs, output: Path, *, overwrite: bool = False) -> None:
    """Check that the review of a batch can be written, before segmentation starts.

    Raises:
        OutputExistsError: If there is a file that volseg did not write or that was changed since.
    """
    case_ids = [case.case_id for case in inputs.dataset.cases]
    paths = [output / REVIEW_FILE, *report_files(output, case_ids)]
    claim(paths, inputs.files, overwrite=overwrite)


def describe_batch(
    files: Sequence[Path],
    model: TrainedNetwork,
    changes: Sequence[str],
    results: Sequence[CaseResult],
    output: Path,
    *,
    report: bool,
    is_part: bool = False,
) -> None:
    """Write the origin of the masks in a folder, and remove the report on earlier ones if they have changed.

    Args:
        files: The models.
        model: The first of them.
        changes: How its configuration differs from that of training.
        results: Of the batch.
        output: Where the masks are.
        report: Whether a new report will be written.
        is_part: Whether other jobs segment other parts of the batch.

    Raises:
        OutputError: If it cannot be written.
    """
    from volseg.model.hardware import this_hardware

    if report or not all(result.is_unchanged for result in results if result.status == "segmented"):
        forget_report(output, is_replaced=report)
        remove_written(output / REVIEW_FILE)
    changed = (("changed for prediction", "; ".join(changes)),) if changes else ()
    facts = (*facts_of_models(files), *facts_of_config(model.config), *changed)
    machines = [result.machine for result in results if result.machine] or [this_hardware(model.device)]
    if is_part and (earlier := read_about(output)).facts == dict(facts):
        machines = [*earlier.hardware, *machines]
    write_about(made_now(facts, list(dict.fromkeys(machines))), output)


def report_batch(
    inputs: BatchInputs,
    model: TrainedNetwork,
    results: Sequence[CaseResult],
    output: Path,
    progress: Progress = ignore_progress,
) -> Path:
    """Review the masks of a batch, draw those that most need a look, and write the page.

    Args:
        inputs: What was segmented.
        model: By which network; of an ensemble the first.
        results: What became of each case.
        output: Where the masks are.
        progress: Called after each case.

    Returns:
        report.html, beside the masks.

    Raises:
        OutputError: If it cannot be written.
    """
    # What volseg writes holds values of labels and states its size, whatever the model learned from.
    own = {"values": "labels", "threshold": None, "pixel_mm": "stated"}
    masks = masks_in(output, model.config.data.model_copy(update=own))
    images = {case.case_id: next(iter(case.images.values())) for case in inputs.dataset.cases}
    labels, volumes = model.config.data.output_labels, model.volumes
    segmented = [result for result in results if result.status is CaseStatus.SEGMENTED]
    findings = [ReviewRow(result.case_id, reason=result.reason) for result in segmented if result.reason]
    for done, case_id in enumerate([result.case_id for result in segmented], start=1):
        try:
            mask = _mask(masks.get(case_id), images[case_id], labels)
            findings += review(case_id, mask, labels, volumes, _probabilities(output, case_id, model.config.data))
        except DataError as error:
            reason = inputs.tellable(without_root(error.explanation, output))
            findings.append(ReviewRow(case_id, reason=f"not reviewed: {reason}"))
        progress("review", done, len(segmented), case_id)
    write_table(_table(findings, Units.of(model.config.data.unit)), output / REVIEW_FILE)

    def view_of(case_id: str) -> CaseView:
        try:
            mask = _mask(masks.get(case_id), images[case_id], labels)
        except DataError as error:
            raise DataError(inputs.tellable(str(error)), hint=inputs.tellable(error.hint)) from error
        return CaseView(None, mask, image_on(mask.geometry, images[case_id], case_id, inputs.tellable))

    draw_cases(view_of, _worst_first(findings), output, progress)
    return write_report(page_of_batch(output), output)


def _table(findings: Sequence[ReviewRow], units: Units) -> pd.DataFrame:
    """Return the rows of review.csv, with sizes in their own unit."""
    import pandas as pd

    table = pd.DataFrame(findings, columns=[field.name for field in fields(ReviewRow)])
    sizes = ["predicted_ml", "usual_ml"]
    table[sizes] *= units.per_ml
    return table.rename(columns={name: name.replace("ml", units.size) for name in sizes})


def _mask(source: Source | None, image: Source, labels: Sequence[Label]) -> Mask:
    """Read a mask of the batch; a DICOM object has the grid of its images."""
    if source is None:
        raise DataError("none of the files that were written is a mask", hint="--format nifti makes one")
    drawn = isinstance(source, SegmentsSource) and not source.has_grid
    return read_mask(source, labels, on=read_grid(image) if drawn else None)


def _worst_first(findings: Sequence[ReviewRow]) -> list[str]:
    """Return the case ids, those with the most remarks first."""
    reasons = Counter(finding.case_id for finding in findings if finding.status == "check")
    return sorted({finding.case_id for finding in findings}, key=lambda case_id: (-reasons[case_id], case_id))


def review(
    case_id: str,
    mask: Mask,
    labels: Sequence[Label],
    volumes: Mapping[str, VolumeRange],
    probabilities: NDArray[np.float32] | None = None,
) -> Iterator[ReviewRow]:
    """Review every label of a mask.

    Args:
        case_id: Of the mask.
        mask: On its own grid.
        labels: Of the mask.
        volumes: Label name -> how large it was in the model's own cases.
        probabilities: (I, J, K, labels), if they are known.

    Yields:
        A finding per label.
    """
    order, units = mask.geometry.to_canonical, Units.of(mask.geometry.unit)
    made = Mask(order.apply(mask.array), mask.geometry.reordered(order), mask.labels)
    nothing = Mask(np.zeros_like(made.array), made.geometry)
    for number, crop in enumerate(label_crops(made, nothing, labels)):
        name = crop.label.name
        volume_ml = float(np.count_nonzero(crop.prediction)) * mask.geometry.voxel_volume_ml
        usual = volumes.get(name)
        likely = None if probabilities is None else order.apply(probabilities[..., number])[crop.box]
        reasons = list(_about_size(volume_ml, usual, units))
        if not made.geometry.is_flat:  # a picture may show the half of anything
            reasons += _about_edges(crop.box, made.geometry.shape)
        yield ReviewRow(
            case_id,
            name,
            "check" if reasons else "ok",
            volume_ml,
            usual.median_ml if usual else math.nan,
            int(cc3d.connected_components(crop.prediction, connectivity=26).max(initial=0)),
            *_confidence(crop, likely),
            "; ".join(reasons),
        )


def _about_size(volume_ml: float, usual: VolumeRange | None, units: Units) -> Iterator[str]:
    if usual is None:
        return
    if volume_ml == 0:
        yield f"not found; {usual.cases} of the model's cases have it"
    elif usual.is_unusual(volume_ml):
        low, high = units.said(usual.q1_ml), units.said(usual.q3_ml)
        yield f"{units.said(volume_ml)}; half of the model's cases have {low.removesuffix(f' {units.size}')} to {high}"


def _about_edges(box: Box, shape: Sequence[int]) -> Iterator[str]:
    """Name the image borders at which a structure is cut off, so that its volume is not meaningful."""
    for part, size, (low, high) in zip(box, shape, _EDGES, strict=True):
        touched = [name for name, at in ((low, part.start == 0), (high, part.stop == size)) if at]
        if part.stop > part.start and size > 1 and touched:
            yield f"cut off at the {' and '.join(touched)} edge"


def _confidence(crop: Crop, likely: NDArray[np.float32] | None) -> tuple[float, float, float]:
    """Return the mean probability, the smallest mean of an axial slice, and the index of that slice."""
    if likely is None or not crop.prediction.any():
        return math.nan, math.nan, math.nan
    sums = np.where(crop.prediction, likely, 0).sum(axis=(0, 1), dtype=np.float64)
    counts = np.count_nonzero(crop.prediction, axis=(0, 1))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.inf), where=counts > 0)
    least = int(means.argmin())
    return float(sums.sum() / counts.sum()), float(means[least]), float(least + crop.box[2].start)


def _probabilities(output: Path, case_id: str, rules: ReadingRules) -> NDArray[np.float32] | None:
    path = probability_file(output, case_id)
    return read_probabilities(path, rules.geometry)[0] if path.is_file() else None


def page_of_batch(folder: Path) -> Report:
    """Build the page of a reviewed batch from its tables and pictures.

    Raises:
        DataError: If one of them is damaged.
    """
    import pandas as pd

    rows = read_table(folder / REVIEW_FILE)
    outcomes = read_table(folder / CASES_FILE)
    counts = {status: int((outcomes["status"] == status).sum()) for status in CaseStatus}
    to_check = rows.loc[rows["status"] == "check", "case_id"].nunique()
    lost = outcomes[outcomes["status"] != CaseStatus.SEGMENTED]
    numbers = tuple(number for number in _NUMBERS if number.name in rows and rows[number.name].notna().any())
    pictures = kept_pictures(folder, sorted(set(rows["case_id"])))
    labels = [Label(value, str(name)) for value, name in enumerate(rows["label"].dropna().unique(), start=1)]
    return Report(
        kind="Segmentation",
        title=f"{counted(counts[CaseStatus.SEGMENTED], 'case')}, {counted(rows['label'].nunique(), 'label')}",
        tiles=(
            Tile("segmented", str(counts[CaseStatus.SEGMENTED])),
            Tile("to look at", str(to_check), alarm=to_check > 0),
            *(
                Tile(status, str(counts[status]), alarm=True)
                for status in (CaseStatus.SKIPPED, CaseStatus.FAILED)
                if counts[status]
            ),
        ),
        facts=(*read_about(folder).lines, *_not_known(rows), *_not_reviewed(rows, counts[CaseStatus.SEGMENTED])),
        rows=pd.concat([rows, lost[["case_id", "status", "reason"]]], ignore_index=True),
        numbers=numbers,
        table=tuple(number.name for number in numbers),
        sort="status",
        colors=colors_of(labels, pictures),
        pictures=pictures,
        no_pictures="Only the cases that need it most are drawn.",
    )


def _not_reviewed(rows: pd.DataFrame, segmented: int) -> Facts:
    """Return a sentence on the masks of other batches in the folder, which were not reviewed."""
    others = segmented - rows["case_id"].nunique()
    return (("not reviewed", f"{others} cases of other batches in this folder"),) if others > 0 else ()


def _not_known(rows: pd.DataFrame) -> Facts:
    """Return a sentence on the checks that were not possible, so that their absence is not mistaken for a pass."""
    confidence = (("confidence", "not known: the batch was predicted without --probabilities"),)
    usual = (("usual volumes", "not known: the model was trained before they were remembered"),)
    return (
        *(confidence if rows["confidence"].isna().all() else ()),
        *(usual if rows.filter(like="usual_").isna().all(axis=None) else ()),
    )
