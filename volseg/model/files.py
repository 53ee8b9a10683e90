"""Where the models of a run lie."""

from __future__ import annotations

from pathlib import Path

MODEL_FILE = "model.pt"
#: Followed by the number of a fold: its folder in a run that trains all.
FOLD_FOLDER = "fold_"
#: In the run of a cascade: the run of the networks before it.
PREVIOUS_FOLDER = "previous"
#: In the run of a model made of parts: a run for each, by number, and that of the model that finds where they look.
PARTS_FOLDER, COARSE_FOLDER = "parts", "coarse"


def model_files(path: Path) -> list[Path]:
    """The model files that a file or a run folder stands for: one, or one for each fold."""
    if not path.is_dir():
        return [path]
    folds = sorted(path.glob(f"{FOLD_FOLDER}*"), key=lambda folder: (len(folder.name), folder))
    return [folder / MODEL_FILE for folder in folds or [path]]


def previous_folder(file: Path) -> Path:
    """Where the networks before that of a model file lie: in its run, which may have folders for its folds."""
    run = file.parent.parent if file.parent.name.startswith(FOLD_FOLDER) else file.parent
    return run / PREVIOUS_FOLDER
