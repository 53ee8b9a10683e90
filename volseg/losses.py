"""Losses: MONAI's, built from the configuration, all on logits and class indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from volseg.config import DataConfig, LossConfig
from volseg.outputs import encode


class SegmentationLoss(nn.Module):
    """A loss between logits and a reference.

    Args:
        config: Which loss.
        data: What the outputs mean: labels go through a softmax, regions each through a sigmoid.
    """

    def __init__(self, config: LossConfig, data: DataConfig) -> None:
        super().__init__()
        self.data = data
        self.batch = config.batch
        self.loss = _build(config, sigmoid=bool(data.regions))

    def forward(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Compare.

        Args:
            logits: (B, outputs, R, A, S) float, or (B, levels, outputs, R, A, S) of which each level counts half as
                much as the one before.
            reference: (B, 1, R, A, S) label values; what it says nothing of is left out.

        Returns:
            A scalar.
        """
        if logits.ndim > reference.ndim:
            levels = logits.unbind(1)
            weights = [0.5**level for level in range(len(levels))]
            losses = [weight * self(level, reference) for weight, level in zip(weights, levels, strict=True)]
            return torch.stack(losses).sum() / sum(weights)
        if self.data.ignored_value is None:
            return self._compare(logits, reference)
        known = reference[:, 0] != self.data.ignored_value
        groups = [slice(None)] if self.batch else [slice(n, n + 1) for n in range(len(logits))]
        losses = [
            self._compare(*_voxels(logits[group], reference[group], known[group]))
            for group in groups
            if known[group].any()
        ]
        return torch.stack(losses).mean() if losses else 0.0 * logits.float().sum()

    def _compare(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.loss(logits.float(), encode(reference, self.data).float())
        return loss


def _voxels(logits: torch.Tensor, reference: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The N known voxels of some patches, (1, outputs, N) and (1, 1, N)."""
    return logits.movedim(1, -1)[known].T[None], reference[:, 0][known][None, None]


class DiceAndBinaryEntropy(nn.Module):
    """Dice plus binary cross-entropy, for outputs that do not exclude each other.

    MONAI's DiceCELoss takes the cross-entropy of a softmax over all outputs even when its Dice uses sigmoids.

    Args:
        dice: A Dice loss with sigmoids.
    """

    def __init__(self, dice: nn.Module) -> None:
        super().__init__()
        self.dice = dice
        self.entropy = nn.BCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare logits (B, outputs, ...) with zeros and ones of the same shape."""
        total: torch.Tensor = self.dice(logits, target) + self.entropy(logits, target)
        return total


def _build(config: LossConfig, *, sigmoid: bool) -> nn.Module:
    from monai import losses

    # The first region is not background, so nothing is left out of it.
    overlap: dict[str, Any] = {
        "include_background": config.background or sigmoid,
        "sigmoid": sigmoid,
        "softmax": not sigmoid,
        "batch": config.batch,
    }
    match config.name:
        case "dice":
            return losses.DiceLoss(**overlap)
        case "jaccard":
            return losses.DiceLoss(jaccard=True, **overlap)
        case "dice_ce":
            return DiceAndBinaryEntropy(losses.DiceLoss(**overlap)) if sigmoid else losses.DiceCELoss(**overlap)
        case "dice_focal":
            return losses.DiceFocalLoss(**overlap)
        case "generalized_dice":
            return losses.GeneralizedDiceLoss(**overlap)
        case "tversky":
            return losses.TverskyLoss(alpha=config.tversky_alpha, beta=config.tversky_beta, **overlap)
