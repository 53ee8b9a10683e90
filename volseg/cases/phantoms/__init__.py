"""Synthetic abdomens for training within minutes, without patient data.

A phantom is the abdomen of a patient as small as a newborn, with four labelled organs and their surroundings. It is
defined in patient millimetres and only then sampled on a grid, so that left is left whatever the orientation of the
scan. Anatomy, contrast, coil sensitivity, noise, resolution and orientation differ from case to case as in real scans;
a score on phantoms still says nothing about patients.
"""

from volseg.cases.phantoms.anatomy import LABELS
from volseg.cases.phantoms.dataset import FIELD_OF_VIEW_MM, make_phantom, write_dataset

__all__ = ["FIELD_OF_VIEW_MM", "LABELS", "make_phantom", "write_dataset"]
