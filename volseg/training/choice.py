"""Choice between 2D, 2.5D and 3D networks by cross-validation."""

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
from volseg.training.history import OnEpochDone, ignore_epochs, with_names
from volseg.training.run import Run, train_folder

logger = logging.getLogger(__name__)

#: Networks that see single slices, slices with their neighbours, or volumes.
Dimensions = Literal["2d", "2.5d", "3d"]
#: Neighbouring slices on either side that a 2.5D network sees.
_NEIGHBORS = 1
#: Name of the average of all kinds: the mean of their logits.
AVERAGE = "average"
COMPARISON_FILE = "comparison.csv"
#: Share of the time for training; the rest is for scoring the networks.
_SHARE_OF_TRAINING = 0.8
#: Keys that a comparison decides.
_DECIDED = ("training.fold", "patches.planes", "network.neighbors")


@dataclass(frozen=True, eq=False)
class Choice:
    """The result of a comparison: the scores, and the kinds that were chosen.

    Attributes:
        folder: Holds a run for each kind, comparison.csv and choice.json; `predict` accepts it as the chosen model.
        runs: Kind -> its run.
        dice: A row per case and label, a column for each kind and for their average; NaN where a label is absent.
        chosen: The chosen kinds: one, or all, whose networks are then averaged.
    """

    folder: Path
    runs: Mapping[str, Run]
    dice: pd.DataFrame
    chosen: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Choice {self.folder}: {' and '.join(self.chosen)} of {', '.join(self.runs)}>"

    @property
    def summary(self) -> pd.DataFrame:
        """A row per kind: the mean over labels of the mean Dice, and its 95 % confidence interval over cases."""
        return _summary(self.dice)


def parse_dimensions(words: str | Sequence[str]) -> tuple[Dimensions, ...]:
    """Parse the kinds to compare, such as "2d,3d".

    Returns:
        The kinds in the order 2d, 2.5d, 3d, whatever the order of the names.

    Raises:
        ConfigError: If a kind is unknown, or there are fewer than two.
    """
    names = words.split(",") if isinstance(words, str) else words
    known: tuple[Dimensions, ...] = get_args(Dimensions)
    named = {one_of("dimensions", name.strip().lower(), known) for name in names}
    found = tuple(kind for kind in known if kind in named)
    if len(found) < 2:
        raise ConfigError("a comparison needs at least two kinds of network", hint="give 2d,3d, or all: 2d,2.5d,3d")
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
    """Train networks of several kinds on all folds, and choose the kind with the best Dice on the validation cases.

    Each case is segmented by the networks that were not trained on it, on its own grid, without post-processing. If
    time is short, only some cases of every fold are scored. The average is chosen if it is better than each kind.

    Args:
        data: A labelled data set in any layout.
        output: Folder for a run per kind, the table and the choice.
        given: Some or all configuration keys, which apply to every kind.
        among: The kinds to compare, 2D first: the slice axes planned for it hold for all.
        resume: Continue an interrupted comparison.
        overwrite: Whether to replace files in the output that volseg did not write.
        inputs: Files that are never replaced.
        progress: Called per case and per step.
        device: Where networks are trained.
        on_epoch_done: Called after each epoch with its row of history.csv, preceded by `kind` and `fold`.

    Returns:
        The scores and the choice.

    Raises:
        VolsegError: As `train_folder`; also if a key is given that the comparison decides.
    """
    began = monotonic()
    for key in filter(given.states, _DECIDED):
        raise ConfigError(f"{key} is decided by the comparison", hint="leave it out, or train a single kind")
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
            on_epoch_done=with_names(on_epoch_done, kind=kind),
        )
        axes = runs[kind].config.preprocessing.axes  # averaging requires that all kinds use the same axes
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
    """Compute out-of-fold Dice per case and label, for each kind and for the average of all.

    Every fold has an equal share of the time until the deadline, and at least one of its cases is scored.
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
        logger.warning(
            "time allowed scoring %d of %d validation cases only; increase --minutes to score all", count, total
        )
    return table


def _in_time(case_ids: Sequence[str], seconds: float) -> Iterator[str]:
    """Yield the first case, and further ones while there is time for another of average duration."""
    began = monotonic()
    for number, case_id in enumerate(case_ids):
        if number and (monotonic() - began) * (number + 1) / number > seconds:
            return
        yield case_id


def _unseen_by(runs: Mapping[str, Run]) -> Mapping[tuple[int, ...], Sequence[str]]:
    """Map a fold of each kind to its validation cases, without those that a kind could not prepare."""
    folds = [{case_id: fold for fold, split in enumerate(run.splits) for case_id in split.val} for run in runs.values()]
    found: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for case_id in sorted(set.intersection(*map(set, folds))):
        found[tuple(each[case_id] for each in folds)].append(case_id)
    return found


def _dice_of(case: Case, predictors: Mapping[str, Predictor], config: Config) -> Iterator[dict[str, object]]:
    """Yield a row per label; as in validation, only annotated voxels count."""
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
