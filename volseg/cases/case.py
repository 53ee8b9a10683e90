"""Cases, data sets, and reading their images and references."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from volseg.cases.case_ids import case_id_of, is_case_id
from volseg.cases.splits import Split
from volseg.config import IGNORE, Others
from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.intensities import finite_limits
from volseg.image.naming import shown_value
from volseg.image.volume import Label, Mask, Volume
from volseg.io import (
    SegmentsSource,
    SeriesSource,
    SetAside,
    Source,
    image_suffix,
    is_picture,
    read_channels,
    read_mask,
    resample,
)

logger = logging.getLogger(__name__)

_REFERENCE_NAME = re.compile(
    r"((?P<base>.*?)[-_. ])?"
    r"(labels?|labelmaps?|seg|segmentations?|masks?|reference|ground[-_]?truth|gt|annotations?|anno|manual\d?|msk|dseg"
    r"|probseg|probabilities)"
    r"([-_. ]?(manual|final|auto))?",
    re.IGNORECASE,
)
#: The BIDS entity that states what a mask marks.
_LABEL_ENTITY = re.compile(r"(.*_)?label-[A-Za-z0-9]+(_.*)?")
#: Endings of objects that mark structures, as volseg writes them, and of any other DICOM file.
_MARKED_ENDINGS = (".seg.dcm", ".rtstruct.dcm", ".sr.dcm", ".dcm", ".seg.nrrd", ".geojson", ".coco.json")


@dataclass(frozen=True)
class Case:
    """The files of one examination.

    Attributes:
        case_id: Its name in every output, a safe file name (`case_ids`).
        images: Channel name -> where that channel is read from.
        reference: Where the reference is read from, None if there is none.
        annotated: Names of the annotated labels; None if all were annotated.
        region: Where its field of view is read from, None if that is the whole image.
    """

    case_id: str
    images: dict[str, Source]
    reference: Source | None = None
    annotated: frozenset[str] | None = None
    region: Source | None = None

    @property
    def image(self) -> Source:
        """The source of the first channel."""
        return next(iter(self.images.values()))

    def __post_init__(self) -> None:
        if not is_case_id(self.case_id):
            raise DataError(
                f"case id {self.case_id!r} cannot be a file name on every system",
                hint=f"use letters, digits, dot, underscore and dash, begin with a letter or a digit, and be short; "
                f"{case_id_of(self.case_id)!r} would do",
            )
        if not self.images:
            raise DataError(f"case {self.case_id} has no image", hint="add one, or leave the case out")


@dataclass(frozen=True)
class Dataset:
    """All cases of a folder, and everything found there that is not used.

    Attributes:
        layout: The recognised layout, for display.
        cases: In the order of their ids.
        channels: Names of the image channels, in order.
        labels: Label name -> value as far as the folder states them; empty if it does not.
        regions: Region name -> label values, if the folder defines overlapping regions.
        set_aside: Files that are not used, each with its reason.
        remarks: Remarks for the user on how the folder was interpreted.
        splits: Training and validation cases, if the data set states them; else empty.
    """

    layout: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    labels: dict[str, int] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    set_aside: tuple[SetAside, ...] = ()
    remarks: tuple[str, ...] = ()
    splits: tuple[Split, ...] = ()


def read_images(case: Case, channels: Sequence[str]) -> Volume:
    """Read the channels of a case and stack them.

    Args:
        case: The case to read.
        channels: Their order in the result.

    Returns:
        (C, I, J, K) float32 on the grid of the first channel. DICOM series of the same frame of reference are resampled
        to it, with NaN outside their extent.

    Raises:
        DataError: If a channel is missing or damaged, has no finite voxel, or has a single value everywhere.
        GeometryError: If a channel does not lie on the grid of the first, or does not overlap it.
    """
    volumes = _read_channels(case, channels)
    for n, channel in enumerate(channels[1:], start=1):
        volume = volumes[n]
        if volume.geometry.matches(volumes[0].geometry):
            continue
        if _share_a_space(case.images[channels[0]], case.images[channel]):
            volumes[n] = resample(volume, volumes[0].geometry)
            if not np.isfinite(volumes[n].array).any():
                raise GeometryError(
                    f"case {case.case_id}: channel {channel} lies beside {channels[0]}: they do not overlap",
                    hint="are both of the same examination?",
                )
        else:
            apart = volume.geometry.mismatch(volumes[0].geometry, f"channel {channel}", channels[0])
            raise GeometryError(
                f"case {case.case_id}: {apart}",
                hint="resample the channels to one grid first; volseg does so for DICOM of one frame of reference",
            )
    if len(volumes) == 1:
        return volumes[0]
    return Volume(np.concatenate([volume.array for volume in volumes]), volumes[0].geometry)


def read_reference(case: Case, image: Volume, labels: Sequence[Label], others: Others = "refuse") -> Mask:
    """Read the reference of a case.

    Args:
        case: The case to read.
        image: The image it must match.
        labels: Labels of its values; if empty, any value is accepted.
        others: Whether a value without a label is refused, or becomes background.

    Returns:
        The mask, on the grid of the image.

    Raises:
        DataError: If there is no reference, or it is damaged or not a label map.
        GeometryError: If it does not lie on the grid of the image, or on a part of it.
        ConfigError: If it holds a value other than background that has no label.
    """
    if case.reference is None:
        raise DataError(f"case {case.case_id} has no reference", hint="add its label map, or leave the case out")
    _check_space(case, case.reference)
    try:
        mask = place_reference(read_mask(case.reference, labels, on=image.geometry), image.geometry, case.case_id)
    except GeometryError as error:
        raise GeometryError(f"case {case.case_id}: reference and image: {error}", hint=error.hint) from error
    if labels and others == "background":
        return mask.only({label.value for label in labels})
    check_label_values(case.case_id, mask, labels)
    return mask


def check_others(dataset: Dataset, labels: Mapping[str, int], others: Others) -> None:
    """Check that voxels a data set marks as ignored (not annotated) do not become background.

    Raises:
        ConfigError: If they do; names the value.
    """
    ignored = dataset.labels.get(IGNORE)
    if others == "background" and ignored is not None and ignored not in labels.values():
        raise ConfigError(
            f"voxels of the value {ignored} are not annotated, and data.labels does not list it: "
            "as background they would be wrong training data",
            hint=f"add {IGNORE}: {ignored} to data.labels",
        )


def place_reference(mask: Mask, geometry: Geometry, case_id: str) -> Mask:
    """Place a reference on the grid of its image; if it covers only a part of it, this is logged.

    Args:
        mask: As read.
        geometry: The grid of the image.
        case_id: For the log.

    Raises:
        GeometryError: If its voxels do not coincide with the image's, or it marks some outside the image.
    """
    placed = mask.placed_on(geometry)
    if mask.geometry.is_part_of(geometry):
        logger.warning(
            "case %s: the reference (%s) covers a part of its image (%s) only; the rest is treated as background",
            case_id,
            mask.geometry,
            geometry,
        )
    return placed


def check_label_values(case_id: str, mask: Mask, labels: Sequence[Label]) -> None:
    """Check that every value has a label, if labels are given.

    Raises:
        ConfigError: If not; names the case and the values.
    """
    import fastremap

    known = {0, *(label.value for label in labels)}
    if labels and (unknown := sorted(set(fastremap.unique(mask.array).tolist()) - known)):
        shown = [shown_value(value, mask.labels) for value in unknown]
        named = {label.name for label in mask.labels if label.value in unknown}
        if names := [name for name in shown if name in named]:
            raise ConfigError(
                f"case {case_id}: the reference marks {', '.join(names[:8])}, which data.labels does not list: it has "
                f"{', '.join(label.name for label in labels)}",
                hint="add them to data.labels, or list its names in data.segments",
            )
        raise ConfigError(
            f"case {case_id}: the reference holds {_listed(shown)}, which data.labels does not list",
            hint="add them to data.labels, correct the reference, or --set data.others=background",
        )


def stem(path: Path) -> str:
    """Return the name of an image file without its suffix ("a.nii.gz" -> "a"), or of a folder as it is."""
    suffix = next((ending for ending in _MARKED_ENDINGS if path.name.lower().endswith(ending)), image_suffix(path))
    return path.name[: -len(suffix)] if suffix else path.name


def names_a_reference(name: str) -> bool:
    """Return whether a file or folder name is that of a reference: it is or ends with "label", "seg", "mask" ..."""
    return bool(_REFERENCE_NAME.fullmatch(name) or _LABEL_ENTITY.fullmatch(name))


def reference_base(name: str) -> str:
    """Return the image name within that of a reference: "p1_seg" -> "p1", "seg" -> "", "p1" -> "p1"."""
    found = _REFERENCE_NAME.fullmatch(name)
    return ((found["base"] or "") if found else name).rstrip("-_. ")


def _read_channels(case: Case, channels: Sequence[str]) -> list[Volume]:
    if missing := [channel for channel in channels if channel not in case.images]:
        raise DataError(
            f"case {case.case_id} has no channel {missing[0]!r}, it has {', '.join(case.images)}",
            hint="add the file of that channel, or leave the case out",
        )
    volumes = read_channels([case.images[channel] for channel in channels])
    limits = [_limits(case, channel, volume) for channel, volume in zip(channels, volumes, strict=True)]
    for channel, (low, high) in zip(channels, limits, strict=True):
        source = case.images[channel]
        beside = [each for name, each in zip(channels, limits, strict=True) if case.images[name].place == source.place]
        # In a picture, one colour channel may be constant.
        if low == high and (not is_picture(source.place) or all(least == most for least, most in beside)):
            raise nothing_to_see(case.case_id, source, low)
    return volumes


def nothing_to_see(case_id: str, source: Source, value: float) -> DataError:
    """Build the error for an image with a single value."""
    return DataError(
        f"case {case_id}: {source} is empty: it has the same value everywhere ({value:g})",
        hint="is it the right file? export it again",
    )


def _limits(case: Case, channel: str, volume: Volume) -> tuple[float, float]:
    """Return the smallest and the largest finite value of a channel."""
    low, high = finite_limits(volume.array)
    if low > high:
        raise DataError(
            f"case {case.case_id}: {case.images[channel]} is empty: it has no finite voxel",
            hint="is it the right file? export it again",
        )
    return low, high


def _check_space(case: Case, reference: Source) -> None:
    """Check that a DICOM object has the same frame of reference as the images."""
    stated = reference.spaces if isinstance(reference, SegmentsSource) else ()
    for image in case.images.values():
        uid = image.traits.frame_of_reference_uid if isinstance(image, SeriesSource) else ""
        if stated and uid and uid not in stated:
            raise GeometryError(
                f"case {case.case_id}: {reference.place.name} states another frame of reference than its images",
                hint="was it drawn on another series, or was one of them anonymised without the other?",
            )


def _share_a_space(one: Source, other: Source) -> bool:
    """Return whether both sources have the same frame of reference (PS3.3 section C.7.4.1)."""
    spaces = [source.traits.frame_of_reference_uid for source in (one, other) if isinstance(source, SeriesSource)]
    return len(spaces) == 2 and spaces[0] == spaces[1] != ""


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(values[:8])
    return f"label value{'s' * (len(values) > 1)} {shown}{' ...' * (len(values) > 8)}"
