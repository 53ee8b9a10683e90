"""Planes or volumes: a network of either kind for each fold, judged on the cases that it never saw."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from volseg.cases import Case, Dataset, annotated_labels, find_dataset, read_images, read_reference, read_region
from volseg.config import Config, PartialConfig, merge, one_of
from volseg.errors import ConfigError
from volseg.io.files import make_folder
from volseg.io.json_files import write_json
from volseg.io.tables import write_table
from volseg.io.written import NO_INPUTS, Inputs, claim
from volseg.metrics.bootstrap import bootstrap_means, interval
from volseg.metrics.crops import painted_values
from volseg.metrics.overlap import ratio
from volseg.model.checkpoint import load_model
from volseg.model.devices import choose_device
from volseg.model.files import CHOICE_FILE
from volseg.model.label_encoding import unknown_outputs
from volseg.prediction.predictor import Predictor
from volseg.progress import Progress, ignore_progress
from volseg.training.loop import OnEpochDone, ignore_epochs
from volseg.training.run import Run, train_folder

logger = logging.getLogger(__name__)

#: Networks that see slices by themselves, with those beside them, and networks that see volumes.
Dimensions = Literal["2d", "2.5d", "3d"]
#: Slices on either side, where they are seen.
_NEIGHBORS = 1
#: What both say together: the mean of their logits.
AVERAGE = "average"
COMPARISON_FILE = "comparison.csv"
#: Of the time, what the networks have; the rest is for judging them.
_SHARE_OF_TRAINING = 0.8
#: What a comparison decides.
_DECIDED = ("training.fold", "patches.planes", "network.neighbors")


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and why.

    Attributes:
        folder: Holds a run for each kind, comparison.csv and choice.json; `predict` takes it for what was chosen.
        runs: Kind -> its run.
        dice: A row per case and label, a column for each kind and for their average; NaN where nothing is to be found.
        chosen: The kinds whose networks are averaged from now on: one, or both.
    """

    folder: Path
    runs: Mapping[str, Run]
    dice: pd.DataFrame
    chosen: tuple[str, ...]

    @property
    def summary(self) -> pd.DataFrame:
        """A row per kind: the mean of the labels' mean Dice, and its 95 % interval over cases."""
        return _summary(self.dice)


def parse_dimensions(words: str | Sequence[str]) -> tuple[Dimensions, ...]:
    """The kinds that are to be compared, by name: "2d,3d".

    Returns:
        In order of what they see, whatever the order of the names.

    Raises:
        ConfigError: If one is not known, or there are fewer than two.
    """
    names = words.split(",") if isinstance(words, str) else words
    known: tuple[Dimensions, ...] = get_args(Dimensions)
    named = {one_of("dimensions", name.strip().lower(), known) for name in names}
    found = tuple(kind for kind in known if kind in named)
    if len(found) < 2:
        raise ConfigError("one kind alone has nothing to be compared with", hint="2d,3d compares both, 2d,2.5d,3d all")
    return found


def choose_dimensions(  # noqa: PLR0913  most are options of the command
    data: Path,
    output: Path,
    given: PartialConfig,
    among: Sequence[Dimensions] = ("2d", "3d"),
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Inputs = NO_INPUTS,
    progress: Progress = ignore_progress,
    device: torch.device | None = None,
    on_epoch_done: OnEpochDone = ignore_epochs,
) -> Choice:
    """Train networks of planes and of volumes for all folds, and choose what gives the held-out cases the best Dice.

    Cases are segmented by the networks that never saw them, on their own grids, without post-processing: all of them,
    or as many as there is time for, from every fold. The average of all is chosen where it is better than each.

    Args:
        data: A labelled data set in any layout.
        output: Gets a run for each kind, the table and the choice.
        given: Some or all configuration keys of both.
        among: What is compared, networks of planes first: which axes those lie along holds for all.
        resume: Go on with what was interrupted.
        overwrite: Whether the user gave up files of his own that lie where those of the runs are to be.
        inputs: What is never replaced.
        progress: Told per case and per step.
        device: Where networks are trained.
        on_epoch_done: Gets the row of history.csv of each epoch.

    Returns:
        What was chosen.

    Raises:
        VolsegError: As `train_folder`; and if a key is given that is what is compared.
    """
    began = monotonic()
    for key in filter(given.states, _DECIDED):
        raise ConfigError(f"{key} is what a comparison decides", hint="leave it out, or train one kind by itself")
    make_folder(output)
    claim([output / COMPARISON_FILE, output / CHOICE_FILE], inputs, overwrite=overwrite)
    runs: dict[str, Run] = {}
    axes: str | None = None
    for kind in among:
        own = PartialConfig.of(merge(given.tree, _keys_of(kind, given, len(among), axes)))
        told = _named(progress, kind)
        runs[kind] = train_folder(
            data,
            output / kind,
            own,
            resume=resume,
            overwrite=overwrite,
            inputs=inputs,
            progress=told,
            device=device,
            on_epoch_done=on_epoch_done,
        )
        axes = runs[kind].config.preprocessing.axes  # answers are averaged along the same axes
    dataset = find_dataset(data, runs[among[0]].config.data)
    minutes = given.training.minutes
    deadline = math.inf if minutes is None else began + 60 * minutes
    dice = _out_of_fold(dataset, runs, deadline, progress, device)
    summary = _summary(dice)
    chosen = _best(summary, tuple(among))
    write_table(dice, output / COMPARISON_FILE, float_format="%.6f")
    means = {str(row["kind"]): round(float(row["dice_mean"]), 6) for row in summary.to_dict("records")}
    write_json(output / CHOICE_FILE, {"models": list(chosen), "out_of_fold_dice": means})
    return Choice(output, runs, dice, chosen)


