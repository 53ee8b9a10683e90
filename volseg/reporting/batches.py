"""The page of a batch: no reference says what is right, so it shows what somebody should look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from volseg.batch import Batch
from volseg.evaluation.tables import write_table
from volseg.io import read_mask, read_probabilities, read_volume
from volseg.metrics.crops import Box, Crop, label_crops
from volseg.outcomes import CASES_FILE, CaseReport, Status, probability_file
from volseg.progress import Progress, silent
from volseg.provenance import made_now, read_about, write_about
from volseg.report import Number, Report, Tile, draw, write_report
from volseg.reporting.gallery import MOST_PICTURES, forget_pictures, keep_picture, kept_pictures, read_table
from volseg.reporting.trainings import facts_of_config, facts_of_models
from volseg.scoring import masks_in
from volseg.volume import Label, Mask
from volseg.volumes import VolumeRange

REVIEW_FILE = "review.csv"

#: The ends of the axes of a volume in canonical order.
_EDGES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
_NUMBERS = (
    Number("predicted_ml", "volume in the mask"),
    Number("usual_ml", "median volume in the cases that the model learned from and was tested with"),
    Number("parts", "pieces that do not touch, not even at a corner"),
    Number("confidence", "mean probability of the label where it was drawn", "higher"),
    Number("least_confidence", "the same in the axial slice where it is lowest", "higher"),
    Number("least_sure_slice", "that slice, counted from the lowest one, which is 0"),
)


@dataclass(frozen=True)
class Finding:
    """What there is to say of one label of one mask.

    Attributes:
        case_id: Of the mask.
        label: Its name.
        status: `ok`, or `check` if there is a reason to.
        predicted_ml: Its volume.
        usual_ml: The median of the model's own cases; NaN if it does not know.
        parts: Pieces.
        confidence: Mean probability where it was drawn; NaN without probabilities.
        least_confidence: In the axial slice where it is lowest.
        least_sure_slice: That slice.
        reason: Why somebody should look.
    """

    case_id: str
    label: str
    status: str
    predicted_ml: float
    usual_ml: float
    parts: int
    confidence: float
    least_confidence: float
    least_sure_slice: float
    reason: str


def report_batch(batch: Batch, reports: Sequence[CaseReport], output: Path, progress: Progress = silent) -> Path:
    """Review the masks of a batch, draw those that need it most, and write the page.

    Args:
        batch: What was segmented, by which models.
        reports: What became of each case.
        output: Where the masks are.
        progress: Told per case.

    Returns:
        report.html, beside the masks.

    Raises:
        OutputError: If it cannot be written.
    """
    forget_pictures(output)
    masks = masks_in(output)
    images = {case.case_id: next(iter(case.images.values())) for case in batch.dataset.cases}
    labels, volumes = batch.models[0].config.data.output_labels, batch.models[0].volumes
    segmented = [report.case_id for report in reports if report.status is Status.SEGMENTED]
    findings: list[Finding] = []
    for done, case_id in enumerate(case_id for case_id in segmented if case_id in masks):
        progress("review", done, len(segmented), case_id)
        mask = read_mask(masks[case_id], labels)
        findings += review(case_id, mask, labels, volumes, _probabilities(output, case_id))
    write_table(pd.DataFrame(findings, columns=list(Finding.__dataclass_fields__)), output / REVIEW_FILE)
    reasons = Counter(finding.case_id for finding in findings if finding.status == "check")
    worst = sorted({finding.case_id for finding in findings}, key=lambda case_id: (-reasons[case_id], case_id))
    for done, case_id in enumerate(worst[:MOST_PICTURES], start=1):
        keep_picture(draw(None, read_mask(masks[case_id], labels), read_volume(images[case_id])), output, case_id)
        progress("draw", done, min(len(worst), MOST_PICTURES), case_id)
    write_about((*made_now(), *facts_of_models(batch.files), *facts_of_config(batch.models[0].config)), output)
    return write_report(page_of_batch(output), output)


def review(
    case_id: str,
    mask: Mask,
    labels: Sequence[Label],
    volumes: Mapping[str, VolumeRange],
    probabilities: NDArray[np.float32] | None = None,
) -> Iterator[Finding]:
    """Look at every label of a mask.

    Args:
        case_id: Of the mask.
        mask: On its own grid.
        labels: Of the mask.
        volumes: Label name -> how large it was in the model's own cases.
        probabilities: (I, J, K, labels), if they are known.

    Yields:
        A finding per label.
    """
    order = mask.geometry.to_canonical
    array = order.apply(mask.array)
    for number, crop in enumerate(label_crops(array, np.zeros_like(array), labels)):
        name = crop.label.name
        volume_ml = float(np.count_nonzero(crop.prediction)) * mask.geometry.voxel_volume_ml
        usual = volumes.get(name)
        likely = None if probabilities is None else order.apply(probabilities[..., number])[crop.box]
        reasons = [*_about_volume(volume_ml, usual), *_about_edges(crop.box, array.shape)]
        yield Finding(
            case_id,
            name,
            "check" if reasons else "ok",
            volume_ml,
            usual.median_ml if usual else math.nan,
            int(cc3d.connected_components(crop.prediction, connectivity=26).max(initial=0)),
            *_confidence(crop, likely),
            "; ".join(reasons),
        )


def _about_volume(volume_ml: float, usual: VolumeRange | None) -> Iterator[str]:
    if usual is None:
        return
    if volume_ml == 0:
        yield f"not found; {usual.cases} of the model's cases have it"
    elif usual.is_unusual(volume_ml):
        yield f"{volume_ml:.3g} ml; half of the model's cases have {usual.q1_ml:.3g} to {usual.q3_ml:.3g} ml"


def _about_edges(box: Box, shape: Sequence[int]) -> Iterator[str]:
    """What is cut off has no volume that means anything; an axis of a single voxel has no edge."""
    for part, size, (low, high) in zip(box, shape, _EDGES, strict=True):
        touched = [name for name, at in ((low, part.start == 0), (high, part.stop == size)) if at]
        if part.stop > part.start and size > 1 and touched:
            yield f"cut off at the {' and '.join(touched)} edge"


def _confidence(crop: Crop, likely: NDArray[np.float32] | None) -> tuple[float, float, float]:
    """The mean probability, the smallest mean of an axial slice, and which slice that is."""
    if likely is None or not crop.prediction.any():
        return math.nan, math.nan, math.nan
    sums = np.where(crop.prediction, likely, 0).sum(axis=(0, 1), dtype=np.float64)
    counts = np.count_nonzero(crop.prediction, axis=(0, 1))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.inf), where=counts > 0)
    least = int(means.argmin())
    return float(sums.sum() / counts.sum()), float(means[least]), float(least + crop.box[2].start)


def _probabilities(output: Path, case_id: str) -> NDArray[np.float32] | None:
    path = probability_file(output, case_id)
    return read_probabilities(path)[0] if path.is_file() else None


def page_of_batch(folder: Path) -> Report:
    """What the tables and pictures of a reviewed batch make.

    Raises:
        DataError: If one of them is damaged.
    """
    rows = read_table(folder / REVIEW_FILE)
    outcomes = read_table(folder / CASES_FILE)
    counts = {status: int((outcomes["status"] == status).sum()) for status in Status}
    to_check = int((rows["status"] == "check").sum())
    lost = outcomes[outcomes["status"] != Status.SEGMENTED]
    numbers = tuple(number for number in _NUMBERS if rows[number.name].notna().any())
    return Report(
        kind="Segmentation",
        title=f"{counts[Status.SEGMENTED]} cases, {rows['label'].nunique()} labels",
        tiles=(
            Tile("segmented", str(counts[Status.SEGMENTED])),
            Tile("to look at", str(to_check), alarm=to_check > 0),
            *(
                Tile(status, str(counts[status]), alarm=True)
                for status in (Status.SKIPPED, Status.FAILED)
                if counts[status]
            ),
        ),
        facts=read_about(folder),
        rows=pd.concat([rows, lost[["case_id", "status", "reason"]].assign(label="")], ignore_index=True),
        numbers=numbers,
        table=tuple(number.name for number in numbers if number.name != "least_sure_slice"),
        sort="status",
        pictures=kept_pictures(folder, sorted(set(rows["case_id"]))),
        no_pictures="Only the cases that need it most are drawn.",
    )
