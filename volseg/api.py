"""The public calls: what the command line, the demo and every server are made of.

Some arguments mean the same everywhere: `config` is a YAML file of some keys of the configuration, or the keys
themselves; `changes` are keys laid over those; `allow_gaps` bridges missing slices of DICOM series by interpolation;
`overwrite` gives up files in the way that volseg did not write, or that were changed since; an input never is;
`threads` is the number of threads of this process from then on, and `device` where networks run.
Long work reports to a `progress` callback, and ends when that raises `Cancelled`. Wrong input raises a `VolsegError`
of the kind that fits: `ConfigError`, `DataError`, `GeometryError`, `CheckpointError`, `OutputError`, `TrainingError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError
from volseg.loaded_model import Changes, StrPath, load
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from volseg.config import GeometryChoice, NetworkName
    from volseg.evaluation import Comparison, Evaluation
    from volseg.exporting import Encoding, Exported, Format
    from volseg.inspection import Inspection
    from volseg.metrics import Hd95, Nsd
    from volseg.planning import Plan
    from volseg.training.run import Run


def plan(  # noqa: PLR0913  each is an option of the command
    data: StrPath,
    *,
    network: NetworkName | None = None,
    minutes: float | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    allow_gaps: bool = False,
    output: StrPath | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = ignore_progress,
) -> Plan:
    """Look at a labelled data set and plan a complete configuration, with a reason beside every choice.

    Args:
        data: A labelled data set in any layout, or a manifest.
        network: Which network; a DynUNet unless another is named.
        minutes: For the whole training, if that is limited.
        config: A YAML file of some keys, or the keys themselves.
        changes: Keys that are laid over those.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        output: The YAML file to write; without it nothing is written.
        overwrite: Whether a file there is given up.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: What it is made for: "cpu", "cuda", "cuda:1", "mps"; unless given, a CUDA device if there is one.
        progress: Told per case.

    Returns:
        The plan; `changed` gives another one, `save` writes it.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If a key is unknown or its value not allowed, or there is no such device.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs, claim
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.planning import plan_folder
    from volseg.training.timing import StepTimer

    use_threads(threads)
    chosen = choose_device(device)
    given = PartialConfig.stated(config, changes, allow_gaps, network=network, training={"minutes": minutes})
    inputs, written = Inputs.of(data, config), [] if output is None else [Path(output)]
    claim(written, inputs, overwrite=overwrite)
    made = replace(plan_folder(Path(data), given, progress, StepTimer(chosen), chosen)[1], inputs=inputs)
    for path in written:
        made.save(path)
    return made


def train(  # noqa: PLR0913  each is an option of the command
    data: StrPath,
    output: StrPath,
    *,
    plan: Plan | None = None,
    config: StrPath | Changes | None = None,
    changes: Changes | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    target_dice: float | None = None,
    fold: int | str | None = None,
    start_from: StrPath | None = None,
    allow_gaps: bool = False,
    validate_all: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    began: float | None = None,
    threads: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress = ignore_progress,
    on_epoch_done: Callable[[Mapping[str, Any]], None] | None = None,
) -> Run:
    """Train a network; what is left open is planned.

    Under `torchrun` all processes call this and train one network together; the first of them writes.

    Args:
        data: A labelled data set in any layout, or a manifest.
        output: The run folder.
        plan: What `plan` returned.
        config: A YAML file of some or all keys, or the keys themselves, laid over the plan.
        changes: Keys that are laid over those.
        minutes: Time for the whole run.
        epochs: Rounds of `training.steps_per_epoch` steps.
        target_dice: Training ends as soon as validation reaches it.
        fold: Which fold is held out for validation, or "all", one network each.
        start_from: A run, a model or a file of weights to start with, as far as it fits.
        allow_gaps: Whether DICOM series with missing slices are bridged by interpolation.
        validate_all: Whether all held-out cases are scored at the end, even where that exceeds a tenth of `minutes`.
        resume: Go on with the interrupted run in `output`; where there is none, one begins, with a warning.
        overwrite: Whether files of the user's that lie where those of the run are to be are given up; never a run.
        began: `time.monotonic()` when `minutes` began to count; now, if it is left out.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: "cpu", "cuda", "cuda:1" (not under `torchrun`), "mps"; unless given, a CUDA device if there is one.
        progress: Told per case and per step.
        on_epoch_done: Gets the row of history.csv of each epoch.

    Returns:
        The finished run.

    Raises:
        VolsegError: In any of its kinds, for what can be wrong with data, configuration and output.
    """
    from volseg.config import PartialConfig
    from volseg.io.written import Inputs
    from volseg.model.devices import choose_device
    from volseg.parallel import use_threads
    from volseg.training.distributed import join_process_group, was_restarted
    from volseg.training.loop import ignore_epochs
    from volseg.training.run import train_folder

    use_threads(threads)
    chosen = choose_device(device)
    options: dict[str, Any] = {"minutes": minutes, "epochs": epochs, "target_dice": target_dice, "fold": fold}
    options |= {"start_from": None if start_from is None else str(start_from), "validate_all": validate_all or None}
    given = PartialConfig.stated(config, changes, allow_gaps, training=options)
    if plan is not None:
        given = given.laid_over_partial(plan.config.model_dump(mode="json"))
    with join_process_group(chosen) as group:
        return train_folder(
            Path(data),
            Path(output),
            given,
            resume=resume or was_restarted(),
            overwrite=overwrite,
            inputs=Inputs.of(data, config, start_from),
            progress=progress if group.is_leader else ignore_progress,
            on_epoch_done=on_epoch_done or ignore_epochs,
            group=group,
            began=began,
            device=chosen,
        )


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


def compare(first: StrPath, second: StrPath, output: StrPath, *, overwrite: bool = False) -> Comparison:
    """Compare two evaluations of the same references, case by case.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another, of the same references.
        output: Gets comparison.csv and differences.csv.
        overwrite: Whether files of these names in it are given up.

    Returns:
        The tables.

    Raises:
        DataError: If a folder holds no evaluation, or they are not of the same cases, labels and metrics.
        OutputError: If they cannot be written.
    """
    from volseg.evaluation import compare as compare_scores

    return compare_scores(Path(first), Path(second), Path(output), overwrite=overwrite)


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
    format: Format = "nifti",  # noqa: A002  what everybody calls it
    labels: StrPath | None = None,
    encoding: Encoding = "binary",
    allow_gaps: bool = False,
    overwrite: bool = False,
    geometry: GeometryChoice | None = None,
) -> Exported:
    """Write a mask in another format, exactly on the images it was made from; nothing is resampled.

    Args:
        mask: A label map, a DICOM Segmentation or an RT Structure Set.
        reference: The image it was made from: a file, or a folder that may hold several series.
        output: The file to write, or the folder for meshes.
        format: Of the output.
        labels: What the values mean; by default the labels.json beside the mask, else what the mask says itself.
        encoding: Of a DICOM Segmentation: "binary", or "labelmap".
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
    from volseg.config import PartialConfig
    from volseg.exporting import Export, parse_encoding, parse_formats
    from volseg.exporting import export as export_mask

    (form,) = parse_formats(format)
    paths, stated = (Path(mask), Path(reference), Path(output)), None if labels is None else Path(labels)
    rules = PartialConfig.stated(None, {"data.geometry": geometry}, allow_gaps).data
    return export_mask(Export(*paths, form, stated, parse_encoding(encoding), rules, overwrite))
