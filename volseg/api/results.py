"""Judging, comparing, looking into and exporting what there is."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError
from volseg.loaded_model import Changes, StrPath, load
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.config import DicomRules, GeometryChoice
    from volseg.evaluation import Comparison, Evaluation
    from volseg.exporting import Encoding, Export, Exported, Format
    from volseg.inspection import Inspection
    from volseg.mask_export import ExportedCase
    from volseg.metrics import Hd95, Nsd


def evaluate(  # noqa: PLR0913  each is an option of the command
    predictions: StrPath | NDArray[Any],
    references: StrPath | NDArray[Any],
    output: StrPath | None = None,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    tolerance_mm: Sequence[float] = (2.0,),
    hd95: Hd95 = "max_of_directed",
    nsd: Nsd = "voxels",
    lesions: bool = False,
    lesion_iou: float = 0.5,
    centerline: bool = False,
    probabilities: bool = False,
    within: StrPath | None = None,
    ignore: int | None = None,
    threshold: float | None = None,
    resample: bool = False,
    only_predicted: bool = False,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    geometry: GeometryChoice | None = None,
    report: bool = False,
    images: StrPath | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Compare masks with references, case by case and label by label; or two arrays.

    Args:
        predictions: A folder of masks, as `predict_folder` writes it; or one array (I, J, K) of label values.
        references: A folder of label maps or a labelled data set; or an array of the same shape.
        output: Gets metrics.csv, summary.csv and statistics.csv; without it nothing is written.
        spacing_mm: Of the arrays, along i, j, k.
        tolerance_mm: Of the normalised surface Dice, one number or several.
        hd95: Which 95th percentile: "max_of_directed", "pooled" or "area_weighted".
        nsd: What the normalised surface Dice counts: "voxels" or "area_weighted".
        lesions: Whether separate parts are matched one to one.
        lesion_iou: Parts that overlap by more than this are the same.
        centerline: Whether centre lines are compared.
        probabilities: Whether the probabilities beside the masks are judged.
        within: A folder of masks, one per case, outside of which nothing counts.
        ignore: Value of references where nothing is known and nothing counts.
        threshold: Masks say how likely the one label is, from 0 to 1 or in whole steps up to the most that a file can
            hold; what is above this has it.
        resample: Whether masks on another grid are brought onto that of their reference, instead of refused.
        only_predicted: Whether references without a prediction are left out, instead of scoring 0.
        changes: Keys of `data` that say how files are read: "data.values", "data.pixel_mm" ...
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        geometry: What is right of NIfTI headers that contradict themselves: "sform", "qform" or "pixdim".
        report: Whether report.html is written, with pictures.
        images: Images for the report, if `references` is not a whole data set.
        overwrite: Whether files that lie where the tables are to be are given up.
        threads: How many threads this process computes with; unless given, those that it may use.
        progress: Told after each case.

    Returns:
        The tables, and the cases that could not be scored.

    Raises:
        DataError: If there is nothing to compare.
        ConfigError: If the options do not go with each other.
        OutputError: If the output cannot be written.
    """
    from volseg.evaluation import evaluate_arrays
    from volseg.metrics import parse_conventions
    from volseg.parallel import use_threads

    use_threads(threads)
    conventions = parse_conventions(tolerance_mm, hd95, nsd, lesion_iou, lesions=lesions, centerline=centerline)
    if not (isinstance(predictions, str | PathLike) and isinstance(references, str | PathLike)):
        return evaluate_arrays(predictions, references, spacing_mm, conventions, threshold)
    if images and not report:
        raise ConfigError("--images are those of the report", hint="add --report")
    if report and output is None:
        raise ConfigError("a report needs an output folder to be written to", hint="give output")
    from volseg.config import PartialConfig
    from volseg.evaluation.folder import FolderOptions
    from volseg.reporting.evaluations import evaluate_with_report

    stated = {} if geometry is None else {"data.geometry": geometry}
    rules = PartialConfig.stated(None, {**(changes or {}), **stated}, allow_gaps).data
    region = None if within is None else Path(within)
    options = FolderOptions(probabilities, region, ignore, resample, only_predicted, rules, overwrite, threshold)
    shown, target = (None if path is None else Path(path) for path in (images, output))
    folders = Path(predictions), Path(references), target
    return evaluate_with_report(*folders, conventions, options, shown, report=report, progress=progress)


