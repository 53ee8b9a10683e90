"""Training on a folder of labelled images, from data to a run folder with a model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch

from volseg.about import ABOUT_FILE, Hardware, made_now, read_about, write_about
from volseg.cases import (
    Case,
    Dataset,
    Split,
    check_others,
    choose_splits,
    find_dataset,
    read_splits,
    usable_splits,
    write_splits,
)
from volseg.cases.source_names import by_reason
from volseg.cases.stated_names import tell_of_names
from volseg.config import Config, PartialConfig, differences, dump, read_config, validate
from volseg.errors import ConfigError, OutputError
from volseg.io import SetAside
from volseg.io.files import make_folder, owned_folder, without_root, write_text
from volseg.io.tables import write_table
from volseg.io.written import NO_INPUTS, Inputs, claim, remove_scratch
from volseg.model.checkpoint import check_window, finalize_model
from volseg.model.devices import choose_device
from volseg.model.files import FOLD_FOLDER, MODEL_FILE
from volseg.model.hardware import this_hardware
from volseg.model.usual_volumes import VolumeRange
from volseg.planning import check_patch, plan_folder, warn_of_few_steps
from volseg.progress import Progress, ignore_progress
from volseg.text import is_text
from volseg.training.advice import advise
from volseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from volseg.training.files import (
    CACHE_FOLDER,
    CONFIG_FILE,
    HISTORY_FILE,
    LAST_FILE,
    NOT_USED_FILE,
    RUN_LOG_FILE,
    SPLITS_FILE,
    VALIDATION_FILE,
)
from volseg.training.history import OnEpochDone, ignore_epochs, with_names, write_validation
from volseg.training.loop import FoldCases, Trainer, TrainingResult
from volseg.training.postprocess_tuning import can_choose, choose_postprocessing
from volseg.training.preparation import PreparedCase, prepare_cases
from volseg.training.schedule import Clock
from volseg.training.timing import StepTimer
from volseg.training.validation import Validation, joined

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: The run folder.
        config: The resolved configuration.
        splits: Training and validation cases, one split per network.
        not_used: Files that were found but not used.
        failed: Cases that had an image and a reference but could not be used.
        results: The result of each network.
        is_leader: Whether this process wrote the run; of several that train together, only one does.
    """

    folder: Path
    config: Config
    splits: tuple[Split, ...]
    not_used: tuple[SetAside, ...]
    failed: tuple[SetAside, ...]
    results: tuple[TrainingResult, ...]
    is_leader: bool = True

    def __repr__(self) -> str:
        return f"<Run {self.folder}: validation Dice {self.validation.mean:.4f}>"

    @property
    def validation(self) -> Validation:
        """Dice of every validation case, by the network that was not trained on it."""
        return joined([result.validation for result in self.results])

    @property
    def decided(self) -> Config:
        """The configuration with the settings chosen on the validation cases."""
        return choose_postprocessing(self.config, self.validation)

    @property
    def chose_postprocessing(self) -> bool:
        """True if post-processing was chosen: it was not given, and there were enough validation cases."""
        return self.config.postprocess is None and can_choose(self.validation)

    @property
    def advice(self) -> str:
        """A warning with advice if the networks learned next to nothing; empty otherwise."""
        return advise(self.validation, [result.history for result in self.results])


