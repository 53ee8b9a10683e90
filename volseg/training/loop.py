"""The training loop, from prepared cases to a model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from volseg.config import Config
from volseg.inference.windows import wide_window
from volseg.model.checkpoint import TrainedNetwork, load_model, save_model, set_window
from volseg.model.devices import choose_device
from volseg.model.files import MODEL_FILE
from volseg.model.networks import choose_precision
from volseg.progress import THOUSANDTHS, Cancelled, Progress, ignore_progress
from volseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from volseg.training.epoch import EpochRecord, epoch_line
from volseg.training.files import HISTORY_FILE, LAST_FILE, RUN_LOG_FILE, VALIDATION_FILE
from volseg.training.history import (
    Board,
    OnEpochDone,
    RunLog,
    ignore_epochs,
    read_validation,
    write_history,
    write_validation,
)
from volseg.training.postprocess_tuning import trials_for
from volseg.training.preparation import PreparedCase
from volseg.training.sampling import Patches, TrainingBatch, batches
from volseg.training.schedule import Clock, FinalValidation
from volseg.training.state import restore, save_last, start
from volseg.training.step import StepResult, TrainingStep
from volseg.training.stopping import is_finished
from volseg.training.threads import choice_for
from volseg.training.validation import Validation, Validator, evenly_spaced
from volseg.training.validation_loss import ValidationLoss

#: Largest share of the final validation's time for trying larger windows, and the most cases for it.
_SHARE_OF_WINDOWS, _MOST_WINDOW_CASES = 0.5, 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FoldCases:
    """The cases that one network is trained and validated on.

    Attributes:
        train: Training cases.
        val: Validation cases, by which the best epoch is chosen.
    """

    train: Sequence[PreparedCase]
    val: Sequence[PreparedCase]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The result of training a network.

    Attributes:
        model: File of the best model.
        best_epoch: The epoch with the best validation Dice.
        validation: Dice of the best model on all validation cases.
        history: The rows of history.csv, one per epoch.
    """

    model: Path
    best_epoch: int
    validation: Validation
    history: Sequence[Mapping[str, Any]]

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)


