"""Encoders shared by several networks: an image -> feature maps, each at half the resolution of the previous one."""

from volseg.model.encoders.build import COARSEST, build_encoder
from volseg.model.encoders.encoder import Encoder

__all__ = ["COARSEST", "Encoder", "build_encoder"]
