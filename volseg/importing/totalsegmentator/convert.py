"""Convert a task of TotalSegmentator to its models, each with labels numbered as in the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volseg.config import Config, validate
from volseg.errors import CheckpointError, ConfigError
from volseg.importing.nnunet.folder import read_folds
from volseg.importing.totalsegmentator.tasks import Task, find_task
from volseg.model.checkpoint import TrainedNetwork

#: Two voxel sizes with a smaller relative difference are equal.
_SAME_SPACING = 1e-3
_HINT = "name the folder of TotalSegmentator's weights, ~/.totalsegmentator/nnunet/results"

Folds = dict[str, TrainedNetwork]


@dataclass(frozen=True, eq=False)
class TaskModels:
    """The models of a task.

    Attributes:
        parts: The models whose masks are painted one over the other, each with its folds.
        coarse: The model that finds the region of interest; None if they see whole volumes.
        inside: Values of its labels.
        task: The task.
    """

    parts: tuple[Folds, ...]
    coarse: Folds | None
    inside: tuple[int, ...]
    task: Task


def read_task(folder: Path, name: str) -> TaskModels:
    """Read the models of a task.

    Args:
        folder: Of all weights.
        name: Of the task.

    Raises:
        CheckpointError: If there is no such task, one of its models is missing, or anything in one is not supported.
    """
    task = find_task(name)
    parts, first = [], 1
    for number in task.datasets:
        folds = _read(folder, number, task, first)
        parts.append(folds)
        first += len(next(iter(folds.values())).config.data.labels)
    if not task.coarse:
        return TaskModels(tuple(parts), None, (), task)
    before = find_task(task.coarse)
    coarse = _read(folder, before.datasets[0], before, 1)
    labels = next(iter(coarse.values())).config.data.labels
    if missing := [label for label in task.inside if label not in labels]:
        raise CheckpointError(
            f"task {name} looks around {missing[0]}, which dataset {before.datasets[0]} has no label for", hint=_HINT
        )
    return TaskModels(tuple(parts), coarse, tuple(labels[label] for label in task.inside), task)


def whole(models: TaskModels) -> Config:
    """Return the configuration of all parts together: that of the first, with the labels of all."""
    configs = [next(iter(folds.values())).config for folds in models.parts]
    labels = {name: value for config in configs for name, value in config.data.labels.items()}
    tree = configs[0].model_dump(mode="json")
    try:
        return validate({**tree, "data": {**tree["data"], "labels": labels}}, "the task")
    except ConfigError as error:
        raise CheckpointError(f"the labels of the parts conflict: {error}", hint=_HINT) from error


def _read(folder: Path, number: int, task: Task, first: int) -> Folds:
    """Read the folds of one model, with its labels numbered from `first` on."""
    found = [
        each
        for each in folder.glob(f"Dataset{number:03}_*/*__*__{task.configuration}")
        if (each / "plans.json").is_file()
    ]
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} holds {len(found)} models of dataset {number}, {task.configuration}, where one is needed",
            hint=_HINT,
        )
    folds, _ = read_folds(found[0], "RAS", (), None)
    return {name: _as_in_task(model, task, first, found[0]) for name, model in folds.items()}


def _as_in_task(model: TrainedNetwork, task: Task, first: int, folder: Path) -> TrainedNetwork:
    tree = model.config.model_dump(mode="json")
    labels: Mapping[str, int] = tree["data"]["labels"]
    values = sorted(labels.values())
    if model.config.data.regions or values != list(range(1, len(values) + 1)):
        raise CheckpointError(f"{folder}: the labels are not numbered from 1 without gaps", hint=_HINT)
    tree["data"]["labels"] = {name: first - 1 + value for name, value in labels.items()}
    tree["inference"] |= {"overlap": 1 - task.step, "mirror_axes": []}
    if task.spacing_mm is not None:
        tree["preprocessing"] |= _resampled(tree["preprocessing"]["spacing_mm"], task.spacing_mm, folder)
    return replace(model, config=validate(tree, str(folder)))


def _resampled(planned: list[float | None], spacing_mm: tuple[float, float, float], folder: Path) -> dict[str, Any]:
    """Return the resampling settings for the voxel size of a task, which is that of its plan."""
    for own, wanted in zip(planned, spacing_mm, strict=True):
        if own is None or abs(own - wanted) > _SAME_SPACING * wanted:
            raise CheckpointError(
                f"{folder}: its plan has voxels of {planned} mm, the task of {spacing_mm}", hint=_HINT
            )
    return {
        "spacing_mm": spacing_mm,
        "grid": "corners",
        "normalize": "after_resampling",
        "interpolation": "linear",
        "coarse_axis": "interpolated",
        "answers": "labels",
    }
