"""Ways down that networks share: an image -> feature maps, each half as fine as the one before."""

from volseg.model.encoders.build import COARSEST, build_encoder
from volseg.model.encoders.encoder import Encoder

__all__ = ["COARSEST", "Encoder", "build_encoder"]
