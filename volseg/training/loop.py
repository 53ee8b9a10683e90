"""Training, from prepared cases to a model, read from top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from volseg.config import Config, TrainingConfig
from volseg.errors import TrainingError
from volseg.inference.engines import is_shortage
from volseg.model.checkpoint import MODEL_FILE, load_model, save_model
from volseg.model.networks import choose_device, choose_precision, training_layout
from volseg.progress import Progress, ignore_progress
from volseg.training.choices import trials_for
from volseg.training.losses import SegmentationLoss
from volseg.training.preparation import PreparedCase
from volseg.training.record import (
    HISTORY_FILE,
    VALIDATION_FILE,
    Board,
    read_validation,
    write_history,
    write_validation,
)
from volseg.training.sampling import Patches, TrainingBatch, batches
from volseg.training.schedule import Clock, learning_rate
from volseg.training.state import LAST_FILE, State, restore, save_last, start
from volseg.training.team import ALONE, Team
from volseg.training.validation import NOTHING, Validation, seconds_to_try, validate

logger = logging.getLogger(__name__)

#: So many steps in a row with a loss that is not finite end the run.
_BROKEN_STEPS = 20
#: So many validations in a row that are worse than the best by this much end the run.
_WORSE_VALIDATIONS, _WORSE_DICE = 5, 0.02


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What came out.

    Attributes:
        model: The file of the best model.
        epochs: Finished epochs.
        best_epoch: After which the best validation Dice was reached.
        validation: Dice of the best model on all held-out cases.
    """

    model: Path
    epochs: int
    best_epoch: int
    validation: Validation


def train(
    train_cases: Sequence[PreparedCase],
    val_cases: Sequence[PreparedCase],
    config: Config,
    run: Path,
    clock: Clock,
    *,
    resume: bool = False,
    progress: Progress = ignore_progress,
    team: Team = ALONE,
) -> TrainingResult:
    """Train a network.

    Args:
        train_cases: What it learns from.
        val_cases: Held-out cases that choose the best epoch.
        config: Everything else.
        run: Output folder; gets model.pt, last.pt, history.csv, validation.csv and tensorboard/.
        clock: Started when the run began, so that a time budget includes what came before.
        resume: Go on from `last.pt` if it is there.
        progress: Told per step, in thousandths of the whole.
        team: The processes that train together; only its leader writes.

    Returns:
        The best model and its scores.

    Raises:
        TrainingError: If the loss is not finite for many steps in a row, or a step does not fit into memory.
        CheckpointError: If `last.pt` belongs to another configuration.
        OutputError: If the run folder cannot be written.
    """
    device = choose_device()
    dtype = choose_precision(config.training.precision, device)
    clock.sample(team.broadcast)
    state = start(config, device, dtype, clock)
    if resume and (run / LAST_FILE).is_file():
        restore(state, run / LAST_FILE, config)
        state.clock.sample(team.broadcast)
        if _is_over(state, config.training) and (run / VALIDATION_FILE).is_file():
            validation = read_validation(run / VALIDATION_FILE)
            return TrainingResult(run / MODEL_FILE, state.epoch, state.best_epoch, validation)
    step = Step(team.share(state.network), SegmentationLoss(config.loss, config.data), dtype, team)
    patches = Patches(train_cases, config, team.part(config.training.batch_size))
    watched = _spread(val_cases, config.training.validation_cases)
    board = Board(run / "tensorboard", state.epoch, config)
    state.clock.start_steps(state.step)
    with closing(batches(patches, config.training.workers, state.step)) as source:
        while not _is_over(state, config.training):
            row = _train_epoch(state, source, step, config.training, progress)
            state.epoch += 1
            if state.clock.progress(state.step) >= 1.0 or state.clock.validation_is_due(state.epoch):
                row |= _validate_epoch(state, watched, len(val_cases), config, step)
            state.history.append({"epoch": state.epoch, "step": state.step, **row})
            if team.leads:
                _keep_epoch(state, run, config)
                _show_epoch(state, board, watched[0], config, dtype)
            state.clock.sample(team.broadcast)
    if "dice" not in state.history[-1]:  # time ran out while that epoch was written down
        state.history[-1] |= _validate_epoch(state, watched, len(val_cases), config, step)
        if team.leads:
            _keep_epoch(state, run, config)
    board.close()
    with team.leader_first():
        best = load_model(run / MODEL_FILE, device)
    validation = validate(best.network, val_cases, config, dtype, progress, team, trials_for(config))
    if team.leads:
        write_validation(validation, run / VALIDATION_FILE)
    return TrainingResult(run / MODEL_FILE, state.epoch, state.best_epoch, validation)


