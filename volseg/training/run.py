"""A folder of labelled scans in, a run with a model out."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import yaml

from volseg.about import made_now, write_about
from volseg.cases import Case, Dataset, Split, find_dataset, make_splits, read_splits, write_splits
from volseg.config import (
    Config,
    NetworkName,
    TrainingConfig,
    dicom_rules,
    dump,
    has_key,
    is_complete,
    merge,
    read_config,
    validate,
)
from volseg.errors import ConfigError, OutputError
from volseg.io import SetAside
from volseg.io.files import atomic_path, make_folder, without_root, write_text
from volseg.model.checkpoint import FOLD_FOLDER, MODEL_FILE, finalize_model, load_weights
from volseg.model.networks import patch_divisor
from volseg.model.usual_volumes import VolumeRange
from volseg.planning import Plan, make_plan, take_fingerprint, this_machine
from volseg.progress import Progress, ignore_progress
from volseg.training import TrainingResult, train
from volseg.training.choices import choose_postprocessing
from volseg.training.preparation import PreparedCase, prepare_cases
from volseg.training.record import VALIDATION_FILE, write_validation
from volseg.training.schedule import Clock
from volseg.training.state import LAST_FILE
from volseg.training.team import ALONE, Team
from volseg.training.validation import Validation, joined

CONFIG_FILE, SPLITS_FILE, NOT_USED_FILE, CACHE_FOLDER = "config.yaml", "splits.json", "not_used.csv", "cache"

#: A run that starts from another learns more slowly than that by this factor, so as not to forget.
_FINE_TUNING = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: Where everything is.
        config: As resolved.
        splits: Which cases taught and which were held out, one per network.
        not_used: What was found and not used.
        failed: Cases that had an image and a reference but could not be used.
        results: What the training of each network says.
    """

    folder: Path
    config: Config
    splits: tuple[Split, ...]
    not_used: tuple[SetAside, ...]
    failed: tuple[SetAside, ...]
    results: tuple[TrainingResult, ...]

    @property
    def validation(self) -> Validation:
        """Dice of every held-out case, by the network that never saw it."""
        return joined([result.validation for result in self.results])

    @property
    def decided(self) -> Config:
        """The configuration with what its held-out cases have chosen."""
        return choose_postprocessing(self.config, self.validation)


def plan_folder(data: Path, overrides: Mapping[str, Any], progress: Progress = ignore_progress) -> tuple[Dataset, Plan]:
    """Plan a configuration for a data set.

    Args:
        data: A labelled data set in any layout.
        overrides: Keys that are decided already; the plan fits itself to the labels and the network they name.
        progress: Told per case.

    Returns:
        The data set and the plan with the overrides laid over it.

    Raises:
        DataError: If there is no labelled case.
        ConfigError: If the overrides are not valid.
    """
    overrides = merge(_inherited(overrides), overrides)
    dataset = find_dataset(data, dicom_rules(overrides), progress)
    labels = overrides.get("data", {}).get("labels") if isinstance(overrides.get("data"), Mapping) else None
    fingerprint = take_fingerprint(dataset, labels if isinstance(labels, Mapping) else None, progress)
    minutes = _given_minutes(overrides, [case.case_id for case in dataset.cases])
    plan = make_plan(fingerprint, _network_name(overrides), this_machine(), _given_spacing(overrides), minutes)
    config = validate(merge(plan.config.model_dump(mode="json"), overrides), "the configuration")
    reasons = {key: "given" if has_key(overrides, key) else reason for key, reason in plan.reasons.items()}
    return dataset, Plan(config, reasons)


def train_folder(
    data: Path,
    output: Path,
    overrides: Mapping[str, Any],
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
    team: Team = ALONE,
) -> Run:
    """Train on a data set.

    Args:
        data: A labelled data set in any layout.
        output: The run folder.
        overrides: Some or all configuration keys; what they leave open is planned.
        resume: Go on with the run that is in `output`.
        progress: Told per case and per step.
        team: The processes that train together, each of which calls this.

    Returns:
        The finished run.

    Raises:
        VolsegError: In any of its kinds, for what can be wrong with input, configuration and output.
    """
    started = time.monotonic()
    with team.leader_first():
        going_on = resume or not team.leads
        _check_output(output, resume=going_on)
        make_folder(output)
        resumed = going_on and (output / CONFIG_FILE).is_file()
        dataset, config = _resolve(data, output, overrides, resumed=resumed, progress=progress)
        check_patch(config)
        prepared, failed = prepare_cases(dataset.cases, config, output / CACHE_FOLDER, progress)
        splits = _splits(dataset.cases, prepared, config, output, resumed=resumed)
    not_used = (*dataset.set_aside, *failed, *_newcomers(dataset.cases, prepared, splits.values()))
    if team.leads:
        _write_not_used(not_used, data, output / NOT_USED_FILE)
    results = _train_folds(splits, prepared, config, output, started, resume=resume, progress=progress, team=team)
    run = Run(output, config, tuple(splits.values()), not_used, tuple(failed), tuple(results))
    team.meet()  # nobody needs the prepared cases any more
    if team.leads:
        write_validation(run.validation, output / VALIDATION_FILE)
        write_about(made_now(), output)
        volumes = _volumes(prepared.values(), config)
        for result in run.results:
            finalize_model(result.model, run.decided, volumes)
        shutil.rmtree(output / CACHE_FOLDER)
    team.meet()  # whoever ends earlier is taken for lost, and the leader ended with it
    return run


