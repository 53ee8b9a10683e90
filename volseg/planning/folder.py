"""A folder of labelled scans in, a plan for it out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from volseg.cases import Dataset, choose_splits, find_dataset
from volseg.cases.stated_names import refuse_unclear_values, tell_of_names
from volseg.config import NetworkName, PartialConfig, PreprocessingRules, TrainingConfig
from volseg.model.checkpoint import load_weights
from volseg.model.devices import choose_device
from volseg.planning.fingerprint import Look, fingerprint_of, look_at_cases, told
from volseg.planning.machine import this_machine
from volseg.planning.plan import Plan
from volseg.planning.rules import by_width, make_plan
from volseg.planning.topology import check_patch
from volseg.planning.trials import FEWEST_VOXELS, StepTimer, fit_to_time, tell_time, voxels_in_time
from volseg.progress import Progress, ignore_progress

#: A run that starts from another learns more slowly than that by this factor, so as not to forget.
_FINE_TUNING = 0.3
_NETWORK: NetworkName = "dynunet"


def plan_folder(
    data: Path,
    given: PartialConfig,
    progress: Progress = ignore_progress,
    timer: StepTimer | None = None,
    device: torch.device | None = None,
) -> tuple[Dataset, Plan]:
    """Plan a configuration for a data set.

    Args:
        data: A labelled data set in any layout.
        given: Keys that are decided already; the plan fits itself to the labels and the network they name.
        progress: Told per case.
        timer: Times a step of a network; without it, or where epochs are given, the usual network is taken.
        device: Where training will run; on a CUDA device, if there is one and none is named.

    Returns:
        The data set, and the plan for it with the given keys laid over it.

    Raises:
        DataError: If there is no labelled case, or the cases are not all of one modality and nobody said what they are.
        ConfigError: If the keys do not go with each other or with what is planned.
        CheckpointError: If training is to start from a model that is not there.
    """
    given = with_inherited(given)
    dataset = find_dataset(data, given.data, progress)
    with closing(look_at_cases(dataset, given.data, progress)) as looks:
        plan = plan_dataset(dataset, told(looks), given, timer, device)
    if plan.outlook:
        progress("plan", 1, 1, plan.outlook)
    return dataset, plan


def plan_dataset(
    dataset: Dataset,
    looks: Iterable[Look],
    given: PartialConfig,
    timer: StepTimer | None = None,
    device: torch.device | None = None,
) -> Plan:
    """Plan a configuration for cases that are looked at, or were.

    Args:
        dataset: Labelled cases.
        looks: What came of looking at each.
        given: Keys that are decided already.
        timer: Times a step of a network; without it, or where epochs are given, the usual network is taken.
        device: Where training will run; on a CUDA device, if there is one and none is named.

    Raises:
        DataError: If no case can be used, nothing says what their labels are, or they are not all of one modality.
        ConfigError: If the keys do not go with each other, the cases, or what is planned.
    """
    if given.data.labels is None:
        refuse_unclear_values(dataset.cases)
    tell_of_names(dataset.cases, given.data.labels or dataset.labels)
    machine = this_machine(choose_device(device))
    make = partial(
        make_plan,
        fingerprint_of(dataset, looks, given.data),
        given.network.name or _NETWORK,
        machine,
        given.preprocessing.spacing_mm,
        given.data.modality,
        given.training.optimizer,
        given_axes=given.preprocessing.axes if given.states("preprocessing.axes") else None,
        planes=given.patches.planes or given.network.neighbors > 0,
        neighbors=given.network.neighbors,
    )
    plan = make()
    if timer and not given.states("training.epochs"):
        stated = given.laid_over(plan.config)
        check_patch(stated)
        timer, minutes = _timer_with(given, timer), _minutes_per_network(given.training, dataset)
        if minutes is None:
            plan = tell_time(plan, stated.training.default_steps, timer)
        else:
            small = make(most_voxels=FEWEST_VOXELS)
            if small.config.patches != plan.config.patches and not given.states("patches.size"):
                plan = make(most_voxels=voxels_in_time(small.config, timer, minutes))
            widths = by_width(given.laid_over(plan.config), machine)
            plan = fit_to_time(plan, widths, machine.alternatives, timer, minutes)
    return replace(plan, dataset=dataset).with_given(given)


def _timer_with(given: PartialConfig, timer: StepTimer) -> StepTimer:
    """A timer of what a plan becomes with the given keys."""
    return lambda config: timer(given.laid_over(config))


def with_inherited(given: PartialConfig) -> PartialConfig:
    """The keys that are decided, with those of the model that training starts from below them.

    Raises:
        CheckpointError: If training is to start from a model that is not there.
        ConfigError: If the keys of the network are not its own.
    """
    given = given.laid_over_partial(_inherited(given.training))
    given.network.check_keys(given.network.name or _NETWORK)
    return given


def _inherited(training: TrainingConfig) -> dict[str, Any]:
    """What a run that starts from another has from it: weights know one network and one voxel size."""
    if training.start_from is None:
        return {}
    _, config = load_weights(Path(training.start_from))
    if config is None:
        return {}
    tree = config.model_dump(mode="json")
    return {
        "network": tree["network"],
        "preprocessing": {key: tree["preprocessing"][key] for key in ("spacing_mm", *PreprocessingRules.model_fields)},
        "training": {
            "optimizer": tree["training"]["optimizer"],
            "learning_rate": _FINE_TUNING * tree["training"]["learning_rate"],
        },
    }


def _minutes_per_network(training: TrainingConfig, dataset: Dataset) -> float | None:
    """The time that one network has: of several folds its share."""
    if training.minutes is None or training.fold != "all":
        return training.minutes
    case_ids = [case.case_id for case in dataset.cases]
    return training.minutes / len(choose_splits(case_ids, dataset.splits, training))
