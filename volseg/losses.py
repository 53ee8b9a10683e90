"""Losses: MONAI's, built from the configuration, all on logits and class indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from volseg.config import LossConfig, Region


class SegmentationLoss(nn.Module):
    """A loss between logits and a reference.

    With labels, the classes exclude each other (softmax); with regions, each output is a yes or no (sigmoid).

    Args:
        config: Which loss.
        classes: Values of background and the labels in the order of the outputs; ignored with regions.
        regions: The regions in the order of the outputs, if any.
    """

    def __init__(self, config: LossConfig, classes: tuple[int, ...], regions: tuple[Region, ...] = ()) -> None:
        super().__init__()
        self.regions = regions
        self.classes = classes
        self.loss = _build(config, sigmoid=bool(regions))

    def forward(self, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Compare.

        Args:
            logits: (B, outputs, R, A, S) float.
            reference: (B, 1, R, A, S) label values.

        Returns:
            A scalar.
        """
        return self.loss(logits.float(), encode(reference, self.classes, self.regions))  # type: ignore[no-any-return]


def encode(reference: torch.Tensor, classes: tuple[int, ...], regions: tuple[Region, ...] = ()) -> torch.Tensor:
    """Label values -> one channel per output.

    Args:
        reference: (B, 1, R, A, S) label values.
        classes: As in `SegmentationLoss`.
        regions: As in `SegmentationLoss`.

    Returns:
        (B, outputs, R, A, S) float32 of zeros and ones.
    """
    sets = [region.labels for region in regions] or [(value,) for value in classes]
    channels = [torch.isin(reference, torch.tensor(values, device=reference.device)) for values in sets]
    return torch.cat(channels, dim=1).float()


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
            return losses.DiceCELoss(**overlap)
        case "dice_focal":
            return losses.DiceFocalLoss(**overlap)
        case "generalized_dice":
            return losses.GeneralizedDiceLoss(**overlap)
        case "tversky":
            return losses.TverskyLoss(alpha=config.tversky_alpha, beta=config.tversky_beta, **overlap)