def train_folder(  # noqa: PLR0913  most are options of the command
    data: Path,
    output: Path,
    given: PartialConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Inputs = NO_INPUTS,
    progress: Progress = ignore_progress,
    group: ProcessGroup = SINGLE_PROCESS,
    began: float | None = None,
    device: torch.device | None = None,
    on_epoch_done: OnEpochDone = ignore_epochs,
    executor: Executor | None = None,
) -> Run:
    """Train on a data set.

    Args:
        data: A labelled data set in any layout.
        output: The run folder.
        given: Some or all configuration keys; missing ones are planned.
        resume: Continue the run in `output`; if there is none, a new one starts, with a warning.
        overwrite: Whether to replace files in the output that volseg did not write.
        inputs: Files that are never replaced.
        progress: Called per case and per step.
        group: The processes that train together, each of which calls this.
        began: `time.monotonic()` when the time of the run began to count; by default now.
        device: Where networks are trained; by default a CUDA device if there is one.
        on_epoch_done: Called after each epoch with its row of history.csv; with all folds, preceded by `fold`.
        executor: Reads and prepares the cases; by default threads of this process.

    Returns:
        The finished run.

    Raises:
        VolsegError: Any of its subclasses, if the input, the configuration or the output is invalid.
    """
    started = time.monotonic() if began is None else began
    with ExitStack() as stack:
        with group.leader_first():
            going_on = resume or not group.is_leader
            resumed = going_on and (output / CONFIG_FILE).is_file()
            _check_output(output, resume=going_on)
            if group.is_leader:
                if resume and not resumed:  # a script may always ask for it; a path may be misspelled
                    logger.warning("there is no run to resume in %s: starting a new one", output)
                stack.enter_context(owned_folder(output))
                claim(_files_of_run(output, resumed=resumed), inputs, overwrite=overwrite)
            dataset, config = _resolve(
                data, output, given, resumed=resumed, progress=progress, device=device, executor=executor
            )
            check_patch(config)
            check_window(config)
            _refuse_cascade(config)
            check_others(dataset, config.data.labels, config.data.others)
            prepared, failed = prepare_cases(dataset.cases, config, output / CACHE_FOLDER, progress, executor)
            splits = _splits(dataset, prepared, config, output, resumed=resumed)
        not_used = (*dataset.set_aside, *failed, *_newcomers(dataset.cases, prepared, splits.values()))
        if group.is_leader:
            write_about(made_now(hardware=_machines(output, group, device, resumed=resumed)), output)
            _write_not_used(not_used, data, output / NOT_USED_FILE)
        results = _train_folds(
            splits,
            prepared,
            config,
            output,
            started,
            resume=resume,
            progress=progress,
            group=group,
            device=device,
            on_epoch_done=on_epoch_done,
        )
        run = Run(output, config, tuple(splits.values()), not_used, tuple(failed), tuple(results), group.is_leader)
        group.barrier()  # the prepared cases are no longer needed
        if group.is_leader:
            _finish(run, prepared)
        group.barrier()  # a process that ends earlier counts as lost, which would end the leader
        return run


def _refuse_cascade(config: Config) -> None:
    """Refuse a cascade, which only prediction supports.

    Raises:
        ConfigError: If the network takes the mask of another one as input.
    """
    if config.data.previous_labels:
        raise ConfigError("the second network of a cascade cannot be trained", hint="leave data.previous_labels out")


def _finish(run: Run, prepared: Mapping[str, PreparedCase]) -> None:
    """Write the files that concern all networks of a run, and remove those that are no longer needed."""
    write_validation(run.validation, run.folder / VALIDATION_FILE)
    write_about(made_now(hardware=read_about(run.folder).hardware), run.folder)
    decided, volumes = run.decided, _volumes(prepared.values(), run.config)
    for result in run.results:
        finalize_model(result.model, decided, volumes)
    remove_scratch(run.folder / CACHE_FOLDER)


def _volumes(cases: Iterable[PreparedCase], config: Config) -> dict[str, VolumeRange]:
    """Return the range of the volume of each label, over the cases that have it."""
    known = list(cases)
    volumes_ml = {
        label.name: [
            math.prod(case.spacing_mm)
            / 1000
            * sum(case.voxels.get(value, 0) for value in label.parts or (label.value,))
            for case in known
        ]
        for label in config.data.output_labels
    }
    found = {name: [volume for volume in volumes if volume > 0] for name, volumes in volumes_ml.items()}
    return {name: VolumeRange.of(volumes) for name, volumes in found.items() if volumes}


def _resolve(
    data: Path,
    output: Path,
    given: PartialConfig,
    *,
    resumed: bool,
    progress: Progress,
    device: torch.device | None,
    executor: Executor | None,
) -> tuple[Dataset, Config]:
    """Return the data set and the configuration, which is read from the resumed run, given in full, or planned."""
    if resumed:
        config = _stored(output, given)
        return find_dataset(data, config.data, progress), config
    if given.is_complete:
        config = validate(given.tree, "the configuration")
        dataset = find_dataset(data, config.data, progress)
        tell_of_names(dataset.cases, config.data.labels)
        warn_of_few_steps(config, _reported(StepTimer(device), progress))
        write_text(output / CONFIG_FILE, dump(config))
        return dataset, config
    timer = _reported(StepTimer(device), progress)
    dataset, plan = plan_folder(data, given, progress, timer, device, executor)
    plan.save(output / CONFIG_FILE)
    return dataset, plan.config


def _reported(timer: StepTimer, progress: Progress) -> Callable[[Config], float]:
    """Report progress for each network whose steps are timed, since that takes seconds."""
    number = count(1)

    def timed(config: Config) -> float:
        progress("time steps", next(number), 0, config.network.name)
        return timer(config)

    return timed


def _stored(output: Path, given: PartialConfig) -> Config:
    """Return the configuration of the run to resume, which must match the given one."""
    stored = read_config(output / CONFIG_FILE)
    if changed := differences(stored, given.laid_over(stored)):
        raise ConfigError(
            f"{output} was trained with another configuration: {'; '.join(changed)}",
            hint="resume with the same options, or choose another --output",
        )
    return stored


