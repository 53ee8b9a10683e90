"""Locations of the model files of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.io.json_files import read_json

MODEL_FILE = "model.pt"
#: Prefix of a fold's folder in a run that trains all folds; its number follows.
FOLD_FOLDER = "fold_"
#: In the run of a cascade: the run of the previous networks.
PREVIOUS_FOLDER = "previous"
#: In the run of a model made of parts: a run for each, by number, and that of the model that finds their region.
PARTS_FOLDER, COARSE_FOLDER = "parts", "coarse"


#: Beside the runs of several kinds of networks: which of them were chosen.
CHOICE_FILE = "choice.json"


def model_files(path: Path) -> list[Path]:
    """Return the model files of a path, a file or a run folder: one, one for each fold, or those that were chosen.

    Raises:
        DataError: If a choice is damaged.
    """
    if not path.is_dir():
        return [path]
    if (path / CHOICE_FILE).is_file():
        chosen = read_json(path / CHOICE_FILE, _chosen, "names no models", "train again, or name one of the runs in it")
        return [file for name in chosen for file in model_files(path / name)]
    folds = sorted(path.glob(f"{FOLD_FOLDER}*"), key=lambda folder: (len(folder.name), folder))
    return [folder / MODEL_FILE for folder in folds or [path]]


def previous_folder(file: Path) -> Path:
    """Return the folder of the previous networks of a cascade: in its run, which may have folders for its folds."""
    run = file.parent.parent if file.parent.name.startswith(FOLD_FOLDER) else file.parent
    return run / PREVIOUS_FOLDER


def _chosen(content: Any) -> list[str]:
    names = [str(name) for name in content["models"]]
    if not names or any(Path(name).name != name or name in {"", ".", ".."} for name in names):
        raise ValueError("a model is a folder beside it")
    return names
