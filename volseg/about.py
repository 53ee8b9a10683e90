"""What made a folder of results, in words: about.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from volseg.config import Config
from volseg.io.json_files import read_json, write_json
from volseg.version import __version__

ABOUT_FILE = "about.json"

#: Pairs of name and value; neither names a patient or a path.
Facts = tuple[tuple[str, str], ...]


def made_now() -> Facts:
    """Versions and day."""
    return (
        ("volseg", f"{__version__}, torch {version('torch')}, MONAI {version('monai')}"),
        ("made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    )


def facts_of_models(files: Sequence[Path]) -> Facts:
    """Which models these are, by what is in them."""
    return tuple((f"model {number}", hash_of(file)) for number, file in enumerate(files, start=1) if file.is_file())


def facts_of_config(config: Config) -> Facts:
    """What a person asks first about a training."""
    training = config.training
    sizes = config.preprocessing.spacing_mm
    spacing = " x ".join("as it is" if size is None else f"{size:g}" for size in sizes) + " mm"
    grid = "pixel by pixel" if config.data.unit == "px" else spacing
    limits = {"minutes": training.minutes, "epochs": training.epochs, "target Dice": training.target_dice}
    return (
        ("network", config.network.name),
        ("channels", ", ".join(config.data.channels)),
        ("labels", ", ".join(label.name for label in config.data.output_labels)),
        ("voxel size", grid),
        ("patches", f"{' x '.join(map(str, config.patches.size))}, {training.batch_size} in a step"),
        ("loss, optimizer", f"{config.loss.name}, {training.optimizer}, learning rate {training.learning_rate:g}"),
        *((name, f"{value:g}") for name, value in limits.items() if value is not None),
        ("seed", str(training.seed)),
    )


def hash_of(file: Path) -> str:
    """The first digits of a file's SHA-256, by which two models can be told apart."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def write_about(facts: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write `about.json`, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(folder / ABOUT_FILE, facts)


def read_about(folder: Path) -> Facts:
    """What made the results in a folder; nothing where it does not say.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / ABOUT_FILE
    if not path.is_file():
        return ()
    return read_json(path, _facts, "is damaged", hint="delete it, or make the results again")


def _facts(pairs: Sequence[Sequence[object]]) -> Facts:
    return tuple((str(name), str(value)) for name, value in pairs)
