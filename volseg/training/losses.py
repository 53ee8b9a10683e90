"""Losses: MONAI's, built from the configuration, all on logits and class indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from volseg.config import DataConfig, LossConfig
from volseg.model.label_encoding import encode

#: A logit of probability 0, but finite, so that 0 times its logarithm is 0.
_NEVER = -1e4


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

    def forward(
        self, logits: torch.Tensor, reference: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compare.

        Args:
            logits: (B, outputs, R, A, S) float, or (B, levels, outputs, R, A, S) of which each level counts half as
                much as the one before.
            reference: (B, 1, R, A, S) label values; what it says nothing of is left out.
            unknown: (B, outputs) bool, the outputs that the reference of a patch says nothing of; None if there are
                none.

        Returns:
            A scalar.
        """
        if logits.ndim > reference.ndim:
            levels = logits.unbind(1)
            weights = [0.5**level for level in range(len(levels))]
            losses = [weight * self(level, reference, unknown) for weight, level in zip(weights, levels, strict=True)]
            return torch.stack(losses).sum() / sum(weights)
        logits, wanted = logits.float(), encode(reference, self.data).float()
        if unknown is not None and unknown.any():
            logits, wanted = self._of_known_outputs(logits, wanted, unknown[(..., *[None] * (logits.ndim - 2))])
        if self.data.ignored_value is None:
            whole: torch.Tensor = self.loss(logits, wanted)
            return whole
        known = reference[:, 0] != self.data.ignored_value
        groups = [slice(None)] if self.batch else [slice(n, n + 1) for n in range(len(logits))]
        losses = [
            self.loss(_voxels(logits[group], known[group]), _voxels(wanted[group], known[group]))
            for group in groups
            if known[group].any()
        ]
        return torch.stack(losses).mean() if losses else 0.0 * logits.sum()

    def _of_known_outputs(
        self, logits: torch.Tensor, wanted: torch.Tensor, unknown: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the unknown outputs of each patch cost nothing, whatever they are.

        A label that was not looked for may be anywhere in the background: its probability counts as background's
        (Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation").
        A region that is not known stands for itself.
        """
        without = logits.masked_fill(unknown, _NEVER)
        if self.data.regions:
            return without, wanted.masked_fill(unknown, 0.0)
        is_background = torch.arange(logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2)) == 0
        background = logits.masked_fill(~(unknown | is_background), _NEVER).logsumexp(dim=1, keepdim=True)
        return torch.cat([background, without[:, 1:]], dim=1), wanted


def _voxels(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The N known voxels of some patches, (1, outputs, N)."""
    return values.movedim(1, -1)[known].T[None]


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