def _splits(
    dataset: Dataset, prepared: Mapping[str, PreparedCase], config: Config, output: Path, *, resumed: bool
) -> dict[int, Split]:
    """Map each fold to train to its split, without the cases that could not be prepared."""
    path = output / SPLITS_FILE
    settings = config.training
    if resumed and path.is_file():
        splits = read_splits(path)
    else:
        stated = choose_splits(list(prepared), dataset.splits, settings)
        splits = tuple(split.among(prepared) for split in stated)  # a list may state cases that cannot be used
        write_splits(splits, path)
    return usable_splits(splits, prepared, settings.fold)


def _train_folds(  # noqa: PLR0913  each is what all folds share
    splits: Mapping[int, Split],
    prepared: Mapping[str, PreparedCase],
    config: Config,
    output: Path,
    started: float,
    *,
    resume: bool,
    progress: Progress,
    group: ProcessGroup,
    device: torch.device | None,
    on_epoch_done: OnEpochDone,
) -> Iterator[TrainingResult]:
    """Train a network per fold; the only fold of a run uses the run folder itself."""
    every = config.training.fold == "all"
    folders = {fold: output / f"{FOLD_FOLDER}{fold}" if every else output for fold in splits}
    for folder in folders.values():  # all at once, so that predict notices a model that is still missing
        make_folder(folder)
    preparing = (time.monotonic() - started) / len(splits)  # the share of each fold
    for fold, split in splits.items():
        own = _of_fold(config, fold, len(splits))
        cases = FoldCases([prepared[name] for name in split.train], [prepared[name] for name in split.val])
        clock = Clock(own.training, started=time.monotonic() - preparing, broadcast=group.broadcast)
        told = _named(progress, f", fold {fold}") if every else progress
        epoch_done = with_names(on_epoch_done, fold=fold) if every else on_epoch_done
        yield Trainer(own, cases, folders[fold], clock, group, told, device, epoch_done).run(resume=resume)


def _of_fold(config: Config, fold: int, folds: int) -> Config:
    """Return the configuration of one fold; the folds share the time."""
    minutes = config.training.minutes and config.training.minutes / folds
    training = config.training.model_copy(update={"fold": fold, "minutes": minutes})
    return config.model_copy(update={"training": training})


def _named(progress: Progress, suffix: str) -> Progress:
    """Return a progress callback that appends a suffix to stage names."""
    return lambda stage, done, total, note="": progress(f"{stage}{suffix}", done, total, note)


def _machines(output: Path, group: ProcessGroup, device: torch.device | None, *, resumed: bool) -> tuple[Hardware, ...]:
    """Return the hardware of the earlier parts of a run, and of this machine unless nothing is left to do."""
    before = read_about(output).hardware if resumed else ()
    if resumed and (output / VALIDATION_FILE).is_file():
        return before
    here = this_hardware(choose_device(device), group.world_size)
    return before if here in before else (*before, here)


def _newcomers(cases: Sequence[Case], prepared: Mapping[str, PreparedCase], splits: Iterable[Split]) -> list[SetAside]:
    """Return the cases that were added after the run began: a resumed run keeps its splits."""
    dealt = {case_id for split in splits for case_id in (*split.train, *split.val)}
    return [
        SetAside(next(iter(case.images.values())).place, "not in the splits of this run: added after it began")
        for case in cases
        if case.case_id in prepared and case.case_id not in dealt
    ]


def _check_output(output: Path, *, resume: bool) -> None:
    if not is_text(str(output.absolute())):
        raise OutputError(f"{output} is not valid UTF-8, which TensorBoard requires", hint="choose another --output")
    folders = (output, *output.glob(f"{FOLD_FOLDER}*"))
    if not resume and any((folder / name).exists() for folder in folders for name in (LAST_FILE, MODEL_FILE)):
        raise OutputError(
            f"{output} already holds a run",
            hint="continue it with --resume (in Python resume=True), choose another --output, or delete it",
        )


def _files_of_run(output: Path, *, resumed: bool) -> list[Path]:
    """List the files to be written; a resumed run keeps its configuration."""
    folders = (output, *sorted(output.glob(f"{FOLD_FOLDER}*")))
    of_networks = [folder / name for folder in folders for name in (LAST_FILE, MODEL_FILE, HISTORY_FILE, RUN_LOG_FILE)]
    tables = [folder / VALIDATION_FILE for folder in folders]
    begun = () if resumed else (CONFIG_FILE,)
    return [*of_networks, *tables, *(output / name for name in (SPLITS_FILE, NOT_USED_FILE, ABOUT_FILE, *begun))]


def _write_not_used(items: Sequence[SetAside], data: Path, path: Path) -> None:
    rows = [{"path": without_root(str(item.path), data), "reason": without_root(item.reason, data)} for item in items]
    for line in by_reason(items, data):
        logger.warning("not used: %s", line)
    write_table(rows, path, ["path", "reason"])
