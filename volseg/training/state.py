"""The state of a run, saved in last.pt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from volseg.config import Config, dump
from volseg.errors import CheckpointError
from volseg.model.checkpoint import load, save, stored_config
from volseg.model.networks import arranged, begin_with_pretrained, build_network, choose_memory_format
from volseg.training.optimizers import build_optimizer
from volseg.training.schedule import Clock
from volseg.training.transfer import freeze_encoder, load_matching_weights

#: Fields of a state that are saved unchanged.
_NUMBERS = ("epoch", "step", "best_dice", "best_epoch", "stale")
_CLOCK_NUMBERS = (
    "validation_seconds",
    "saving_seconds",
    "view_seconds",
    "trial_seconds",
    "validated_cases",
    "reserve_seconds",
    "reached",
    "warm_from",
)

logger = logging.getLogger(__name__)


@dataclass
class State:
    """The state that a resumed run needs to continue exactly as if it had not been interrupted.

    Attributes:
        network: The network in training.
        average: Exponential moving average of its weights; None if the configuration disables it.
        optimizer: The optimiser.
        scaler: Scales the loss for float16.
        clock: The clock of the run.
        epoch: Number of finished epochs.
        step: Number of finished steps.
        best_dice: Best validation Dice so far.
        best_epoch: The epoch with the best Dice, from 1.
        stale: Number of validations since the best.
        history: The rows of history.csv, one per epoch.
    """

    network: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    clock: Clock
    epoch: int = 0
    step: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def eval_network(self) -> nn.Module:
        """The network to validate and save: the averaged one if there is one."""
        return self.average.module if self.average is not None else self.network

    def record_dice(self, dice: float) -> None:
        """Record the validation Dice of this epoch if it is the best so far, else count a stale validation."""
        if dice > self.best_dice:
            self.best_dice, self.best_epoch, self.stale = dice, self.epoch, 0
        else:
            self.stale += 1


def start(config: Config, device: torch.device, dtype: torch.dtype, clock: Clock) -> State:
    """Create the state of a run before its first step.

    Args:
        config: Network, optimiser and seed.
        device: Where the network is trained.
        dtype: Floating-point type of the network.
        clock: The clock of the run.

    Returns:
        A state with random weights, determined by the seed, or with those of an earlier network.

    Raises:
        CheckpointError: If the model to start from does not exist or does not fit.
    """
    settings = config.training
    torch.manual_seed(settings.seed)
    network = build_network(config.network, len(config.data.channels), config.data.outputs)
    loaded = begin_with_pretrained(network, config.network)
    if settings.start_from is not None:
        loaded = load_matching_weights(network, config, Path(settings.start_from))
    if settings.freeze_encoder:
        freeze_encoder(network, config.network.name, loaded)
    memory_format = choose_memory_format(settings.memory_format, device)
    arranged(network, memory_format, device)
    average = None
    if settings.ema_decay:
        average = AveragedModel(network, multi_avg_fn=_moving_average(settings.ema_decay), use_buffers=True)
    optimizer = build_optimizer(network, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return State(network, average, optimizer, scaler, clock)


def _moving_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return an exponential moving average whose decay rises to `decay`: it spans about a tenth of the steps so far."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        number = int(count)  # read once: PyTorch keeps it on the device of the weights
        keep = min(decay, (1 + number) / (10 + number))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:  # counters
                mean.copy_(value)

    return update


def save_last(state: State, path: Path, config: Config) -> None:
    """Save a state atomically.

    Raises:
        OutputError: If it cannot be written.
    """
    began = time.monotonic()
    save(
        path,
        {
            "config": dump(config),
            "network": state.network.state_dict(),
            "average": state.average.state_dict() if state.average is not None else {},
            "optimizer": state.optimizer.state_dict(),
            "scaler": state.scaler.state_dict(),
            "numbers": {name: getattr(state, name) for name in _NUMBERS},
            "clock": {name: getattr(state.clock, name) for name in _CLOCK_NUMBERS},
            "elapsed_seconds": state.clock.elapsed_seconds,
            "history": state.history,
        },
    )
    state.clock.saving_seconds += time.monotonic() - began


def restore(state: State, path: Path, config: Config) -> None:
    """Restore what `save_last` saved.

    Raises:
        CheckpointError: If the file is damaged or belongs to another configuration.
    """
    content = load(path)
    if stored_config(path, content.get("config", "")) != config:
        raise CheckpointError(
            f"{path} was saved with another configuration", hint="resume with the same options, or use another --output"
        )
    state.network.load_state_dict(content["network"])
    if state.average is not None:
        state.average.load_state_dict(content["average"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    for name in _NUMBERS:
        setattr(state, name, content["numbers"][name])
    for name in _CLOCK_NUMBERS:
        setattr(state.clock, name, content["clock"].get(name, 0.0))  # version 0.1.0 saved fewer fields
    state.clock.spent_seconds = content["elapsed_seconds"]
    state.clock.sample()
    state.history = content["history"]
    logger.info("resumed after epoch %d, step %d", state.epoch, state.step)