def compare(
    first: StrPath, second: StrPath, output: StrPath, *, others: Sequence[StrPath] = (), overwrite: bool = False
) -> Comparison:
    """Compare evaluations of the same references, case by case and pair by pair.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another, of the same references.
        output: Gets comparison.csv and differences.csv.
        others: More evaluations of the same references.
        overwrite: Whether files of these names in it are given up.

    Returns:
        The tables, and which evaluation is better in a sentence: `verdict`.

    Raises:
        DataError: If a folder holds no evaluation, or they are not of the same cases, labels and metrics.
        OutputError: If they cannot be written.
    """
    from volseg.evaluation import compare as compare_scores

    more = [Path(other) for other in others]
    return compare_scores(Path(first), Path(second), Path(output), others=more, overwrite=overwrite)


def inspect(
    path: StrPath,
    *,
    model: StrPath | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    progress: Progress = ignore_progress,
) -> Inspection:
    """Look at everything in a folder: volumes, where they lie, what is odd, and which would be used.

    Args:
        path: A folder, a file, or a manifest.
        model: A run folder or model file: what it would segment is shown. Without one, what training would use is
            shown where the folder holds references.
        config: A YAML file with rules for DICOM series, or the keys themselves.
        changes: Keys that are laid over those.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        progress: Told per volume.

    Returns:
        An item per volume and per thing that is none, in path order, and what would be made of them.

    Raises:
        DataError: If the path does not exist.
        CheckpointError: If the model cannot be loaded.
    """
    from volseg.config import PartialConfig
    from volseg.inspection import inspect_folder

    given = PartialConfig.stated(config, changes, allow_gaps)
    data = None
    if model is not None:
        data = load(model, config=config, changes=changes, allow_gaps=allow_gaps).config.data
    return inspect_folder(Path(path), given, data, progress)


def show(
    data: StrPath,
    output: StrPath,
    *,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    overwrite: bool = False,
    progress: Progress = ignore_progress,
) -> Path:
    """Write one HTML file about a labelled data set.

    It has a picture of each case with its labels, histograms of values, shares of labels, and patches as training
    changes them.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: The file.
        config: A YAML file of some keys, or the keys themselves.
        changes: Keys that are laid over those.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        overwrite: Whether a file there is given up.
        progress: Told per case.

    Returns:
        The file.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If a key is unknown or its value not allowed.
        OutputError: If it cannot be written.
    """
    from volseg.config import PartialConfig
    from volseg.reporting.exploration import show_dataset

    given = PartialConfig.stated(config, changes, allow_gaps)
    return show_dataset(Path(data), Path(output), given, overwrite=overwrite, progress=progress)


def report(folder: StrPath, *, overwrite: bool = False) -> Path:
    """Write report.html again from a folder of results: a run, an evaluation, or a reviewed batch.

    Returns:
        The page.

    Raises:
        DataError: If it holds no results, or damaged ones.
        OutputError: If it cannot be written.
    """
    from volseg.reporting.folder import report_folder

    return report_folder(Path(folder), overwrite=overwrite)


