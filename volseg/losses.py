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
        self.loss = _build(config, sigmoid=bool(data.regions))

    def forward(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Compare.

        Args:
            logits: (B, outputs, R, A, S) float.
            reference: (B, 1, R, A, S) label values.

        Returns:
            A scalar.
        """
        loss: torch.Tensor = self.loss(logits.float(), encode(reference, self.data).float())
        return loss


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
