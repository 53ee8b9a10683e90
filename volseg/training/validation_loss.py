"""The loss on patches of validation cases, for comparison with the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import nn

from volseg.config import AugmentationConfig, Config
from volseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from volseg.training.losses import SegmentationLoss
from volseg.training.preparation import PreparedCase
from volseg.training.sampling import Patches

#: This many batches take about as long as one or two training steps, which also compute gradients.
_BATCHES = 4
_NOTHING = dict.fromkeys((name for name in AugmentationConfig.model_fields if name.endswith("_probability")), 0.0)


class ValidationLoss:
    """The loss on the same few patches of the validation cases each time, without augmentation.

    On whole volumes, it would need as much memory again as their logits.

    Args:
        cases: Validation cases.
        config: Loss, patches and seed.
        dtype: Arithmetic of the network.
        group: Each process computes its own patches; the loss is that of this process.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], config: Config, dtype: torch.dtype, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        plain = config.model_copy(update={"augmentation": config.augmentation.model_copy(update=_NOTHING)})
        self._patches = Patches(cases, plain, group.batch_shard(config.training.batch_size))
        self._loss = SegmentationLoss(config.loss, config.data)
        self._dtype = dtype

    def __call__(self, network: nn.Module) -> float:
        """Compute the loss of a network, which is left unchanged."""
        device, was_training = next(network.parameters()).device, network.training
        losses = []
        network.eval()
        for number in range(_BATCHES):
            batch = self._patches.batch(number)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype=self._dtype, enabled=self._dtype != torch.float32),
            ):
                logits = network(batch.image.to(device))
                losses.append(self._loss(logits, batch.reference.to(device), batch.unknown.to(device)).item())
        network.train(was_training)
        return fmean(losses)
