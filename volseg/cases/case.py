"""One case, a set of them, and how their voxels are read."""

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
#: An entity of BIDS by which a mask says what it marks.
_LABEL_ENTITY = re.compile(r"(.*_)?label-[A-Za-z0-9]+(_.*)?")
#: Endings of objects that mark structures, as volseg writes them, and of any other DICOM file.
_MARKED_ENDINGS = (".seg.dcm", ".rtstruct.dcm", ".sr.dcm", ".dcm", ".seg.nrrd", ".geojson", ".coco.json")


@dataclass(frozen=True)
class Case:
    """What belongs to one examination.

    Attributes:
        case_id: Its name in every output, a safe file name (`case_ids`).
        images: Channel name -> where that channel is read from.
        reference: Where the reference is read from, None if there is none.
        annotated: Names of the labels that were looked for when the reference was drawn; None if all were.
        region: Where its field of view is read from, None if that is all of the image.
    """

    case_id: str
    images: dict[str, Source]
    reference: Source | None = None
    annotated: frozenset[str] | None = None
    region: Source | None = None

    @property
    def image(self) -> Source:
        """Where the first channel is read from."""
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
    """All cases of a folder, and what was found there and is not used.

    Attributes:
        layout: What the folder was recognised as, for people.
        cases: In the order of their ids.
        channels: Names of the image channels, in order.
        labels: Label name -> value as far as the folder states them; empty if it does not.
        regions: Region name -> label values, when the folder defines overlapping regions.
        set_aside: Files that are not used, each with its reason.
        remarks: What a person should know about how the rest was understood.
        splits: Which cases teach and which are held out, as far as the data set states it; empty if it does not.
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
        case: What to read.
        channels: Their order in the result.

    Returns:
        (C, I, J, K) float32 on the grid of the first channel. DICOM series of the same frame of reference are brought
        onto it, with NaN where they do not reach.

    Raises:
        DataError: If a channel is missing or damaged, has no finite voxel, or is the same everywhere.
        GeometryError: If a channel does not lie on the grid of the first, or has no place in common with it.
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
                    f"case {case.case_id}: channel {channel} lies beside {channels[0]}: they have no place in common",
                    hint="are both of the same examination?",
                )
        else:
            apart = volume.geometry.mismatch(volumes[0].geometry, f"channel {channel}", channels[0])
            raise GeometryError(
                f"case {case.case_id}: {apart}",
                hint="bring the channels onto one grid first; volseg does so for DICOM of one frame of reference",
            )
    if len(volumes) == 1:
        return volumes[0]
    return Volume(np.concatenate([volume.array for volume in volumes]), volumes[0].geometry)


def read_reference(case: Case, image: Volume, labels: Sequence[Label], others: Others = "refuse") -> Mask:
    """Read the reference of a case.

    Args:
        case: What to read.
        image: The image it must lie on.
        labels: What its values mean; if empty, any value is accepted.
        others: Whether a value that no label has is refused, or is background.

    Returns:
        The mask, on the grid of the image.

    Raises:
        DataError: If there is no reference, or it is damaged or no label map.
        GeometryError: If it does not lie on the grid of the image, or on a part of it.
        ConfigError: If it holds a value that no label has, and that is no background.
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
    """Refuse to take for background what a data set says nobody has looked at.

    Raises:
        ConfigError: Names the value.
    """
    ignored = dataset.labels.get(IGNORE)
    if others == "background" and ignored is not None and ignored not in labels.values():
        raise ConfigError(
            f"voxels of the value {ignored} were looked at by nobody, and data.labels does not list it: "
            "as background they would teach what is not known",
            hint=f"add {IGNORE}: {ignored} to data.labels",
        )


def place_reference(mask: Mask, geometry: Geometry, case_id: str) -> Mask:
    """Put a reference onto the grid of its image; it may be a part of that, which is said.

    Args:
        mask: As it was read.
        geometry: The grid of the image.
        case_id: For the log.

    Raises:
        GeometryError: If it lies on other voxels, or marks some outside the image.
    """
    placed = mask.placed_on(geometry)
    if mask.geometry.is_part_of(geometry):
        logger.warning(
            "case %s: the reference (%s) is a part of its image (%s); what lies outside of it is taken as background",
            case_id,
            mask.geometry,
            geometry,
        )
    return placed


def check_label_values(case_id: str, mask: Mask, labels: Sequence[Label]) -> None:
    """Refuse values that no label has, if labels are given.

    Raises:
        ConfigError: Names the case and the values.
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
                hint="add them to data.labels, or say in data.segments what else a label of it is called",
            )
        raise ConfigError(
            f"case {case_id}: the reference holds {_listed(shown)}, which data.labels does not list",
            hint="add them to data.labels, correct the reference, or --set data.others=background",
        )


def stem(path: Path) -> str:
    """The name of an image file without its suffix ("a.nii.gz" -> "a"), or of a folder as it is."""
    suffix = next((ending for ending in _MARKED_ENDINGS if path.name.lower().endswith(ending)), image_suffix(path))
    return path.name[: -len(suffix)] if suffix else path.name


def names_a_reference(name: str) -> bool:
    """Whether a file or folder name says that it is a reference: it is or ends with "label", "seg", "mask" ..."""
    return bool(_REFERENCE_NAME.fullmatch(name) or _LABEL_ENTITY.fullmatch(name))


def reference_base(name: str) -> str:
    """What the name of a reference says of the image: "p1_seg" is about "p1", "seg" about nothing, "p1" about "p1"."""
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
        # Of a picture one colour may be the same everywhere.
        if low == high and (not is_picture(source.place) or all(least == most for least, most in beside)):
            raise nothing_to_see(case.case_id, source, low)
    return volumes


def nothing_to_see(case_id: str, source: Source, value: float) -> DataError:
    """Says that an image is the same everywhere."""
    return DataError(
        f"case {case_id}: {source} is empty: it has the same value everywhere ({value:g})",
        hint="is it the right file? export it again",
    )


def _limits(case: Case, channel: str, volume: Volume) -> tuple[float, float]:
    """The smallest and the largest finite value of a channel."""
    low, high = volume.array.min(), volume.array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = volume.array[np.isfinite(volume.array)]
        if not finite.size:
            raise DataError(
                f"case {case.case_id}: {case.images[channel]} is empty: it has no finite voxel",
                hint="is it the right file? export it again",
            )
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def _check_space(case: Case, reference: Source) -> None:
    """Refuse a DICOM object whose positions mean other places than those of the images."""
    stated = reference.spaces if isinstance(reference, SegmentsSource) else ()
    for image in case.images.values():
        uid = image.traits.frame_of_reference_uid if isinstance(image, SeriesSource) else ""
        if stated and uid and uid not in stated:
            raise GeometryError(
                f"case {case.case_id}: {reference.place.name} states another frame of reference than its images",
                hint="was it drawn on another series, or was one of them anonymised without the other?",
            )


def _share_a_space(one: Source, other: Source) -> bool:
    """Whether positions in both mean the same places in the patient (PS3.3 section C.7.4.1)."""
    spaces = [source.traits.frame_of_reference_uid for source in (one, other) if isinstance(source, SeriesSource)]
    return len(spaces) == 2 and spaces[0] == spaces[1] != ""


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(values[:8])
    return f"label value{'s' * (len(values) > 1)} {shown}{' ...' * (len(values) > 8)}"
