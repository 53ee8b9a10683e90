"""Export of masks in the formats of viewers and archives, exactly on the grid of their images."""

from __future__ import annotations

from volseg.exporting.export import Export, Exported, export
from volseg.exporting.formats import (
    ENCODINGS,
    FORMATS,
    MESHES,
    OF_DICOM,
    OF_PICTURES,
    SUFFIXES,
    Encoding,
    Format,
    check_formats,
    output_path,
    parse_encoding,
    parse_formats,
    usual_formats,
    warn_of_private_codes,
    with_needed,
)
from volseg.exporting.save import save_mask
from volseg.exporting.write import claim_masks, write, write_all

__all__ = [
    "ENCODINGS",
    "FORMATS",
    "MESHES",
    "OF_DICOM",
    "OF_PICTURES",
    "SUFFIXES",
    "Encoding",
    "Export",
    "Exported",
    "Format",
    "check_formats",
    "claim_masks",
    "export",
    "output_path",
    "parse_encoding",
    "parse_formats",
    "save_mask",
    "usual_formats",
    "warn_of_private_codes",
    "with_needed",
    "write",
    "write_all",
]
