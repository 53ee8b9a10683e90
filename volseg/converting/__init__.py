"""Conversion of models to MONAI bundles, ONNX and OpenVINO, each with everything needed to use them."""

from volseg.converting.convert import convert

__all__ = ["convert"]
