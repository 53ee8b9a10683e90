"""What a folder of results has to show, gathered into its report.

Drawing a case needs its image and masks, so that is done while they are known and kept in `pictures/`; the page can
then be made again from the folder alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from volseg.cases import Split, read_splits
from volseg.checkpoint import FOLD_FOLDER, model_files
from volseg.config import Config, read_config
from volseg.errors import DataError
from volseg.evaluation import CasePair, Evaluation, Protocol, read_pair
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE, SUMMARY_FILE
from volseg.evaluation.summary import MEAN_ROW
from volseg.io import Source, read_volume
from volseg.io.files import make_folder, write_text
from volseg.parallel import side_by_side
from volseg.progress import Progress, silent
from volseg.provenance import Facts, hash_of, made_now, read_about, write_about
from volseg.report import Number, Picture, Report, Slice, Surface, Tile, draw, write_report
from volseg.runs import CONFIG_FILE, SPLITS_FILE
from volseg.training.record import HISTORY_FILE, VALIDATION_FILE

PICTURES_FOLDER = "pictures"
#: The worst cases are drawn, so that a page of many cases still fits into a mail.
_MOST_PICTURES = 60
#: What the tables of a page show of all that was measured, where it was.
_SHOWN = ("dice", "hd95_mm", "assd_mm", "nsd", "volume_difference_ml", "lesion_f1", "centerline_dice", "auroc")
_MEANS = ("dice_mean", "hd95_mm_mean", "assd_mm_mean", "nsd_mean", "volume_difference_ml_mean")

logger = logging.getLogger(__name__)


def report_evaluation(
    evaluation: Evaluation,
    pairs: Sequence[CasePair],
    protocol: Protocol,
    images: Mapping[str, Source],
    predicted_by: Facts = (),
    progress: Progress = silent,
) -> Path:
    """Draw the worst cases of an evaluation and write its report.

    Args:
        evaluation: What was measured.
        pairs: Its cases.
        protocol: How they were evaluated.
        images: Case id -> its image, as far as they are known.
        predicted_by: What made the predictions.
        progress: Told per case.

    Returns:
        report.html, beside the tables.

    Raises:
        OutputError: If it cannot be written.
    """
    failed = {failure.case_id for failure in evaluation.failures}
    worst = evaluation.metrics.groupby("case_id")["dice"].min().sort_values(kind="stable")
    chosen = [str(case_id) for case_id in worst.index if case_id not in failed][:_MOST_PICTURES]
    known = {pair.case_id: pair for pair in pairs}
    make_folder(evaluation.folder / PICTURES_FOLDER)
    pictures = side_by_side(lambda case_id: _drawn(known[case_id], protocol, images.get(case_id)), chosen)
    for done, (case_id, picture) in enumerate(zip(chosen, pictures, strict=True), start=1):
        if picture is not None:
            write_text(_picture_file(evaluation.folder, case_id), json.dumps(asdict(picture), separators=(",", ":")))
        progress("draw", done, len(chosen), case_id)
    write_about((*made_now(), *_facts(evaluation, protocol), *predicted_by), evaluation.folder)
    return report_folder(evaluation.folder)


def report_folder(folder: Path) -> Path:
    """Write the report of a folder of results from what it holds.

    Args:
        folder: What `volseg evaluate` or `volseg train` wrote.

    Returns:
        report.html in it.

    Raises:
        DataError: If it holds no results, or damaged ones.
        OutputError: If it cannot be written.
    """
    if (folder / METRICS_FILE).is_file():
        return write_report(_of_evaluation(folder), folder)
    if (folder / VALIDATION_FILE).is_file():
        return write_report(_of_run(folder), folder)
    raise DataError(f"{folder} holds no results to report", hint="name a finished run, or what `volseg evaluate` wrote")


def _facts(evaluation: Evaluation, protocol: Protocol) -> Facts:
    """How many cases were evaluated, and how."""
    conventions = protocol.conventions
    return (
        ("cases", str(evaluation.metrics["case_id"].nunique())),
        ("labels", ", ".join(f"{label.name} ({label.value})" for label in protocol.labels)),
        ("HD95", conventions.hd95.replace("_", " ")),
        (
            "NSD",
            f"{conventions.nsd.replace('_', ' ')}, at {', '.join(f'{mm:g}' for mm in conventions.tolerances_mm)} mm",
        ),
    )


def _drawn(pair: CasePair, protocol: Protocol, image: Source | None) -> Picture | None:
    """A picture of a case that was scored; None, said aloud, where its image does not go with it."""
    reference, prediction = read_pair(pair, protocol)
    try:
        return draw(reference, prediction, None if image is None else read_volume(image))
    except DataError as error:
        logger.warning("not drawn: %s: %s", pair.case_id, error)
        return None


def _picture_file(folder: Path, case_id: str) -> Path:
    return folder / PICTURES_FOLDER / f"{case_id}.json"


def _pictures(folder: Path, case_ids: Sequence[str]) -> dict[str, Picture]:
    found = {}
    for case_id in case_ids:
        path = _picture_file(folder, case_id)
        if path.is_file():
            found[case_id] = _picture(path)
    return found


def _picture(path: Path) -> Picture:
    try:
        tree = json.loads(path.read_text("utf-8"))
        slices = tuple(Slice(**cut) for cut in tree["slices"])
        surfaces = (None if tree[side] is None else Surface(**tree[side]) for side in ("reference", "prediction"))
        return Picture(slices, *surfaces)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}", hint="delete it, or evaluate again") from error


def _of_evaluation(folder: Path) -> Report:
    rows = _table(folder / METRICS_FILE)
    summary = _table(folder / SUMMARY_FILE)
    definitions = _table(folder / STATISTICS_FILE).drop_duplicates("metric")
    numbers = tuple(
        Number(str(row["metric"]), str(row["definition"]), str(row["better"])) for row in definitions.to_dict("records")
    )
    cases = sorted(set(rows["case_id"]))
    return Report(
        kind="Evaluation",
        title=f"{len(cases)} cases, {rows['label'].nunique()} labels",
        tiles=_tiles(summary),
        facts=read_about(folder),
        rows=rows,
        numbers=numbers,
        table=tuple(name for name in _SHOWN if name in rows.columns),
        sort="dice",
        summary=summary,
        means=tuple(name for name in _MEANS if name in summary.columns),
        policy=str(summary["policy"].iloc[0]),
        pictures=_pictures(folder, cases),
        no_pictures="Only the worst cases that could be read are drawn, by volseg evaluate --report.",
    )


def _of_run(folder: Path) -> Report:
    rows = _table(folder / VALIDATION_FILE).assign(status="validated")
    config = read_config(folder / CONFIG_FILE)
    splits = read_splits(folder / SPLITS_FILE)
    trained = splits if config.training.fold == "all" else [splits[config.training.fold]]
    dice = rows.groupby("label", sort=False)["dice"].agg(["size", "mean"]).reset_index()
    summary = dice.set_axis(["label", "scored", "dice_mean"], axis=1)
    overall = {"label": MEAN_ROW, "scored": len(rows), "dice_mean": summary["dice_mean"].mean()}
    tried = [name for name in rows.columns if name.startswith("dice_")]
    return Report(
        kind="Training",
        title=f"{config.network.name}, {', '.join(config.data.labels)}",
        tiles=(
            Tile("validation Dice", f"{overall['dice_mean']:.3f}"),
            Tile("cases held out", str(rows["case_id"].nunique())),
            Tile("networks trained", str(len(trained))),
        ),
        facts=(*_of_models(folder), *_of_config(config), ("cases that taught", _counts(trained))),
        rows=rows,
        numbers=(
            Number("dice", "2 tp / (2 tp + fp + fn), at the network's voxel size", "higher"),
            *(Number(name, f"Dice with {name.removeprefix('dice_').replace('_', ' ')}", "higher") for name in tried),
        ),
        table=("dice", *tried),
        sort="dice",
        summary=pd.concat([summary, pd.DataFrame([overall])], ignore_index=True),
        means=("dice_mean",),
        policy="Every held-out case by the network that never saw it.",
        history=pd.concat([_history(file.parent) for file in model_files(folder)], ignore_index=True),
        no_pictures="Nothing is drawn of a training's cases: predict them, and evaluate with --report.",
    )


def _history(folder: Path) -> pd.DataFrame:
    return _table(folder / HISTORY_FILE).assign(fold=folder.name if folder.name.startswith(FOLD_FOLDER) else "")


def _of_models(run: Path) -> Facts:
    """Which models a run made."""
    return tuple((f"model {file.parent.name}", hash_of(file)) for file in model_files(run) if file.is_file())


def _of_config(config: Config) -> Facts:
    """What a person asks first about a training."""
    training = config.training
    spacing = " x ".join(f"{size:g}" for size in config.preprocessing.spacing_mm)
    limits = {"minutes": training.minutes, "epochs": training.epochs, "target Dice": training.target_dice}
    return (
        ("network", config.network.name),
        ("channels", ", ".join(config.data.channels)),
        ("voxel size", f"{spacing} mm"),
        ("patches", f"{' x '.join(map(str, config.patches.size))}, {training.batch_size} in a step"),
        ("loss, optimizer", f"{config.loss.name}, {training.optimizer}, learning rate {training.learning_rate:g}"),
        *((name, f"{value:g}") for name, value in limits.items() if value is not None),
        ("seed", str(training.seed)),
    )


def _counts(splits: Sequence[Split]) -> str:
    return ", ".join(str(len(split.train)) for split in splits)


def _tiles(summary: pd.DataFrame) -> tuple[Tile, ...]:
    """What is seen first: the mean of the labels' means, and everything that went wrong."""
    overall = summary[summary["label"] == MEAN_ROW].iloc[-1]
    wrong = [name for name in ("missed", "false_alarm", "not_predicted", "failed") if overall[name]]
    return (
        Tile("mean Dice", f"{overall['dice_mean']:.3f}"),
        Tile("mean HD95", f"{overall['hd95_mm_mean']:.2f} mm"),
        Tile("mean NSD", f"{overall['nsd_mean']:.3f}"),
        Tile("structures scored", f"{overall['scored']:.0f}"),
        *(Tile(name.replace("_", " "), f"{overall[name]:.0f}", alarm=True) for name in wrong),
    )


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"case_id": str, "label": str, "reason": str})
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no table of results: {error}") from error