@dataclass(frozen=True, eq=False)
class Step:
    """What a step is made with.

    Attributes:
        network: Whose gradients are those of the whole team.
        loss: What is minimised.
        dtype: Arithmetic of the network.
        team: Whose answers are gathered for the loss.
    """

    network: nn.Module
    loss: nn.Module
    dtype: torch.dtype
    team: Team


def _train_epoch(
    state: State,
    source: Iterator[TrainingBatch],
    step: Step,
    settings: TrainingConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Train until the clock ends the epoch.

    Returns:
        Mean loss, mean gradient norm, last learning rate, and where the time went, for the history.
    """
    began, rate, waited, voxels = state.clock.elapsed_seconds, 0.0, 0.0, 0
    losses: list[float] = []
    norms: list[float] = []
    broken = in_a_row = 0
    state.network.train()
    while not losses or not state.clock.epoch_is_over(state.step, len(losses) + broken, began):
        rate = learning_rate(settings, state.step, state.clock.progress(state.step))
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        asked = time.perf_counter()
        batch = next(source)
        waited += time.perf_counter() - asked
        voxels += batch.reference.numel() * step.team.size
        # Dropout of a resumed run must equal that of an undisturbed one.
        torch.manual_seed((settings.seed << 32) + state.step)
        try:
            value, norm = _train_step(state, batch, step, settings.gradient_clip)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise _too_large(batch) from error
        state.step += 1
        state.clock.sample(step.team.broadcast)
        if value is None:
            broken, in_a_row = broken + 1, in_a_row + 1
            if in_a_row >= _BROKEN_STEPS:
                raise TrainingError(
                    f"the loss was not finite in {in_a_row} steps in a row",
                    hint="lower training.learning_rate or set precision=fp32",
                )
            continue
        in_a_row = 0
        losses.append(value)
        norms.append(norm)
        progress("train", round(1000 * state.clock.progress(state.step)), 1000, _note(state, losses))
    seconds = state.clock.elapsed_seconds
    trained = seconds - began
    return {
        "seconds": round(seconds, 2),
        "learning_rate": rate,
        "loss": fmean(losses),
        "gradient_norm": fmean(norms),
        "skipped_steps": broken,
        "steps_per_second": round((len(losses) + broken) / trained, 3),
        "voxels_per_second": round(voxels / trained),
        "data_wait_share": round(waited / trained, 4),
    }


def _too_large(batch: TrainingBatch) -> TrainingError:
    size = " x ".join(str(length) for length in batch.image.shape[2:])
    return TrainingError(
        f"a step with {len(batch.image)} patches of {size} voxels does not fit into memory",
        hint="lower training.batch_size or, if that is 1 or 2, patches.size",
    )


def _note(state: State, losses: Sequence[float]) -> str:
    """What a person who waits wants to know."""
    best = f", best Dice {state.best_dice:.4f}" if state.best_epoch else ""
    left = timedelta(seconds=round(state.clock.seconds_left(state.step)))
    return f"loss {fmean(losses[-20:]):.3f}{best}, {left} left"


def _train_step(state: State, batch: TrainingBatch, step: Step, clip: float) -> tuple[float | None, float]:
    """One step of the optimiser.

    Returns:
        The loss, None if it or its gradient was not finite and the step was left out; and the norm before clipping.
    """
    device = next(state.network.parameters()).device
    image = batch.image.to(device, memory_format=training_layout(device))
    with torch.autocast(device.type, dtype=step.dtype, enabled=step.dtype != torch.float32):
        logits = step.network(image)
    answered = (batch.reference.to(device), batch.unknown.to(device))
    value = step.loss(step.team.whole(logits), *(step.team.whole(part) for part in answered))
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(value * step.team.size).backward()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), clip)
    finite = bool(torch.isfinite(value)) and bool(torch.isfinite(norm))
    if finite:
        state.scaler.step(state.optimizer)
    state.scaler.update()
    if not finite:
        return None, 0.0
    if state.average is not None:
        state.average.update_parameters(state.network)
    return value.item(), float(norm)


def _validate_epoch(
    state: State, watched: Sequence[PreparedCase], total: int, config: Config, step: Step
) -> dict[str, Any]:
    """Validate, remember whether it was the best, and learn how long a validation takes."""
    trials = trials_for(config)
    if not state.clock.trial_seconds and trials != NOTHING:
        state.clock.trial_seconds = step.team.broadcast(
            seconds_to_try(trials, state.validated, watched[0], config, step.dtype)
        )
        state.clock.sample(step.team.broadcast)
    began = state.clock.elapsed_seconds
    inference = config.inference.model_copy(update={"mirror_axes": ()})  # which would take as long again
    plain = config.model_copy(update={"inference": inference})
    validation = validate(state.validated, watched, plain, step.dtype, team=step.team)
    state.clock.sample(step.team.broadcast)
    if validation.mean > state.best_dice:
        state.best_dice, state.best_epoch, state.stale = validation.mean, state.epoch, 0
    else:
        state.stale += 1
    seconds = state.clock.elapsed_seconds - began
    state.clock.validation_seconds += seconds
    views = 2 ** len(config.inference.mirror_axes)
    last = seconds * (1 + views * total / len(watched))  # the last of an epoch and that of all
    state.clock.reserve_seconds = last + state.clock.trial_seconds * total / step.team.size
    logger.info("epoch %d: validation Dice %.4f, best %.4f", state.epoch, validation.mean, state.best_dice)
    named = {
        f"dice_{label}": value for label, value in zip(validation.labels, validation.per_label.tolist(), strict=True)
    }
    return {"dice": validation.mean, **named}


def _keep_epoch(state: State, run: Path, config: Config) -> None:
    """Write the model if it is the best so far, the state if that is due, and the history."""
    is_best = state.best_epoch == state.epoch
    if is_best:
        save_model(run / MODEL_FILE, state.validated, config, dice=state.best_dice, epoch=state.epoch)
    if is_best or state.clock.progress(state.step) >= 1.0 or state.clock.saving_is_due():
        save_last(state, run / LAST_FILE, config)
    write_history(state.history, run / HISTORY_FILE)


def _show_epoch(state: State, board: Board, case: PreparedCase, config: Config, dtype: torch.dtype) -> None:
    """Show the numbers of an epoch and, when it was validated, a slice."""
    row = state.history[-1]
    if "dice" in row:
        board.add_slices(state.epoch, state.validated, case, config, dtype)
    board.add_epoch(state.epoch, row)


def _is_over(state: State, settings: TrainingConfig) -> bool:
    """Whether time is up, the Dice good enough, or nothing becomes better; not before the first epoch."""
    stale = 0 < settings.patience <= state.stale
    reached = settings.target_dice is not None and state.best_dice >= settings.target_dice
    ended = stale or reached or overfits(state.history) or state.clock.progress(state.step) >= 1.0
    return state.epoch > 0 and ended


def overfits(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether held-out cases have become clearly worse, in several validations in a row, while training went on."""
    dice = [row["dice"] for row in history if "dice" in row]
    return len(dice) > _WORSE_VALIDATIONS and max(dice[-_WORSE_VALIDATIONS:]) < max(dice) - _WORSE_DICE


def _spread(cases: Sequence[PreparedCase], count: int) -> list[PreparedCase]:
    """At most `count` cases, evenly out of all."""
    step = max(1.0, len(cases) / count)
    return [cases[int(n * step)] for n in range(min(count, len(cases)))]
