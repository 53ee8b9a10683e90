"""Models of volseg -> bundles of MONAI, ONNX and OpenVINO, each with what it takes to use them."""

from volseg.converting.convert import convert

__all__ = ["convert"]