def _keys_of(kind: Dimensions, given: PartialConfig, kinds: int, axes: str | None) -> dict[str, object]:
    minutes = given.training.minutes
    training: dict[str, object] = {"fold": "all"}
    if minutes is not None:
        training["minutes"] = _SHARE_OF_TRAINING * minutes / kinds
    preprocessing = {} if axes is None else {"preprocessing": {"axes": axes}}
    network = {"network": {"neighbors": _NEIGHBORS}} if kind == "2.5d" else {}
    return {"patches": {"planes": kind != "3d"}, "training": training, **network, **preprocessing}


def _named(progress: Progress, kind: str) -> Progress:
    return lambda stage, done, total, note="": progress(f"{kind}: {stage}", done, total, note)


def _out_of_fold(
    dataset: Dataset, runs: Mapping[str, Run], deadline: float, progress: Progress, device: torch.device | None
) -> pd.DataFrame:
    """Dice of cases and labels by the networks that never saw them, of each kind and of all together.

    Every fold has an equal part of the time until the deadline, and at least one of its cases is judged.
    """
    cases = {case.case_id: case for case in dataset.cases}
    config = next(iter(runs.values())).config
    rows: list[dict[str, object]] = []
    unseen = _unseen_by(runs)
    done, total = 0, sum(map(len, unseen.values()))
    for number, (folds, case_ids) in enumerate(unseen.items()):
        models = {
            kind: load_model(run.results[fold].model, choose_device(device))
            for (kind, run), fold in zip(runs.items(), folds, strict=True)
        }
        predictors = {kind: Predictor([model]) for kind, model in models.items()}
        predictors[AVERAGE] = Predictor([*models.values()])
        in_time = _in_time(case_ids, (deadline - monotonic()) / (len(unseen) - number))
        for judged, case_id in enumerate(in_time, start=done + 1):
            rows += _dice_of(cases[case_id], predictors, config)
            progress("compare", judged, total, case_id)
        done += len(case_ids)
    table = pd.DataFrame(rows)
    if (count := table["case_id"].nunique()) < total:
        logger.warning("%d of %d held-out cases were judged, for want of time; more --minutes judge all", count, total)
    return table


def _in_time(case_ids: Sequence[str], seconds: float) -> Iterator[str]:
    """The first case, and others as long as there is time for one more that takes as long as those before."""
    began = monotonic()
    for number, case_id in enumerate(case_ids):
        if number and (monotonic() - began) * (number + 1) / number > seconds:
            return
        yield case_id


def _unseen_by(runs: Mapping[str, Run]) -> Mapping[tuple[int, ...], Sequence[str]]:
    """A fold of each kind -> the cases that none of their networks saw; what one kind could not prepare is left out."""
    folds = [{case_id: fold for fold, split in enumerate(run.splits) for case_id in split.val} for run in runs.values()]
    found: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for case_id in sorted(set.intersection(*map(set, folds))):
        found[tuple(each[case_id] for each in folds)].append(case_id)
    return found


def _dice_of(case: Case, predictors: Mapping[str, Predictor], config: Config) -> Iterator[dict[str, object]]:
    """A row per label: as in validation, only what the reference says anything of counts."""
    data = config.data
    image = read_images(case, data.channels)
    reference = read_reference(case, image, data.reference_labels, data.others).array
    region = read_region(case, image.geometry)
    counted = np.ones(reference.shape, bool) if region is None else region
    if data.ignored_value is not None:
        counted = counted & (reference != data.ignored_value)
    annotated = annotated_labels(case, data.reference_labels, np.unique(reference[counted & (reference > 0)]).tolist())
    labels = data.output_labels
    unknown = unknown_outputs(annotated, data)[-len(labels) :]
    masks = {kind: predictor.segment(predictor.prepare(case)).mask.array for kind, predictor in predictors.items()}
    for label, is_unknown in zip(labels, unknown, strict=True):
        row: dict[str, object] = {"case_id": case.case_id, "label": label.name}
        wanted = counted & np.isin(reference, label.parts or (label.value,))
        for kind, mask in masks.items():
            made = counted & np.isin(mask, painted_values(label, labels))
            total = 0 if is_unknown else int(made.sum()) + int(wanted.sum())
            row[kind] = ratio(2 * int((made & wanted).sum()), total)
        yield row


def _summary(dice: pd.DataFrame) -> pd.DataFrame:
    kinds = [name for name in dice.columns if name not in {"case_id", "label"}]
    rows = []
    for kind in kinds:
        by_case = dice.pivot_table(kind, "case_id", "label", dropna=False).to_numpy(np.float64)
        low, high = interval(np.nanmean(bootstrap_means(by_case), axis=1))
        rows.append({"kind": kind, "dice_mean": np.nanmean(np.nanmean(by_case, axis=0)), "low": low, "high": high})
    return pd.DataFrame(rows)


def _best(summary: pd.DataFrame, among: tuple[str, ...]) -> tuple[str, ...]:
    means = summary.set_index("kind")["dice_mean"]
    best = str(means[list(among)].idxmax())
    return among if means[AVERAGE] > means[best] else (best,)
