"""Planning for a folder of labelled scans."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
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
from volseg.planning.fingerprint import Look, fingerprint_of, labels_of, look_at_cases, told
from volseg.planning.machine import this_machine
from volseg.planning.plan import Plan
from volseg.planning.rules import by_width, make_plan
from volseg.planning.topology import check_patch
from volseg.planning.trials import FEWEST_VOXELS, StepTimer, fit_to_time, tell_time, voxels_in_time
from volseg.progress import Progress, ignore_progress

#: Learning rate of fine-tuning, relative to the earlier run, so that the network does not forget.
_FINE_TUNING = 0.3
_NETWORK: NetworkName = "dynunet"


def plan_folder(
    data: Path,
    given: PartialConfig,
    progress: Progress = ignore_progress,
    timer: StepTimer | None = None,
    device: torch.device | None = None,
    executor: Executor | None = None,
) -> tuple[Dataset, Plan]:
    """Plan a configuration for a data set.

    Args:
        data: A labelled data set in any layout.
        given: Keys that are already decided; the plan adapts to the labels and the network they name.
        progress: Called per case.
        timer: Times a step of a network; without it, or if epochs are given, the default network is used.
        device: Where training will run; by default a CUDA device if there is one.
        executor: Reads the cases; by default threads of this process.

    Returns:
        The data set, and the plan for it, overridden by the given keys.

    Raises:
        DataError: If there is no labelled case, or the cases differ in modality and none was given.
        ConfigError: If the keys conflict with each other or with the plan.
        CheckpointError: If the model to start training from does not exist.
    """
    given = with_inherited(given)
    dataset = find_dataset(data, given.data, progress)
    with closing(look_at_cases(dataset, given.data, progress, executor)) as looks:
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
    """Plan a configuration for cases that are being, or were, examined.

    Args:
        dataset: Labelled cases.
        looks: Each case with its fingerprint, or with the reason why it cannot be used.
        given: Keys that are already decided.
        timer: Times a step of a network; without it, or if epochs are given, the default network is used.
        device: Where training will run; by default a CUDA device if there is one.

    Raises:
        DataError: If no case can be used, the labels are not stated, or the cases differ in modality.
        ConfigError: If the keys conflict with each other, the cases, or the plan.
    """
    if given.data.labels is None:
        refuse_unclear_values(dataset.cases)
    tell_of_names(dataset.cases, labels_of(dataset, given.data))
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
    """Return a timer that applies the given keys to a configuration before timing it."""
    return lambda config: timer(given.laid_over(config))


def with_inherited(given: PartialConfig) -> PartialConfig:
    """Return the given keys on top of those inherited from the model that training starts from.

    Raises:
        CheckpointError: If the model to start training from does not exist.
        ConfigError: If a key does not belong to the network.
    """
    given = given.laid_over_partial(_inherited(given.training))
    given.network.check_keys(given.network.name or _NETWORK)
    return given


def _inherited(training: TrainingConfig) -> dict[str, Any]:
    """Return the keys that a run inherits from its start model, whose weights fit one network and one voxel size."""
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
    """Return the time for one network: its share if there are several folds."""
    if training.minutes is None or training.fold != "all":
        return training.minutes
    case_ids = [case.case_id for case in dataset.cases]
    return training.minutes / len(choose_splits(case_ids, dataset.splits, training))
