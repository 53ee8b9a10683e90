"""MONAI's residual unit with less memory."""

from __future__ import annotations

from monai.networks.blocks import ResidualUnit
from torch import Tensor

__all__ = ["LeanResidualUnit", "ResidualUnit"]


class LeanResidualUnit(ResidualUnit):  # type: ignore[misc]  # MONAI ships no types
    """MONAI's residual unit, adding in place."""

    def forward(self, features: Tensor) -> Tensor:
        """Run the unit: (B, C, R, A, S) -> (B, outputs, ...)."""
        result: Tensor = self.conv(features)
        if result is features:
            return result + self.residual(features)
        return result.add_(self.residual(features))
