"""Where the models of a run lie."""

from __future__ import annotations

from pathlib import Path

MODEL_FILE = "model.pt"
#: Followed by the number of a fold: its folder in a run that trains all.
FOLD_FOLDER = "fold_"


def model_files(path: Path) -> list[Path]:
    """The model files that a file or a run folder stands for: one, or one for each fold."""
    if not path.is_dir():
        return [path]
    folds = sorted(path.glob(f"{FOLD_FOLDER}*"), key=lambda folder: (len(folder.name), folder))
    return [folder / MODEL_FILE for folder in folds or [path]]
