"""MONAI's DynUNet, modified so that it can be copied during training."""

from __future__ import annotations

import torch
from monai.networks.nets import DynUNet
from torch import Tensor


class CopyableDynUNet(DynUNet):  # type: ignore[misc]  # MONAI ships no types
    """A DynUNet that does not keep the outputs of its coarser levels.

    MONAI's keeps those of the last patches together with their autograd graph: PyTorch refuses to copy such a network,
    and their memory is held until the next step.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Run the network: (B, C, R, A, S) -> (B, outputs, R, A, S).

        In training with deep supervision: (B, 1 + levels, ...).
        """
        logits: Tensor = super().forward(image)
        self.heads[:] = [torch.empty(0)] * len(self.heads)
        return logits
