"""A folder of another program's model -> a run of volseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from volseg.about import made_now, write_about
from volseg.cases.dataset_json import read_dataset_json
from volseg.config import dump
from volseg.errors import CheckpointError
from volseg.importing.nnunet.checkpoint import Checkpoint, read_checkpoint
from volseg.importing.nnunet.convert import convert
from volseg.importing.nnunet.plans import configuration_of, read_plans
from volseg.io.files import write_text
from volseg.io.written import Inputs, claim
from volseg.model.checkpoint import TrainedNetwork, save
from volseg.model.files import FOLD_FOLDER, MODEL_FILE, PREVIOUS_FOLDER

_PLANS, _DATASET, _CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
_HINT = "name the folder that holds plans.json, dataset.json and fold_0"


def import_model(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    axes: str | None = None,
    folds: Sequence[str] = (),
    previous: str | PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a run of volseg from a model of nnU-Net v2, which gives the same masks; nothing in it is executed.

    Args:
        source: The folder that holds plans.json, dataset.json and fold_*/checkpoint_final.pth.
        output: The run folder.
        axes: Directions of the axes that the network was trained on, as "RAS" or "LPS"; "stored" takes them as files
            have them. Unless given, what the plan says: as stored, unless its reader turns images.
        folds: Those to take, as "0" or "all"; every one there is unless given.
        previous: Of a cascade the folder of the networks before; unless given, the one beside `source`.
        overwrite: Whether files there are given up that volseg did not write.

    Returns:
        The run folder, which `volseg.load` takes.

    Raises:
        CheckpointError: If there is no such model, or anything in it is not understood.
        OutputError: If the run cannot be written.
    """
    folder, run = Path(source), Path(output)
    models, stage = _read(folder, axes or "", folds)
    earlier: dict[str, TrainedNetwork] = {}
    if stage is not None:
        beside = folder.parent / f"{folder.name.rpartition('__')[0]}__{stage}"
        earlier = _read_previous(folder, stage, beside if previous is None else Path(previous), axes or "", folds)
    places = _places(models, run) | _places(earlier, run / PREVIOUS_FOLDER)
    config_file = run / "config.yaml"
    claim([*places, config_file], Inputs.of(folder), overwrite=overwrite)
    for place, model in places.items():
        save(place, {"weights": dict(model.weights), "config": dump(model.config)})
    write_text(config_file, dump(_first(models).config))
    write_about((*made_now(), ("imported from", "nnU-Net v2"), ("folds", ", ".join(models))), run)
    return run


def _first(models: Mapping[str, TrainedNetwork]) -> TrainedNetwork:
    return next(iter(models.values()))


def _places(models: Mapping[str, TrainedNetwork], run: Path) -> dict[Path, TrainedNetwork]:
    """The file of each fold in a run."""
    if len(models) == 1:
        return {run / MODEL_FILE: _first(models)}
    return {run / f"{FOLD_FOLDER}{n}" / MODEL_FILE: model for n, model in enumerate(models.values())}


def _read_previous(
    folder: Path, stage: str, earlier: Path, axes: str, folds: Sequence[str]
) -> dict[str, TrainedNetwork]:
    """The networks before those of a cascade.

    Args:
        folder: Of the cascade.
        stage: The configuration of those before.
        earlier: Where they are.
        axes: As for all.
        folds: As for all.

    Raises:
        CheckpointError: If they are not there, or are of a cascade themselves.
    """
    if not earlier.is_dir():
        raise CheckpointError(
            f"{folder} is the second network of a cascade, and the first, {stage}, is not at {earlier}",
            hint="name its folder: --previous FOLDER",
        )
    models, before = _read(earlier, axes, folds)
    if before is not None:
        raise CheckpointError(f"{earlier} is of a cascade, too, and cannot be the first of one", hint=_HINT)
    return models


def _read(folder: Path, axes: str, folds: Sequence[str]) -> tuple[dict[str, TrainedNetwork], str | None]:
    """The name of each fold -> its model; and of a cascade the configuration of the networks before."""
    for name in (_PLANS, _DATASET):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no model of nnU-Net: it has no {name}", hint=_HINT)
    plans, dataset = read_plans(folder / _PLANS), read_dataset_json(folder / _DATASET)
    models, stage = {}, None
    for name in _folds(folder, folds):
        path = folder / name / _CHECKPOINT
        checkpoint = read_checkpoint(path)
        wanted = configuration_of(plans, _configuration(checkpoint, folder), folder / _PLANS)
        models[name], stage = convert(plans, wanted, dataset, checkpoint, axes, str(path)), wanted.previous_stage
    if any(model.config != _first(models).config for model in models.values()):
        raise CheckpointError(f"the folds of {folder} differ in more than their weights", hint="import each by itself")
    return models, stage


def _folds(folder: Path, stated: Sequence[str]) -> list[str]:
    """The folders of the folds that are stated, or of all there are.

    Raises:
        CheckpointError: If there are none, or one has no checkpoint.
    """
    names = [f"fold_{fold}" for fold in stated]
    names = names or sorted(path.name for path in folder.glob("fold_*") if path.is_dir())
    if not names:
        raise CheckpointError(f"{folder} is no model of nnU-Net: it has no fold_0", hint=_HINT)
    for name in names:
        if not (folder / name / _CHECKPOINT).is_file():
            raise CheckpointError(
                f"{folder}: {name} has no {_CHECKPOINT}", hint="finish its training, or name those to take: --fold 0"
            )
    return names


def _configuration(checkpoint: Checkpoint, folder: Path) -> str:
    """Which configuration of the plan was trained: as the checkpoint says, else as the name of the folder ends."""
    return checkpoint.configuration or folder.name.rpartition("__")[2]
