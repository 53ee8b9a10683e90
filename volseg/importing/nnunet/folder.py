"""Read a model folder of nnU-Net: one model for each fold and, for a cascade, the previous networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from volseg.cases.dataset_json import read_dataset_json
from volseg.errors import CheckpointError
from volseg.importing.nnunet.checkpoint import Checkpoint, read_checkpoint
from volseg.importing.nnunet.convert import convert
from volseg.importing.nnunet.plans import configuration_of, read_plans
from volseg.model.checkpoint import TrainedNetwork

_PLANS, _DATASET, _CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
_HINT = "name the folder that holds plans.json, dataset.json and fold_0"


def read_folds(
    folder: Path, axes: str, folds: Sequence[str], previous: Path | None
) -> tuple[dict[str, TrainedNetwork], dict[str, TrainedNetwork]]:
    """Read a model folder.

    Args:
        folder: Holds plans.json, dataset.json and fold_*/checkpoint_final.pth.
        axes: Directions of the axes, or "stored", or "" for those of the plan.
        folds: Folds to read, such as "0" or "all"; by default every fold there is.
        previous: For a cascade, the folder of the previous networks; by default the one beside `folder`.

    Returns:
        Fold name -> model; and the same for the previous networks, empty if it is not a cascade.

    Raises:
        CheckpointError: If there is no such model, or anything in it is not supported.
    """
    models, stage = _read(folder, axes, folds)
    if stage is None:
        return models, {}
    beside = folder.parent / f"{folder.name.rpartition('__')[0]}__{stage}"
    return models, _read_previous(folder, stage, beside if previous is None else previous, axes, folds)


def _read_previous(
    folder: Path, stage: str, earlier: Path, axes: str, folds: Sequence[str]
) -> dict[str, TrainedNetwork]:
    """Read the previous networks of a cascade.

    Args:
        folder: Of the cascade.
        stage: Configuration of the previous networks.
        earlier: Their folder.
        axes: As for all.
        folds: As for all.

    Raises:
        CheckpointError: If they are missing, or belong to a cascade themselves.
    """
    if not earlier.is_dir():
        raise CheckpointError(
            f"{folder} is the second stage of a cascade, but the first stage, {stage}, is not at {earlier}",
            hint="name its folder: --previous FOLDER",
        )
    models, before = _read(earlier, axes, folds)
    if before is not None:
        raise CheckpointError(f"{earlier} is itself the second stage of a cascade, and cannot be the first", hint=_HINT)
    return models


def _read(folder: Path, axes: str, folds: Sequence[str]) -> tuple[dict[str, TrainedNetwork], str | None]:
    """Return fold name -> model and, for a cascade, the configuration of the previous networks."""
    for name in (_PLANS, _DATASET):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is not a model of nnU-Net: it has no {name}", hint=_HINT)
    plans, dataset = read_plans(folder / _PLANS), read_dataset_json(folder / _DATASET)
    models, stage = {}, None
    for name in _folds(folder, folds):
        path = folder / name / _CHECKPOINT
        checkpoint = read_checkpoint(path)
        wanted = configuration_of(plans, _configuration(checkpoint, folder), folder / _PLANS)
        models[name], stage = convert(plans, wanted, dataset, checkpoint, axes, str(path)), wanted.previous_stage
    if any(model.config != next(iter(models.values())).config for model in models.values()):
        raise CheckpointError(f"the folds of {folder} differ in more than their weights", hint="import each by itself")
    return models, stage


def _folds(folder: Path, stated: Sequence[str]) -> list[str]:
    """Return the folders of the given folds, or of all there are.

    Raises:
        CheckpointError: If there are none, or one has no checkpoint.
    """
    names = [f"fold_{fold}" for fold in stated]
    names = names or sorted(path.name for path in folder.glob("fold_*") if path.is_dir())
    if not names:
        raise CheckpointError(f"{folder} is not a model of nnU-Net: it has no fold_0", hint=_HINT)
    for name in names:
        if not (folder / name / _CHECKPOINT).is_file():
            raise CheckpointError(
                f"{folder}: {name} has no {_CHECKPOINT}", hint="finish its training, or choose others: --fold 0"
            )
    return names


def _configuration(checkpoint: Checkpoint, folder: Path) -> str:
    """Return the configuration that was trained: as stated in the checkpoint, else by the end of the folder's name."""
    return checkpoint.configuration or folder.name.rpartition("__")[2]
