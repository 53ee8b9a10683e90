"""The page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from volseg.about import facts_of_config, facts_of_models, read_about
from volseg.cases import read_splits
from volseg.config import read_config
from volseg.evaluation.summary import MEAN_ROW
from volseg.io.tables import read_table
from volseg.model.files import FOLD_FOLDER, model_files
from volseg.reporting.gallery import colors_of
from volseg.reporting.page import Number, Report, Tile
from volseg.training.files import CONFIG_FILE, HISTORY_FILE, NOT_USED_FILE, SPLITS_FILE, VALIDATION_FILE

if TYPE_CHECKING:
    import pandas as pd


def page_of_training(folder: Path) -> Report:
    """Build the page of a run.

    Raises:
        DataError: If its tables are damaged.
        ConfigError: If its configuration is.
    """
    import pandas as pd

    validation = read_table(folder / VALIDATION_FILE)
    rows = validation if "views" not in validation else validation[validation["views"] != 0].drop(columns="views")
    rows = rows.assign(status="validated")
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
            Tile("validation cases", str(rows["case_id"].nunique())),
            Tile("networks trained", str(len(trained))),
        ),
        facts=(
            *read_about(folder).lines,
            *facts_of_models(model_files(folder)),
            *facts_of_config(config),
            ("training cases", ", ".join(str(len(split.train)) for split in trained)),
            ("files not used", str(len(read_table(folder / NOT_USED_FILE)))),
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
        policy="Each validation case was scored by the network of its fold, which was not trained on it.",
        colors=colors_of(config.data.output_labels, {}),
        history=pd.concat([_history(file) for file in _histories(folder)], ignore_index=True),
        no_pictures="Nothing is drawn of a training's cases: predict them, and evaluate with --report.",
    )


def _histories(folder: Path) -> list[Path]:
    """Return the history of the network, or that of each fold's network."""
    folds = sorted(folder.glob(f"{FOLD_FOLDER}*/{HISTORY_FILE}"))
    return folds or [folder / HISTORY_FILE]


def _history(file: Path) -> pd.DataFrame:
    name = file.parent.name
    return read_table(file).assign(fold=name if name.startswith(FOLD_FOLDER) else "")
