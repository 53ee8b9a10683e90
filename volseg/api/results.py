"""Functions to evaluate, compare, inspect, show, report and export."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import ConfigError
from volseg.loaded_model import Changes, StrPath, load
from volseg.progress import Progress, ignore_progress
from volseg.results import Prediction

if TYPE_CHECKING:
    from volseg.config import DicomRules, GeometryChoice
    from volseg.evaluation import Comparison, Evaluation
    from volseg.exporting import Encoding, Export, Exported, Format
    from volseg.inspection import Inspection
    from volseg.io.in_memory import InMemoryMask
    from volseg.mask_export import ExportedCase
    from volseg.metrics import Hd95, Nsd


def evaluate(  # noqa: PLR0913  each is an option of the command
    predictions: StrPath | Prediction | InMemoryMask,
    references: StrPath | Prediction | InMemoryMask,
    output: StrPath | None = None,
    *,
    spacing_mm: Sequence[float] | None = None,
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
    executor: Executor | None = None,
) -> Evaluation:
    """Compare masks with references per case and label: of folders, or one mask in memory.

    Args:
        predictions: A folder of masks, as `predict_folder` writes it; or one mask: a `Prediction`, a `Mask`, an image
            of nibabel or SimpleITK, or an array (I, J, K) of label values.
        references: A folder of label maps or a labelled data set; or one mask, of any of these kinds or a file.
        output: Folder for metrics.csv, summary.csv and statistics.csv; if None, nothing is written.
        spacing_mm: Voxel size along i, j, k, if both are arrays; an array beside an image has the grid of that image.
            Of the other arguments, one mask in memory takes only those of the metrics and `threshold`.
        tolerance_mm: Tolerance of the normalised surface Dice, one or several.
        hd95: Definition of the 95th percentile: "max_of_directed", "pooled" or "area_weighted".
        nsd: Definition of the normalised surface Dice: "voxels" or "area_weighted".
        lesions: Whether to match separate components one to one.
        lesion_iou: IoU above which components match.
        centerline: Whether to compare centre lines.
        probabilities: Whether to score the probabilities next to the masks.
        within: Folder of regions of interest, one mask per case; voxels outside are not scored.
        ignore: Value of reference voxels that are not annotated and not scored.
        threshold: Probability above which a voxel has the only label, for soft masks, which store probabilities from 0
            to 1 or integers up to the largest of the file type.
        resample: Whether to resample masks on another grid to that of their reference, instead of refusing them.
        only_predicted: Whether to leave out references without a prediction, instead of scoring them as 0.
        changes: Keys of `data` that state how files are read: "data.values", "data.pixel_mm" ...
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        geometry: Part of a NIfTI header to trust if it contradicts itself: "sform", "qform" or "pixdim".
        report: Whether to write report.html, with pictures.
        images: Images for the report, if `references` is not a whole data set.
        overwrite: Whether to replace files in the place of the tables that volseg did not write.
        threads: Number of threads of this process; by default all that it may use.
        progress: Called after each case.
        executor: Scores the cases, such as `volseg.cluster.on(client)`; by default threads of this process.

    Returns:
        The tables, and the cases that could not be scored.

    Raises:
        DataError: If there is nothing to compare.
        ConfigError: If options contradict each other.
        OutputError: If the output cannot be written.
    """
    from volseg.evaluation import evaluate_in_memory
    from volseg.metrics import parse_conventions
    from volseg.parallel import use_threads

    use_threads(threads)
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold must be a probability from 0 to 1, got {threshold}", hint="for example 0.5")
    conventions = parse_conventions(tolerance_mm, hd95, nsd, lesion_iou, lesions=lesions, centerline=centerline)
    if not (isinstance(predictions, str | PathLike) and isinstance(references, str | PathLike)):
        of_folders = {
            "output": output, "probabilities": probabilities, "within": within, "ignore": ignore, "resample": resample,
            "only_predicted": only_predicted, "changes": changes, "allow_gaps": allow_gaps, "geometry": geometry,
            "report": report, "images": images, "executor": executor,
        }  # fmt: skip
        if stray := [name for name, value in of_folders.items() if value is not None and value is not False]:
            raise ConfigError(
                f"{', '.join(stray)} cannot be used for a mask in memory", hint="evaluate folders, or leave them out"
            )
        made, wanted = _in_memory(predictions, references), _in_memory(references, predictions)
        if threshold is not None and isinstance(predictions, str | PathLike):
            raise ConfigError("a threshold cannot be used for a file beside a mask in memory", hint="give two files")
        return evaluate_in_memory(made, wanted, spacing_mm, conventions, threshold)
    if images and not report:
        raise ConfigError("--images are used only for the report", hint="add --report")
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
    return evaluate_with_report(
        *folders, conventions, options, shown, report=report, progress=progress, executor=executor
    )


def _in_memory(mask: StrPath | Prediction | InMemoryMask, other: StrPath | Prediction | InMemoryMask) -> InMemoryMask:
    """Return a mask in memory: that of a prediction, or read from a file, with the names beside it.

    Args:
        mask: The mask.
        other: What it is compared with; structures of DICOM objects are drawn on its grid.
    """
    from volseg.cases.stated_names import NamesBeside, of_masks, stated_by
    from volseg.io import SegmentsSource, read_mask, single_source
    from volseg.io.in_memory import grid_of, has_grid

    if isinstance(mask, Prediction):
        return mask.mask
    if not isinstance(mask, str | PathLike):
        return mask
    source = NamesBeside(Path(mask), of_masks).given(single_source(Path(mask)))
    beside = other.mask if isinstance(other, Prediction) else other
    drawn = isinstance(source, SegmentsSource) and not source.has_grid
    grid = grid_of(beside) if drawn and not isinstance(beside, str | PathLike) and has_grid(beside) else None
    return read_mask(source, stated_by(source) if drawn else (), on=grid)


def compare(
    first: StrPath, second: StrPath, output: StrPath, *, others: Sequence[StrPath] = (), overwrite: bool = False
) -> Comparison:
    """Compare evaluations of the same references, case by case and pair by pair.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another one, with the same references.
        output: Folder for comparison.csv and differences.csv.
        others: More evaluations of the same references.
        overwrite: Whether to replace files with these names that volseg did not write.

    Returns:
        The tables, and which evaluation is better in a sentence: `verdict`.

    Raises:
        DataError: If a folder holds no evaluation, or cases, labels or metrics differ.
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
    executor: Executor | None = None,
) -> Inspection:
    """List everything in a folder: volumes, their geometry, problems, and whether they would be used.

    Args:
        path: A folder, a file, or a manifest.
        model: A run folder or model file; the list then shows what it would segment. Without one, the list shows what
            training would use, if the folder holds references.
        config: A YAML file with rules for DICOM series, or a mapping of the keys.
        changes: Keys that override those.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        progress: Called per volume.
        executor: Reads the volumes, such as `volseg.cluster.on(client)`; by default threads of this process.

    Returns:
        An item per volume or other file, in path order, with its intended use.

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
    return inspect_folder(Path(path), given, data, progress, executor)


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
    """Write an HTML page about a labelled data set.

    It shows a picture of each case with its labels, histograms of values, shares of labels, and augmented patches.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: The file.
        config: A YAML file with some keys, or a mapping of the keys.
        changes: Keys that override those.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        overwrite: Whether to replace a file that volseg did not write.
        progress: Called per case.

    Returns:
        The file.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If a key is unknown or its value is not allowed.
        OutputError: If it cannot be written.
    """
    from volseg.config import PartialConfig
    from volseg.reporting.exploration import show_dataset

    given = PartialConfig.stated(config, changes, allow_gaps)
    return show_dataset(Path(data), Path(output), given, overwrite=overwrite, progress=progress)


def report(folder: StrPath, *, overwrite: bool = False) -> Path:
    """Write report.html again from a folder of results: a run, an evaluation, or a reviewed batch.

    Returns:
        The path of the page.

    Raises:
        DataError: If the folder holds no results, or damaged ones.
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
    """Write a mask in another format, exactly on the grid of its images; nothing is resampled.

    Args:
        mask: A label map, a DICOM Segmentation or an RT Structure Set.
        reference: The image it belongs to: a file, or a folder that may hold several series.
        output: The file to write, or the folder for meshes.
        format: Format of the output; by default that of its suffix.
        labels: Names of the values; by default those in the labels.json next to the mask, else in the mask itself.
        encoding: Encoding of a DICOM Segmentation: "binary" or "labelmap".
        series_description: Series description of a DICOM object, by default "volseg: " and the labels; {format},
            {labels} and {model} are filled in.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        overwrite: Whether to replace what is at the output; the mask and the images are never replaced.
        geometry: Part of a NIfTI header to trust if it contradicts itself: "sform", "qform" or "pixdim".

    Returns:
        The mask as written, and its paths.

    Raises:
        ConfigError: If the format is unknown, or the name of the output does not fit it.
        GeometryError: If the mask lies on none of the images.
        DataError: If the mask or image cannot be read, or lacks information that the format requires.
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
    """Write every mask in a folder in another format; one that fails does not stop the others.

    Args:
        masks: A folder as `predict_folder` writes it, or any other folder of masks.
        images: The segmented folder, or a folder of images with the names of their masks.
        output: Folder for the exported masks, and for exports.csv with the outcome for each.
        format: Format of the output.
        labels: Names of the values; by default those in the labels.json next to the masks, else in the mask itself.
        encoding: Encoding of DICOM Segmentations: "binary" or "labelmap".
        series_description: Series description of DICOM objects, by default "volseg: " and the labels; {format},
            {labels} and {model} are filled in.
        allow_gaps: Whether to bridge missing slices of DICOM series by interpolation.
        overwrite: Whether to replace what is at the output; masks and images are never replaced.
        geometry: Part of a NIfTI header to trust if it contradicts itself: "sform", "qform" or "pixdim".
        progress: Called per mask.

    Returns:
        The result for each mask, in the order of the case ids.

    Raises:
        ConfigError: If the format is unknown.
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
    """Build a checked request."""
    from volseg.exporting import Export, parse_encoding, parse_formats
    from volseg.exporting.description import Description

    (known,) = parse_formats(form)
    stated, description = None if labels is None else Path(labels), Description.of(series_description, None)
    return Export(*paths, known, stated, parse_encoding(encoding), rules, overwrite, description)


def _rules_of(geometry: GeometryChoice | None, *, allow_gaps: bool) -> DicomRules:
    from volseg.config import PartialConfig

    return PartialConfig.stated(None, {"data.geometry": geometry}, allow_gaps).data