def export(  # noqa: PLR0913  each is an option of the command
    mask: StrPath,
    reference: StrPath,
    output: StrPath,
    *,
    format: Format | None = None,  # noqa: A002  what everybody calls it
    labels: StrPath | None = None,
    encoding: Encoding = "binary",
    series_description: str | None = None,
    allow_gaps: bool = False,
    overwrite: bool = False,
    geometry: GeometryChoice | None = None,
) -> Exported:
    """Write a mask in another format, exactly on the images it was made from; nothing is resampled.

    Args:
        mask: A label map, a DICOM Segmentation or an RT Structure Set.
        reference: The image it was made from: a file, or a folder that may hold several series.
        output: The file to write, or the folder for meshes.
        format: Of the output; by default the one that its suffix says.
        labels: What the values mean; by default the labels.json beside the mask, else what the mask says itself.
        encoding: Of a DICOM Segmentation: "binary", or "labelmap".
        series_description: Of a DICOM object, instead of "volseg: " and the labels; {format}, {labels} and {model} in
            it are filled in.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        overwrite: Whether what lies at the output is given up; the mask and the images never are.
        geometry: What is right of NIfTI headers that contradict themselves: "sform", "qform" or "pixdim".

    Returns:
        The mask as written, and where.

    Raises:
        ConfigError: If the format is not known, or the name of the output does not go with it.
        GeometryError: If the mask lies on none of the images.
        DataError: If one of them cannot be read, or lacks what the format must state.
        OutputError: If it cannot be written.
    """
    from volseg.exporting.formats import format_of
    from volseg.mask_export import export_mask

    form, rules = format or format_of(Path(output)), _rules_of(geometry, allow_gaps=allow_gaps)
    paths = Path(mask), Path(reference), Path(output)
    return export_mask(_export_of(paths, form, labels, encoding, series_description, rules, overwrite=overwrite))


def export_folder(  # noqa: PLR0913  each is an option of the command
    masks: StrPath,
    images: StrPath,
    output: StrPath,
    *,
    format: Format,  # noqa: A002  what everybody calls it
    labels: StrPath | None = None,
    encoding: Encoding = "binary",
    series_description: str | None = None,
    allow_gaps: bool = False,
    overwrite: bool = False,
    geometry: GeometryChoice | None = None,
    progress: Progress = ignore_progress,
) -> tuple[ExportedCase, ...]:
    """Write every mask in a folder in another format; one that cannot be written does not stop the others.

    Args:
        masks: A folder as `predict_folder` writes it, or any other folder of masks.
        images: What was segmented, or a folder of the images, called as their masks.
        output: The folder to write into; also gets exports.csv, which says what became of each mask.
        format: Of the output.
        labels: What the values mean; by default the labels.json beside the masks, else what a mask says itself.
        encoding: Of DICOM Segmentations: "binary", or "labelmap".
        series_description: Of DICOM objects, instead of "volseg: " and the labels; {format}, {labels} and {model} in it
            are filled in.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        overwrite: Whether what lies at the output is given up; masks and images never are.
        geometry: What is right of NIfTI headers that contradict themselves: "sform", "qform" or "pixdim".
        progress: Told per mask.

    Returns:
        What became of each mask, in the order of the case ids.

    Raises:
        ConfigError: If the format is not known.
        DataError: If there are no masks, or no images.
        OutputError: If the output cannot be written.
    """
    from volseg.mask_export import export_folder as export_masks

    rules = _rules_of(geometry, allow_gaps=allow_gaps)
    paths = Path(masks), Path(images), Path(output)
    request = _export_of(paths, format, labels, encoding, series_description, rules, overwrite=overwrite)
    return export_masks(request, progress)


def _export_of(
    paths: tuple[Path, Path, Path],
    form: str,
    labels: StrPath | None,
    encoding: str,
    series_description: str | None,
    rules: DicomRules,
    *,
    overwrite: bool,
) -> Export:
    """Put together what is asked for, checked."""
    from volseg.exporting import Export, parse_encoding, parse_formats
    from volseg.exporting.description import Description

    (known,) = parse_formats(form)
    stated, description = None if labels is None else Path(labels), Description.of(series_description, None)
    return Export(*paths, known, stated, parse_encoding(encoding), rules, overwrite, description)


def _rules_of(geometry: GeometryChoice | None, *, allow_gaps: bool) -> DicomRules:
    from volseg.config import PartialConfig

    return PartialConfig.stated(None, {"data.geometry": geometry}, allow_gaps).data
