"""Evaluation of a folder of masks against a folder of references."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.about import ABOUT_FILE
from volseg.cases.content import refuse_images
from volseg.config import NO_RULES, DicomRules, PartialData
from volseg.errors import DataError
from volseg.evaluation.evaluate import (
    METRICS_FILE,
    STATISTICS_FILE,
    SUMMARY_FILE,
    CasePair,
    Evaluation,
    EvaluationSettings,
    evaluate,
)
from volseg.evaluation.labels import scored_labels
from volseg.evaluation.pairing import pair_cases
from volseg.image.geometry import Unit
from volseg.image.volume import Label
from volseg.io import FileSource, MasksSource, ObjectsSource, SegmentsSource, Source, is_picture, read_mask
from volseg.io.labels import LABELS_FILE, read_others
from volseg.io.written import Inputs, claim
from volseg.metrics import Conventions
from volseg.progress import Progress, ignore_progress


@dataclass(frozen=True)
class FolderOptions:
    """Options for pairing and reading masks and references.

    Attributes:
        probabilities: Whether to score the probabilities next to the masks.
        within: Folder of regions of interest, one mask per case; voxels outside are not scored.
        ignored: Value of reference voxels that are not annotated and not scored.
        resample: Whether to resample masks on another grid to that of their reference, instead of refusing them.
        only_predicted: Whether to leave out references without a prediction, instead of scoring them as 0.
        rules: How DICOM references are read.
        overwrite: Whether to replace files in the place of the tables that volseg did not write; never the masks.
        threshold: Probability above which a voxel has the only label, for soft masks; None for label maps.
    """

    probabilities: bool = False
    within: Path | None = None
    ignored: int | None = None
    resample: bool = False
    only_predicted: bool = False
    rules: DicomRules = NO_RULES
    overwrite: bool = False
    threshold: float | None = None


def evaluate_folder(
    predictions: Path,
    references: Path,
    output: Path | None,
    conventions: Conventions,
    options: FolderOptions,
    progress: Progress = ignore_progress,
    executor: Executor | None = None,
) -> tuple[Evaluation, tuple[CasePair, ...], EvaluationSettings]:
    """Pair the masks with the references and score them.

    Args:
        predictions: A folder of masks, as `volseg predict` writes it.
        references: A folder of label maps or a labelled data set.
        output: Folder for the tables; if None, nothing is written.
        conventions: How metrics are computed.
        options: How masks and references are paired and read.
        progress: Called after each case.
        executor: Scores the cases; by default threads of this process.

    Returns:
        The evaluation, the pairs, and the settings.

    Raises:
        DataError: If no mask belongs to any reference, one of the folders holds images, the meaning of values is
            unknown, or masks and references have no label name in common.
        OutputExistsError: If a table there was not written by volseg, or was changed since.
        OutputError: If the tables cannot be written.
    """
    if output is not None:
        tables = (METRICS_FILE, SUMMARY_FILE, STATISTICS_FILE, ABOUT_FILE)
        inputs = Inputs.of(predictions, references, options.within)
        claim([output / name for name in tables], inputs, overwrite=options.overwrite)
    pairing = pair_cases(
        predictions,
        references,
        only_predicted=options.only_predicted,
        rules=options.rules,
        within=options.within,
        threshold=options.threshold,
    )
    pairing = replace(pairing, pairs=_named(pairing.pairs, options.rules))
    refuse_images([pair.reference for pair in pairing.pairs], references, "references")
    if options.threshold is None:
        made = [pair.prediction for pair in pairing.pairs if pair.prediction is not None]
        refuse_images(made, predictions, "masks")
    if options.within is not None:
        regions = [pair.within for pair in pairing.pairs if pair.within is not None]
        refuse_images(regions, options.within, "regions of interest")
    scored = scored_labels(
        predictions, pairing.pairs, calibrated=options.probabilities, ignored=options.ignored, executor=executor
    )
    stated = predictions / LABELS_FILE
    others = read_others(stated) if stated.is_file() else "refuse"
    kept = len(scored.labels) - (scored.lacking if others == "background" else 0)
    settings = EvaluationSettings(
        scored.labels[:kept],
        conventions,
        calibrated=options.probabilities,
        within=options.within is not None,
        ignored=scored.ignored,
        resample=options.resample,
        lacking=scored.lacking if others == "refuse" else 0,
        others=others,
        unit=_unit_of(scored.pairs),
    )
    evaluation = evaluate(scored.pairs, settings, output, progress, executor)
    return replace(evaluation, remarks=(*pairing.remarks, *scored.remarks)), scored.pairs, settings


def _named(pairs: tuple[CasePair, ...], rules: DicomRules) -> tuple[CasePair, ...]:
    """Name the values or colours of references without label names as the caller states."""
    if not isinstance(rules, PartialData):
        return pairs
    values = rules.labels or {name: value for value, name in enumerate(rules.colors, start=1)}
    labels = tuple(Label(value, name, rules.colors.get(name)) for name, value in values.items() if value)
    if not labels:
        return pairs
    return tuple(
        replace(pair, reference=replace(pair.reference, labels=labels))
        if isinstance(pair.reference, FileSource) and not pair.reference.labels
        else pair
        for pair in pairs
    )


def _unit_of(pairs: Sequence[CasePair]) -> Unit:
    """Return the unit of most grids: pixels for pictures without a stated pixel size."""
    return "px" if 2 * sum(_counts_pixels(pair) for pair in pairs) > len(pairs) else "mm"


def _counts_pixels(pair: CasePair) -> bool:
    own: Source | None
    match pair.reference:
        case SegmentsSource(is_of_a_picture=True):  # its grid is that of the mask
            own = pair.prediction
        case MasksSource(each=masks) | ObjectsSource(each=masks):
            own = masks[0]
        case source:
            own = source
    if not isinstance(own, FileSource) or not is_picture(own.path):
        return False
    return own.rules.pixel_mm is None or (own.rules.pixel_mm == "stated" and _states_no_size(own))


def _states_no_size(reference: FileSource) -> bool:
    try:
        return read_mask(reference).geometry.unit == "px"
    except DataError:  # scoring the case reports the error
        return False
