"""The number of voxels of an image, without reading them."""

from __future__ import annotations

from volseg.errors import DataError
from volseg.io.images import NIFTI_SUFFIXES, has_picture_suffix, image_suffix
from volseg.io.source import FileSource, Source

#: Of the voxels of most scanners.
_BYTES_PER_VOXEL = 2


def stored_voxels(source: Source) -> int:
    """Return how many voxels an image has.

    Args:
        source: A volume, by its header; DICOM and pictures by the size of their files, as if they were not compressed.

    Returns:
        0 if it is not known, since its file is damaged or gone.
    """
    try:
        if isinstance(source, FileSource) and image_suffix(source.path) and not has_picture_suffix(source.path):
            return _of_volume(source)
        return sum(path.stat().st_size for path in source.files) // _BYTES_PER_VOXEL
    except (DataError, OSError):
        return 0


def _of_volume(source: FileSource) -> int:
    if image_suffix(source.path) in NIFTI_SUFFIXES:
        from volseg.io import nifti

        return nifti.voxel_count(source.path)
    from volseg.io import itk

    return itk.voxel_count(source.path)
