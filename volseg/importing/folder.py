"""A folder of another program's model -> a run of volseg."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from volseg.about import made_now, write_about
from volseg.cases.dataset_json import read_dataset_json
from volseg.config import Config, dump
from volseg.errors import CheckpointError
from volseg.importing.nnunet.checkpoint import Checkpoint, read_checkpoint
from volseg.importing.nnunet.convert import convert
from volseg.importing.nnunet.plans import configuration_of, read_plans
from volseg.io.files import write_text
from volseg.io.written import Inputs, claim
from volseg.model.checkpoint import TrainedNetwork, save
from volseg.model.files import FOLD_FOLDER, MODEL_FILE

_PLANS, _DATASET, _CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
_HINT = "name the folder that holds plans.json, dataset.json and fold_0"


def import_model(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    axes: str | None = None,
    folds: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Make a run of volseg from a model of nnU-Net v2, which gives the same masks; nothing in it is executed.

    Args:
        source: The folder that holds plans.json, dataset.json and fold_*/checkpoint_final.pth.
        output: The run folder.
        axes: Directions of the axes that the network was trained on, as "RAS" or "LPS"; "stored" takes them as files
            have them. Unless given, what the plan says: as stored, unless its reader turns images.
        folds: Those to take, as "0" or "all"; every one there is unless given.
        overwrite: Whether files there are given up that volseg did not write.

    Returns:
        The run folder, which `volseg.load` takes.

    Raises:
        CheckpointError: If there is no such model, or anything in it is not understood.
        OutputError: If the run cannot be written.
    """
    folder = Path(source)
    models = _read(folder, axes or "", folds)
    run = Path(output)
    places = {
        name: run / MODEL_FILE if len(models) == 1 else run / f"{FOLD_FOLDER}{n}" / MODEL_FILE
        for n, name in enumerate(models)
    }
    config_file = run / "config.yaml"
    claim([*places.values(), config_file], Inputs.of(folder), overwrite=overwrite)
    for name, model in models.items():
        save(places[name], {"weights": dict(model.weights), "config": dump(model.config), "origin": f"nnU-Net, {name}"})
    write_text(config_file, dump(next(iter(models.values())).config))
    write_about((*made_now(), ("imported from", "nnU-Net v2"), ("folds", ", ".join(models))), run)
    return run


def _read(folder: Path, axes: str, folds: Sequence[str]) -> dict[str, TrainedNetwork]:
    """The name of each fold -> its model."""
    for name in (_PLANS, _DATASET):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no model of nnU-Net: it has no {name}", hint=_HINT)
    plans, dataset = read_plans(folder / _PLANS), read_dataset_json(folder / _DATASET)
    models = {}
    for name in [f"fold_{fold}" for fold in folds] or _all_folds(folder):
        path = folder / name / _CHECKPOINT
        if not path.is_file():
            raise CheckpointError(
                f"{folder}: {name} has no {_CHECKPOINT}",
                hint="finish its training, or name the folds to take: --fold 0",
            )
        checkpoint = read_checkpoint(path)
        wanted = configuration_of(plans, _configuration(checkpoint, folder), folder / _PLANS)
        models[name] = convert(plans, wanted, dataset, checkpoint, axes, str(path))
    _check_alike(models, folder)
    return models


def _all_folds(folder: Path) -> list[str]:
    """Those that there are.

    Raises:
        CheckpointError: If there are none.
    """
    found = sorted(path.name for path in folder.glob("fold_*") if path.is_dir())
    if not found:
        raise CheckpointError(f"{folder} is no model of nnU-Net: it has no fold_0", hint=_HINT)
    return found


def _configuration(checkpoint: Checkpoint, folder: Path) -> str:
    """Which configuration of the plan was trained: as the checkpoint says, else as the name of the folder ends."""
    return checkpoint.configuration or folder.name.rpartition("__")[2]


def _check_alike(models: dict[str, TrainedNetwork], folder: Path) -> None:
    """Refuse folds that are not of one plan, since their logits are averaged."""
    configs: list[Config] = [model.config for model in models.values()]
    if any(config != configs[0] for config in configs):
        raise CheckpointError(f"the folds of {folder} differ in more than their weights", hint="import each by itself")
