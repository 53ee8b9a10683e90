"""A training step: forward pass, loss, backward pass and optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from volseg.config import Config
from volseg.errors import TrainingError
from volseg.inference.engines import is_shortage
from volseg.model.networks import choose_memory_format
from volseg.training.agreement import Agreement
from volseg.training.distributed import ProcessGroup
from volseg.training.losses import SegmentationLoss
from volseg.training.sampling import TrainingBatch
from volseg.training.schedule import learning_rate
from volseg.training.state import State


@dataclass(frozen=True)
class StepResult:
    """The result of a training step.

    Attributes:
        loss: Loss of the batch of all processes.
        gradient_norm: Gradient norm before clipping.
        learning_rate: Learning rate of the step.
        voxels: Number of voxels in the batch of all processes.
        agreement: Agreement of predictions and references.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    voxels: int
    agreement: Agreement

    @property
    def is_finite(self) -> bool:
        """Return whether the loss and its gradient are finite; if not, the step was skipped."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class TrainingStep:
    """The training step of a run, called once per batch.

    Args:
        state: The state of the run; each step changes its network and optimiser.
        config: Loss, learning rate and seed.
        dtype: Floating-point type of the network.
        group: The processes whose logits are gathered for the loss.
    """

    def __init__(self, state: State, config: Config, dtype: torch.dtype, group: ProcessGroup) -> None:
        self._state = state
        self._settings = config.training
        self._dtype = dtype
        self._group = group
        self._network = group.distribute(state.network)
        self._loss = SegmentationLoss(config.loss, config.data)
        self._data = config.data

    def __call__(self, batch: TrainingBatch) -> StepResult:
        """Take a step; skip it if its loss or gradient is not finite.

        Args:
            batch: The patches of this process.

        Returns:
            The result of the step.

        Raises:
            TrainingError: If the batch does not fit into memory.
        """
        try:
            return self._take(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            raise _too_large(batch) from error

    def _take(self, batch: TrainingBatch) -> StepResult:
        rate = self._set_learning_rate()
        # Dropout in a resumed run must be the same as in an uninterrupted one.
        torch.manual_seed((self._settings.seed << 32) + self._state.step)
        loss, agreement = self._forward(batch)
        norm = self._backward(loss)
        voxels = batch.reference.numel() * self._group.world_size
        result = StepResult(loss.item(), norm.item(), rate, voxels, agreement)
        self._update(finite=result.is_finite)
        self._state.step += 1
        return result

    def _set_learning_rate(self) -> float:
        state = self._state
        clock = state.clock
        rate = learning_rate(self._settings, state.step, clock.progress(state.step), clock.warm_from)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _forward(self, batch: TrainingBatch) -> tuple[torch.Tensor, Agreement]:
        """Return the loss of the batch of all processes, a scalar, and the agreement of predictions and references."""
        device = next(self._state.network.parameters()).device
        image = batch.image.to(device, memory_format=choose_memory_format(self._settings.memory_format, device))
        with torch.autocast(device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            logits = self._network(image)
        shards = (logits, batch.reference.to(device), batch.unknown.to(device))
        answers, reference, unknown = (self._group.gather_batch(shard) for shard in shards)
        loss: torch.Tensor = self._loss(answers, reference, unknown)
        return loss, Agreement.of(answers, reference, unknown, self._data)

    def _backward(self, loss: torch.Tensor) -> torch.Tensor:
        """Compute and clip the gradient.

        Returns:
            Its norm before clipping, a scalar.
        """
        state = self._state
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss * self._group.world_size).backward()  # type: ignore[no-untyped-call]  # PyTorch has no types here
        state.scaler.unscale_(state.optimizer)
        return nn.utils.clip_grad_norm_(state.network.parameters(), self._settings.gradient_clip)

    def _update(self, *, finite: bool) -> None:
        """Update the weights; a gradient that is not finite only changes the scale of the following ones."""
        state = self._state
        if finite:
            state.scaler.step(state.optimizer)
        state.scaler.update()
        if finite and state.average is not None:
            state.average.update_parameters(state.network)


def _too_large(batch: TrainingBatch) -> TrainingError:
    size = " x ".join(str(length) for length in batch.image.shape[2:])
    return TrainingError(
        f"a step with {len(batch.image)} patches of {size} voxels does not fit into memory",
        hint="lower training.batch_size or, if that is 1 or 2, patches.size",
    )
