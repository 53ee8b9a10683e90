"""volseg: 3D volumetric segmentation of MRI and CT, from a folder of scans to masks on the anatomy."""

__version__ = "0.1.0"