class Trainer:
    """Trains one network.

    Args:
        config: Network, loss, schedule and everything else.
        cases: Training and validation cases.
        folder: Folder for model.pt, last.pt, history.csv, validation.csv, train.log and tensorboard/.
        clock: Started when the run began, so that a time budget includes the preparation.
        group: The processes that train together, each with its own trainer; only the leader's writes files.
        progress: Called per step and per validated case, in thousandths of the whole.
        device: Where the network is trained; by default a CUDA device if there is one.
        on_epoch_done: Called after each epoch with its row of history.csv.

    Raises:
        CheckpointError: If the model to start from does not exist or does not fit.
        ConfigError: If a batch cannot be divided among the processes.
    """

    def __init__(
        self,
        config: Config,
        cases: FoldCases,
        folder: Path,
        clock: Clock,
        group: ProcessGroup = SINGLE_PROCESS,
        progress: Progress = ignore_progress,
        device: torch.device | None = None,
        on_epoch_done: OnEpochDone = ignore_epochs,
    ) -> None:
        self._on_epoch_done = on_epoch_done
        self._config = config
        self._cases = cases
        self._folder = folder
        self._clock = clock
        self._group = group
        self._progress = progress
        self._log = RunLog(folder / RUN_LOG_FILE, is_leader=group.is_leader)
        self._device = choose_device(device)
        dtype = choose_precision(config.training.precision, self._device)
        self._state = start(config, self._device, dtype, clock)
        self._step = TrainingStep(self._state, config, dtype, group)
        self._threads = choice_for(self._device, config.training.minutes)
        self._dtype = dtype
        self._score_with(config)
        self._loss = ValidationLoss(cases.val, config, dtype, group)
        self._monitored = evenly_spaced(cases.val, config.training.validation_cases)
        shapes = [case.image.shape[1:] for case in self._monitored]
        self._wide = None if config.inference.window else wide_window(config.patches.size, shapes)

    def run(self, *, resume: bool = False) -> TrainingResult:
        """Train until the schedule, the target Dice or the patience ends the run.

        Args:
            resume: Continue from `last.pt` if it exists.

        Returns:
            The best model and its scores.

        Raises:
            TrainingError: If the loss is not finite for too many steps in a row, or a step does not fit into memory.
            CheckpointError: If `last.pt` belongs to another configuration.
            OutputError: If the run folder cannot be written.
        """
        if resume and (self._folder / LAST_FILE).is_file():
            restore(self._state, self._folder / LAST_FILE, self._config)
            if self._is_finished() and (self._folder / VALIDATION_FILE).is_file():
                return self._result(read_validation(self._folder / VALIDATION_FILE))
            self._log.add(f"resumed after epoch {self._state.epoch}, step {self._state.step}")
        threads = torch.get_num_threads()
        try:
            self._train()
            validation = self._validate_best_model()
        except (KeyboardInterrupt, Cancelled) as stop:
            stop.add_note(f"{self._folder}: resume=True (--resume) continues after the last saved epoch")
            raise
        finally:
            torch.set_num_threads(threads)
        if self._group.is_leader:
            write_validation(validation, self._folder / VALIDATION_FILE)
        result = self._result(validation)
        best = f"best epoch {result.best_epoch} of {result.epochs}, Dice {validation.mean:.4f}"
        self._log.add(f"finished fold {self._config.training.fold}: {best}")
        return result

    def _train(self) -> None:
        """Train epoch by epoch; the last epoch is always validated."""
        state = self._state
        self._clock.start_steps(state.step)
        self._report(f"epoch {state.epoch + 1}, step {state.step}")
        if not state.epoch:
            cases = f"{len(self._cases.train)} training cases, {len(self._cases.val)} validation cases"
            self._log.add(f"started fold {self._config.training.fold}: {cases}")
        board = Board(self._folder / "tensorboard", state.step, self._config)
        with closing(board), closing(self._batches()) as source:
            while not self._is_finished():
                self._run_epoch(source, board)
        if "dice" not in state.history[-1]:  # time ran out while that epoch was saved
            self._validate_epoch()
            self._save_epoch()
        self._progress("train", THOUSANDTHS, THOUSANDTHS, f"{state.epoch} epochs, {state.step} steps")

    def _batches(self) -> Generator[TrainingBatch, None, None]:
        settings = self._config.training
        patches = Patches(self._cases.train, self._config, self._group.batch_shard(settings.batch_size))
        return batches(patches, settings.workers, self._state.step)

    def _run_epoch(self, source: Iterator[TrainingBatch], board: Board) -> None:
        """Train an epoch, validate it if due, and record both."""
        state, clock = self._state, self._clock
        began = clock.elapsed_seconds
        row = self._train_epoch(source).history_row(clock.elapsed_seconds)
        state.epoch += 1
        state.history.append({"epoch": state.epoch, "step": state.step, **row})
        if clock.progress(state.step) >= 1.0 or clock.validation_is_due(state.epoch):
            self._validate_epoch()
        self._save_epoch()
        self._show_epoch(board)
        clock.sample()
        seconds_left = clock.seconds_left(state.step)
        self._log.add(epoch_line(state.history[-1], clock.elapsed_seconds - began, seconds_left))

    def _train_epoch(self, source: Iterator[TrainingBatch]) -> EpochRecord:
        """Train until the clock ends the epoch, for at least one step."""
        state, clock = self._state, self._clock
        epoch = EpochRecord(clock.elapsed_seconds)
        state.network.train()
        while not epoch.losses or not clock.epoch_is_over(state.step, epoch.steps, epoch.start_seconds):
            asked = time.perf_counter()
            batch = next(source)
            waited = time.perf_counter() - asked
            result = self._take_step(batch)
            clock.sample()
            epoch.add(result, waited)
            if result.is_finite:
                self._report(self._note(epoch), clock.seconds_left(state.step))
        return epoch

    def _take_step(self, batch: TrainingBatch) -> StepResult:
        """Take a step, with the number of threads that is currently the fastest."""
        if self._threads is None:
            return self._step(batch)
        torch.set_num_threads(self._threads.threads)
        began = time.perf_counter()
        result = self._step(batch)
        self._threads.took(time.perf_counter() - began)
        return result

    def _score_with(self, config: Config) -> None:
        """Set the windows for validation: with mirroring at the end, without it during training."""
        self._validator = Validator(config, self._dtype, self._group)
        self._passes = fmean(self._validator.passes(case) for case in self._cases.val)
        alone = self._passes == 1
        self._monitor = self._validator if alone else Validator(_without_mirroring(config), self._dtype, self._group)

    def _note(self, epoch: EpochRecord) -> str:
        state = self._state
        best = f", best Dice {state.best_dice:.4f}" if state.best_epoch else ""
        return f"epoch {state.epoch + 1}, step {state.step}, loss {epoch.recent_loss:.3f}{best}"

    def _report(self, doing: str, seconds_left: float | None = None) -> None:
        """Report the progress of the run, the current activity, and the remaining time if known."""
        left = "" if seconds_left is None else f", {timedelta(seconds=round(max(0.0, seconds_left)))} left"
        done = round(THOUSANDTHS * self._clock.progress(self._state.step))
        self._progress("train", done, THOUSANDTHS, f"{doing}{left}")

    def _reported_as(self, doing: str) -> Progress:
        """Return a progress callback that reports a sub-task as a note on the progress of training."""
        seconds_left, began = self._clock.seconds_left(self._state.step), time.perf_counter()

        def report(stage: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001  a Progress
            self._report(f"{doing}, {done} of {total} cases", seconds_left - (time.perf_counter() - began))

        return report

    def _validate_epoch(self) -> None:
        """Validate, record whether the epoch is the best so far, and measure how long validation takes."""
        state, clock = self._state, self._clock
        self._choose_monitored()
        began = clock.elapsed_seconds
        progress = self._reported_as(f"epoch {state.epoch}, step {state.step}, validation")
        validation = self._monitor.validate(state.eval_network, self._monitored, progress=progress)
        clock.sample()
        state.record_dice(validation.mean)
        state.history[-1] |= validation.history_columns
        self._reserve(clock.elapsed_seconds - began)
        state.history[-1]["validation_loss"] = self._loss(state.eval_network)

    def _choose_monitored(self) -> None:
        """Measure a case before the first validation, and score as many during training as the time allows."""
        clock, most = self._clock, len(self._monitored)
        if not clock.validated_cases:
            clock.validated_cases = self._time_case()
            if 1 < clock.validated_cases < most:  # the first pass took longer, as it also started the engine
                clock.validated_cases = self._time_case()
            clock.sample()
            if clock.validated_cases < most:
                self._log.add(f"validation during training scores {clock.validated_cases} of {most} cases to save time")
        self._monitored = evenly_spaced(self._monitored, clock.validated_cases)

    def _time_case(self) -> int:
        """Measure a validation case and its trials; return how many cases there is time for during training."""
        network, case, trials = self._state.eval_network, self._monitored[0], trials_for(self._config)
        case_seconds, trial_seconds = map(self._group.broadcast, self._monitor.time_case(network, case, trials))
        self._clock.trial_seconds = trial_seconds
        return self._clock.cases_in_time(len(self._monitored), case_seconds / self._group.world_size)

    def _reserve(self, seconds: float) -> None:
        """Reserve time for the validation of the last epoch and the final one, with mirroring and trials.

        Args:
            seconds: Duration of the validation of this epoch.
        """
        clock = self._clock
        clock.validation_seconds += seconds
        clock.view_seconds = seconds / len(self._monitored)
        trial_seconds = 2 * self._window_cases * clock.view_seconds if self._wide else 0.0
        clock.reserve_seconds = seconds + self._final_validation(clock.final_seconds).seconds + trial_seconds

    @property
    def _window_cases(self) -> int:
        """Number of validation cases on which larger windows are compared with windows of the patch size."""
        seconds = _SHARE_OF_WINDOWS * self._clock.final_seconds / max(2 * self._clock.view_seconds, 1e-3)
        return int(max(1, min(_MOST_WINDOW_CASES, len(self._cases.val), seconds)))

    def _choose_window(self, best: TrainedNetwork) -> None:
        """Try windows larger than patches if volumes are that long, and keep them if the Dice is no lower."""
        if self._wide is None:
            return
        cases = evenly_spaced(self._cases.val, self._window_cases)
        wide = self._config.inferring(window=self._wide)
        with_wide = Validator(_without_mirroring(wide), self._dtype, self._group)
        as_patches = self._monitor.validate(best.network, cases, progress=self._renamed("small windows")).mean
        larger = with_wide.validate(best.network, cases, progress=self._renamed("large windows")).mean
        logger.info(
            "windows of %s voxels: Dice %.4f on %d validation cases; with windows of the patch size: %.4f",
            " x ".join(map(str, self._wide)), larger, len(cases), as_patches,
        )  # fmt: skip
        if larger >= as_patches:
            self._score_with(wide)
            if self._group.is_leader:
                set_window(self._folder / MODEL_FILE, self._wide)

    def _final_validation(self, allowed_seconds: float) -> FinalValidation:
        clock, views = self._clock, 2 ** len(self._config.inference.mirror_axes)
        by_views = {views: self._passes * clock.view_seconds}
        if self._passes > 1:
            by_views[1] = clock.view_seconds
        trial_seconds = clock.trial_seconds / self._group.world_size
        return FinalValidation.within(allowed_seconds, len(self._cases.val), by_views, trial_seconds)

    def _save_epoch(self) -> None:
        """Save the model if it is the best so far, the state if due, and the history."""
        if not self._group.is_leader:
            return
        state, clock = self._state, self._clock
        is_best = state.best_epoch == state.epoch
        if is_best:
            path = self._folder / MODEL_FILE
            save_model(path, state.eval_network, self._config, dice=state.best_dice, epoch=state.epoch)
        if is_best or clock.progress(state.step) >= 1.0 or clock.saving_is_due():
            save_last(state, self._folder / LAST_FILE, self._config)
        write_history(state.history, self._folder / HISTORY_FILE)

    def _show_epoch(self, board: Board) -> None:
        """Log the numbers of an epoch to TensorBoard and, if it was validated, a slice."""
        if not self._group.is_leader:
            return
        state, case = self._state, self._monitored[0]
        row = state.history[-1]
        if "dice" in row:
            board.add_slices(state.step, case, self._monitor.logits(state.eval_network, case))
        board.add_epoch(row)
        self._on_epoch_done(row)

    def _validate_best_model(self) -> Validation:
        """Score the best model on the validation cases, as far as time allows, with the trials still to be decided."""
        with self._group.leader_first():
            best = load_model(self._folder / MODEL_FILE, self._device)
        self._choose_window(best)
        self._clock.sample()
        whole, some = (self._final_validation(s) for s in (math.inf, self._clock.final_seconds_left))
        if some != whole:
            logger.warning(
                "to stay within the time, the final validation uses %s; all of them would take %s longer "
                "(--validate-all)",
                some.compared_with(whole),
                timedelta(seconds=round(whole.seconds - some.seconds)),
            )
        validator = self._validator if some.views == whole.views else self._monitor
        cases = evenly_spaced(self._cases.val, some.cases)
        left_out = tuple(case.case_id for case in self._cases.val if case not in cases)
        found = validator.validate(best.network, cases, trials_for(self._config), self._progress)
        return replace(found, views=(some.views,) * len(cases), left_out=left_out)

    def _is_finished(self) -> bool:
        return is_finished(self._state, self._config.training)

    def _result(self, validation: Validation) -> TrainingResult:
        state = self._state
        return TrainingResult(self._folder / MODEL_FILE, state.best_epoch, validation, tuple(state.history))

    def _renamed(self, stage: str) -> Progress:
        return lambda _, done, total, note="": self._progress(stage, done, total, note)


def _without_mirroring(config: Config) -> Config:
    """Return the configuration without mirroring, so that validation takes one pass per case."""
    return config.inferring(mirror_axes=())
