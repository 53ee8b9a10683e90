"""The page of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from volseg.cases import Split, read_splits
from volseg.checkpoint import FOLD_FOLDER, model_files
from volseg.config import Config, read_config
from volseg.evaluation.summary import MEAN_ROW
from volseg.provenance import Facts, hash_of
from volseg.report import Number, Report, Tile
from volseg.reporting.gallery import read_table
from volseg.runs import CONFIG_FILE, SPLITS_FILE
from volseg.training.record import HISTORY_FILE, VALIDATION_FILE


def page_of_training(folder: Path) -> Report:
    """What a run has to show.

    Raises:
        DataError: If its tables are damaged.
        ConfigError: If its configuration is.
    """
    rows = read_table(folder / VALIDATION_FILE).assign(status="validated")
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
        facts=(
            *facts_of_models(model_files(folder)),
            *facts_of_config(config),
            ("cases that taught", _counts(trained)),
        ),
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
    return read_table(folder / HISTORY_FILE).assign(fold=folder.name if folder.name.startswith(FOLD_FOLDER) else "")


def facts_of_models(files: Sequence[Path]) -> Facts:
    """Which models these are, by what is in them."""
    return tuple((f"model {number}", hash_of(file)) for number, file in enumerate(files, start=1) if file.is_file())


def facts_of_config(config: Config) -> Facts:
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
