"""Losses of MONAI, built from the configuration, on logits and class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from volseg.config import DataConfig, LossConfig, LossName
from volseg.model.label_encoding import encode

#: The logit that stands for a probability of 0, but finite, so that 0 times its logarithm is 0.
_NEVER = -1e4


class SegmentationLoss(nn.Module):
    """A loss between logits and a reference.

    Args:
        config: The loss to build.
        data: States the meaning of the outputs: a softmax over labels, or a sigmoid for each region.
    """

    def __init__(self, config: LossConfig, data: DataConfig) -> None:
        super().__init__()
        self.data = data
        self.batch = config.batch
        self.loss = _build(config, sigmoid=bool(data.regions))

    def forward(
        self, logits: torch.Tensor, reference: torch.Tensor, unknown: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: (B, outputs, R, A, S) float, or (B, levels, outputs, R, A, S) with deep supervision; each level has
                half the weight of the one before.
            reference: (B, 1, R, A, S) label values; voxels of the ignored value are left out.
            unknown: (B, outputs) bool, the outputs that are not annotated in a patch; None if all are.

        Returns:
            A scalar.
        """
        if unknown is not None and not unknown.any():  # checked once, since the check waits for the GPU
            unknown = None
        if logits.ndim > reference.ndim:
            levels = logits.unbind(1)
            weights = [0.5**level for level in range(len(levels))]
            losses = [weight * self(level, reference, unknown) for weight, level in zip(weights, levels, strict=True)]
            return torch.stack(losses).sum() / sum(weights)
        logits, target = logits.float(), encode(reference, self.data).float()
        if unknown is not None:
            logits, target = self._mask_unknown(logits, target, unknown[(..., *[None] * (logits.ndim - 2))])
        if self.data.ignored_value is None:
            loss: torch.Tensor = self.loss(logits, target)
            return loss
        known = reference[:, 0] != self.data.ignored_value
        groups = [slice(None)] if self.batch else [slice(n, n + 1) for n in range(len(logits))]
        losses = [
            self.loss(_select(logits[group], known[group]), _select(target[group], known[group]))
            for group in groups
            if known[group].any()
        ]
        return torch.stack(losses).mean() if losses else 0.0 * logits.sum()

    def _mask_unknown(
        self, logits: torch.Tensor, target: torch.Tensor, unknown: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exclude the unknown outputs of each patch from the loss.

        A label that is not annotated may be anywhere in the background: its probability is added to the background's
        (Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised multi-organ segmentation").
        Regions are independent: an unknown one is simply left out.
        """
        masked = logits.masked_fill(unknown, _NEVER)
        if self.data.regions:
            return masked, target.masked_fill(unknown, 0.0)
        is_background = torch.arange(logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2)) == 0
        background = logits.masked_fill(~(unknown | is_background), _NEVER).logsumexp(dim=1, keepdim=True)
        return torch.cat([background, masked[:, 1:]], dim=1), target


def _select(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Select the N known voxels of some patches: (B, outputs, R, A, S) -> (1, outputs, N)."""
    return values.movedim(1, -1)[known].T[None]


class DiceBCELoss(nn.Module):
    """Dice loss plus binary cross-entropy, for outputs that do not exclude each other.

    MONAI's DiceCELoss takes the cross-entropy of a softmax over all outputs even when its Dice uses sigmoids.

    Args:
        dice: A Dice loss with sigmoids.
    """

    def __init__(self, dice: nn.Module) -> None:
        super().__init__()
        self.dice = dice
        self.cross_entropy = nn.BCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss between logits (B, outputs, ...) and zeros and ones of the same shape."""
        total: torch.Tensor = self.dice(logits, target) + self.cross_entropy(logits, target)
        return total


class Mixture(nn.Module):
    """The weighted sum of several losses.

    Args:
        terms: Losses and weights.
    """

    def __init__(self, terms: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(loss for loss, _ in terms)
        self.weights = [weight for _, weight in terms]

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the loss between logits (B, outputs, ...) and zeros and ones of the same shape."""
        each = [weight * loss(logits, target) for loss, weight in zip(self.losses, self.weights, strict=True)]
        return torch.stack(each).sum()


def _build(config: LossConfig, *, sigmoid: bool) -> nn.Module:
    if config.name == "mixture":
        return Mixture([(_one(name, config, sigmoid=sigmoid), weight) for name, weight in config.terms.items()])
    return _one(config.name, config, sigmoid=sigmoid)


def _one(name: LossName, config: LossConfig, *, sigmoid: bool) -> nn.Module:  # noqa: PLR0911  one for each name
    from monai import losses

    # With several regions, the first one is not background and must be included.
    overlap: dict[str, Any] = {
        "include_background": config.background or sigmoid,
        "sigmoid": sigmoid,
        "softmax": not sigmoid,
        "batch": config.batch,
    }
    match name:
        case "dice":
            return losses.DiceLoss(**overlap)
        case "jaccard":
            return losses.DiceLoss(jaccard=True, **overlap)
        case "dice_ce":
            return DiceBCELoss(losses.DiceLoss(**overlap)) if sigmoid else losses.DiceCELoss(**overlap)
        case "dice_focal":
            return losses.DiceFocalLoss(**overlap)
        case "generalized_dice":
            return losses.GeneralizedDiceLoss(**overlap)
        case "tversky":
            return losses.TverskyLoss(alpha=config.tversky_alpha, beta=config.tversky_beta, **overlap)
        case "ce":
            return nn.BCEWithLogitsLoss() if sigmoid else nn.CrossEntropyLoss()
        case "focal":
            return losses.FocalLoss(include_background=True, use_softmax=not sigmoid)
