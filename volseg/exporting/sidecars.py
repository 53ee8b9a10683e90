"""Files next to label maps with names and colours, for viewers that read them from there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from volseg.image.volume import Label
from volseg.io.files import write_text

_ITKSNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def write_itksnap_labels(labels: Sequence[Label], path: Path) -> None:
    """Write names and colours for ITK-SNAP ("Import label descriptions").

    Source of the format: `ColorLabelTable::SaveToFile` and `LoadFromFile` of ITK-SNAP. A description ends at the second
    quotation mark, so quotation marks in a name become apostrophes.

    Args:
        labels: The labels of a mask, in any order.
        path: The text file.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, _ITKSNAP_HEADER + "".join(_itksnap_row(label) for label in _by_value(labels)))


def _itksnap_row(label: Label) -> str:
    red, green, blue = label.display_color
    name = " ".join(label.name.replace('"', "'").split())
    return f'{label.value:5}   {red:3}  {green:3}  {blue:3}        1  1  1    "{name}"\n'


def write_niivue_colormap(labels: Sequence[Label], path: Path) -> None:
    """Write names and colours for NiiVue (`setColormapLabel`).

    The file holds arrays of equal length, one entry per label and one for the background, which is transparent:
    `R`, `G`, `B`, `A` (0 to 255), `I` (the value in the mask) and `labels` (the name). Source of the format:
    https://niivue.com/docs/colormaps and `makeLabelLut` of NiiVue. Entries are sorted by value, because NiiVue takes
    the names of values without gaps in the order in which they stand.

    Args:
        labels: The labels of a mask, in any order.
        path: The JSON file.

    Raises:
        OutputError: If it cannot be written.
    """
    ordered = _by_value(labels)
    red, green, blue = zip((0, 0, 0), *(label.display_color for label in ordered), strict=True)
    colormap = {
        "R": red,
        "G": green,
        "B": blue,
        "A": [0] + [255] * len(ordered),
        "I": [0, *(label.value for label in ordered)],
        "labels": ["background", *(label.name for label in ordered)],
    }
    write_text(path, json.dumps(colormap, ensure_ascii=False) + "\n")


def _by_value(labels: Sequence[Label]) -> list[Label]:
    return sorted(labels, key=lambda label: label.value)