def _volumes(cases: Iterable[PreparedCase], config: Config) -> dict[str, VolumeRange]:
    """Label name -> how large it is in the cases that have it."""
    voxel_ml = math.prod(config.preprocessing.spacing_mm) / 1000
    known = list(cases)
    volumes_ml = {
        label.name: [
            voxel_ml * sum(case.voxels.get(value, 0) for value in label.parts or (label.value,)) for case in known
        ]
        for label in config.data.output_labels
    }
    found = {name: [volume for volume in volumes if volume > 0] for name, volumes in volumes_ml.items()}
    return {name: VolumeRange.of(volumes) for name, volumes in found.items() if volumes}


def _inherited(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that starts from another has from it: weights know one network and one voxel size."""
    if not has_key(overrides, "training.start_from") or overrides["training"]["start_from"] is None:
        return {}
    _, config = load_weights(Path(str(overrides["training"]["start_from"])))
    if config is None:
        return {}
    tree = config.model_dump(mode="json")
    return {
        "network": tree["network"],
        "preprocessing": {"spacing_mm": tree["preprocessing"]["spacing_mm"]},
        "training": {
            "optimizer": tree["training"]["optimizer"],
            "learning_rate": _FINE_TUNING * tree["training"]["learning_rate"],
        },
    }


def check_patch(config: Config) -> None:
    """Refuse a patch that the network cannot halve as often as it wants to, or that it would shrink to one voxel.

    Raises:
        ConfigError: Names the side and the step.
    """
    for size, step in zip(config.patches.size, patch_divisor(config.network), strict=True):
        if size % step:
            raise ConfigError(
                f"patches.size: {list(config.patches.size)} does not fit network {config.network.name}, "
                f"whose patches must be divisible by {list(patch_divisor(config.network))}",
                hint="change patches.size, or leave it out to have it planned",
            )
    if tuple(config.patches.size) == patch_divisor(config.network) != (1, 1, 1):
        raise ConfigError(
            f"patches.size: {list(config.patches.size)} leaves network {config.network.name} a single voxel at its "
            "deepest level, which cannot be normalised",
            hint="double one side",
        )


def render(plan: Plan) -> str:
    """A plan as YAML with a comment above each key that was decided for a reason."""
    lines = ["# Written by `volseg plan`. Every key can be edited; `volseg train --config` takes the file."]
    for section, value in plan.config.model_dump(mode="json").items():
        lines += [f"# {plan.reasons[section]}"] if section in plan.reasons else []
        if not isinstance(value, dict):
            lines.append(f"{section}: {_inline(value)}")
            continue
        lines.append(f"{section}:")
        for key, entry in value.items():
            reason = plan.reasons.get(f"{section}.{key}")
            lines += [f"  # {reason}"] if reason else []
            lines.append(f"  {key}: {_inline(entry)}")
    return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()


def _resolve(
    data: Path, output: Path, overrides: Mapping[str, Any], *, resumed: bool, progress: Progress
) -> tuple[Dataset, Config]:
    """The data set and the configuration: of the run that goes on, as given in full, or planned."""
    if resumed:
        stored = read_config(output / CONFIG_FILE)
        config = validate(merge(stored.model_dump(mode="json"), overrides), "the configuration")
        if config != stored:
            raise ConfigError(
                f"{output} was trained with another configuration",
                hint="resume with the same options, or a new --output",
            )
        return find_dataset(data, config.data, progress), config
    if is_complete(overrides):
        config = validate(overrides, "the configuration")
        dataset = find_dataset(data, config.data, progress)
        write_text(output / CONFIG_FILE, dump(config))
        return dataset, config
    dataset, plan = plan_folder(data, overrides, progress)
    write_text(output / CONFIG_FILE, render(plan))
    return dataset, plan.config


def _splits(
    cases: Sequence[Case], prepared: Mapping[str, PreparedCase], config: Config, output: Path, *, resumed: bool
) -> dict[int, Split]:
    """Fold -> its split, without the cases that could not be prepared, for each fold that is to be trained."""
    path = output / SPLITS_FILE
    settings = config.training
    if resumed and path.is_file():
        splits = read_splits(path)
    else:
        splits = make_splits([case.case_id for case in cases], settings.folds, settings.holdout, settings.seed)
        write_splits(splits, path)
    folds = range(len(splits)) if settings.fold == "all" else [settings.fold]
    if max(folds) >= len(splits):
        raise ConfigError(f"there is no fold {max(folds)}: {len(cases)} cases make {len(splits)} folds")
    return {fold: _usable(splits[fold], prepared, fold) for fold in folds}


def _usable(split: Split, prepared: Mapping[str, PreparedCase], fold: int) -> Split:
    """A split without the cases that could not be prepared."""
    train, val = (tuple(case_id for case_id in ids if case_id in prepared) for ids in (split.train, split.val))
    if not train or not val:
        raise ConfigError(f"fold {fold} has {len(train)} cases to learn from and {len(val)} held out")
    return Split(train, val)


def _train_folds(
    splits: Mapping[int, Split],
    prepared: Mapping[str, PreparedCase],
    config: Config,
    output: Path,
    started: float,
    *,
    resume: bool,
    progress: Progress,
    team: Team,
) -> Iterator[TrainingResult]:
    """Train a network per fold, in the run's folder itself if it is the only one."""
    every = config.training.fold == "all"
    folders = {fold: output / f"{FOLD_FOLDER}{fold}" if every else output for fold in splits}
    for folder in folders.values():  # all at once: a model that is still missing is then missed by predict
        make_folder(folder)
    preparing = (time.monotonic() - started) / len(splits)  # of the time of each
    for fold, split in splits.items():
        own = _of_fold(config, fold, len(splits))
        yield train(
            [prepared[case_id] for case_id in split.train],
            [prepared[case_id] for case_id in split.val],
            own,
            folders[fold],
            Clock(own.training, started=time.monotonic() - preparing),
            resume=resume,
            progress=_named(progress, f", fold {fold}") if every else progress,
            team=team,
        )


def _of_fold(config: Config, fold: int, folds: int) -> Config:
    """The configuration of one fold of several, which share the time."""
    minutes = config.training.minutes and config.training.minutes / folds
    training = config.training.model_copy(update={"fold": fold, "minutes": minutes})
    return config.model_copy(update={"training": training})


def _named(progress: Progress, suffix: str) -> Progress:
    """Progress whose stages say what they belong to."""
    return lambda stage, done, total, note="": progress(f"{stage}{suffix}", done, total, note)


def _newcomers(cases: Sequence[Case], prepared: Mapping[str, PreparedCase], splits: Iterable[Split]) -> list[SetAside]:
    """Cases that were added after the run began: a resumed run keeps its splits."""
    dealt = {case_id for split in splits for case_id in (*split.train, *split.val)}
    return [
        SetAside(next(iter(case.images.values())).place, "not in the splits of this run: it was added later")
        for case in cases
        if case.case_id in prepared and case.case_id not in dealt
    ]


def _given_spacing(overrides: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The voxel size the overrides decide; one that is not valid is refused when everything is checked."""
    if not has_key(overrides, "preprocessing.spacing_mm"):
        return None
    try:
        r, a, s = (float(size) for size in overrides["preprocessing"]["spacing_mm"])
    except (TypeError, ValueError):
        return None
    return (r, a, s) if min(r, a, s) > 0 else None


def _given_minutes(overrides: Mapping[str, Any], case_ids: Sequence[str]) -> float | None:
    """The time that one network has, of several folds its share; what is not valid is refused later."""
    given = overrides.get("training")
    if not isinstance(given, Mapping):
        return None
    try:
        settings = TrainingConfig.model_validate(given)
    except ValueError:
        return None
    if settings.minutes is None or settings.fold != "all":
        return settings.minutes
    return settings.minutes / len(make_splits(case_ids, settings.folds, settings.holdout, settings.seed))


def _network_name(overrides: Mapping[str, Any]) -> NetworkName:
    network = overrides.get("network")
    name = network.get("name", "dynunet") if isinstance(network, Mapping) else "dynunet"
    known: tuple[NetworkName, ...] = get_args(NetworkName)
    if name not in known:
        raise ConfigError(f"network.name: there is no {name!r}", hint=f"there are {', '.join(known)}")
    return name


def _check_output(output: Path, *, resume: bool) -> None:
    folders = (output, *output.glob(f"{FOLD_FOLDER}*"))
    if not resume and any((folder / name).exists() for folder in folders for name in (LAST_FILE, MODEL_FILE)):
        raise OutputError(
            f"{output} already holds a run", hint="go on with --resume, or choose_postprocessing another --output"
        )


def _write_not_used(items: Sequence[SetAside], data: Path, path: Path) -> None:
    rows = [{"path": without_root(str(item.path), data), "reason": without_root(item.reason, data)} for item in items]
    for row in rows:
        logger.warning("not used: %s: %s", row["path"], row["reason"])
    with atomic_path(path) as temporary:
        pd.DataFrame(rows, columns=["path", "reason"]).to_csv(temporary, index=False)
