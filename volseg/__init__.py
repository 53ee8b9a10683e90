"""volseg: 3D volumetric segmentation of MRI and CT, from a folder of scans to masks on the anatomy."""

from volseg.version import __version__

__all__ = ["__version__"]
