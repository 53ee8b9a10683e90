"""MONAI's DynUNet, which may be copied while it learns."""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet
from torch import Tensor


class CopyableDynUNet(DynUNet):  # type: ignore[misc]  # MONAI ships no types
    """A DynUNet that does not keep the answers of its coarser levels.

    MONAI's holds those of the last patches, with the way back through the network to their gradients: PyTorch refuses
    to copy such a network, and their memory is taken until the next step.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, R, A, S) -> (B, outputs, R, A, S); with deep supervision, while training, (B, 1 + levels, ...)."""
        logits: Tensor = super().forward(image)
        self.heads[:] = [torch.empty(0)] * len(self.heads)
        return logits
