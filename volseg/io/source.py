"""Sources of a case: a file, a DICOM series, a file that marks named structures, or a mask per structure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from volseg.config import known_modality
from volseg.config.reading import AS_IT_IS, FileRules
from volseg.image.volume import Label
from volseg.io.archives import open_stored
from volseg.io.companions import companion
from volseg.io.itk_header import files_beside
from volseg.io.readable import unreadable


@dataclass(frozen=True)
class FileSource:
    """One image file: NIfTI, NRRD, MetaImage, or a picture.

    Attributes:
        path: The file.
        frame: Which 3D volume of a 4D file, or which channel of a picture, from 0; None for a file that must hold
            exactly one.
        labels: Labels of a label map, if stated beside it; not part of the source's identity.
        rules: Reading options.
        modality: Modality in DICOM's terms, if stated where the file is listed; else empty.
    """

    path: Path
    frame: int | None = None
    labels: tuple[Label, ...] = field(default=(), compare=False)
    rules: FileRules = AS_IT_IS
    modality: str = field(default="", compare=False)

    @property
    def place(self) -> Path:
        """Its location: the file."""
        return self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and its separate voxel files, if any."""
        voxels = companion(self.path, ".img") if self.path.suffix.lower() == ".hdr" else None
        apart = (voxels,) if voxels and voxels.is_file() else files_beside(self.path)
        return tuple(dict.fromkeys((self.path, *apart)))

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path}[{self.frame}]"


@dataclass(frozen=True)
class SeriesTraits:
    """Properties in the headers of a series, by which users and rules choose among the series of a study.

    Attributes:
        modality: DICOM Modality ("CT", "MR"), empty if not stated; so are the other texts.
        number: SeriesNumber, None if not stated.
        description: SeriesDescription.
        image_type: The values of ImageType.
        orientation: "axial", "coronal" or "sagittal", whichever the slices are closest to.
        slices: Number of positions.
        spacing_mm: Spacing of pixels along a row and along a column, and of slices; None if unknown.
        study_uid: StudyInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID: positions of series that share it can be compared.
    """

    modality: str = ""
    number: int | None = None
    description: str = ""
    image_type: tuple[str, ...] = ()
    orientation: str = ""
    slices: int = 0
    spacing_mm: tuple[float, float, float] | None = None
    study_uid: str = ""
    frame_of_reference_uid: str = ""


@dataclass(frozen=True)
class SeriesSource:
    """One volume of a DICOM series: the images whose slices make it up.

    Attributes:
        folder: The folder that holds the files (their common parent).
        files: The files in the order of their position along the slice normal, or multi-frame files.
        series_uid: SeriesInstanceUID.
        frames: For each file, which of its frames belong to the volume, from 0; empty if all of all files do.
        volume: Which of several volumes of a series, such as "echo2" or "b1000"; empty if it is the only one.
        traits: Properties from the headers.
        doubt: Why the volume may be incomplete; empty if nothing suggests that.
        fill_gaps: Whether missing or unevenly spaced slices are filled rather than refused.
    """

    folder: Path
    files: tuple[Path, ...]
    series_uid: str
    frames: tuple[tuple[int, ...], ...] = ()
    volume: str = ""
    traits: SeriesTraits = SeriesTraits()
    doubt: str = ""
    fill_gaps: bool = False

    def bridged(self, depth: int) -> str:
        """Say how many of the slices of its grid are interpolated across gaps; empty if none are.

        Args:
            depth: Number of slices of the grid.
        """
        made = depth - self.traits.slices
        return f"{made} of {depth} slices are interpolated across gaps" if self.fill_gaps and made > 0 else ""

    @property
    def place(self) -> Path:
        """Its location: the folder, or the file if a file is a volume by itself."""
        return self.files[0] if self.frames else self.folder

    @property
    def wanted_frames(self) -> Iterator[tuple[Path, tuple[int, ...] | None]]:
        """Yield each file with its frames that belong to the volume, None for all."""
        return zip(self.files, self.frames or [None] * len(self.files), strict=True)

    def __str__(self) -> str:
        volume = f", {self.volume}" if self.volume else ""
        return f"{self.folder} (DICOM series of {len(self.files)} files{volume})"


@dataclass(frozen=True)
class SegmentsSource:
    """A file that marks named structures.

    A DICOM Segmentation, an RT Structure Set, a segmentation of 3D Slicer, or outlines in a picture.

    Attributes:
        path: The file.
        kind: Which of them; only a segmentation of 3D Slicer ("nrrd") has its own grid.
        series_uids: SeriesInstanceUIDs of the images it refers to.
        spaces: FrameOfReferenceUIDs of its positions: one, except for structures of several series.
        names: Names of its segments, in the order of their numbers.
        values: The values of their voxels, if no two segments share one; empty if only names distinguish them.
        series: The images it lies on, if known.
        picture: Which of several pictures that the file annotates; empty if there is only one.
    """

    path: Path
    kind: Literal["seg", "rtstruct", "nrrd", "geojson", "coco"]
    series_uids: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    series: SeriesSource | None = None
    picture: str = ""

    @property
    def place(self) -> Path:
        """Its location: the file."""
        return self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    @property
    def has_grid(self) -> bool:
        """True if it states its own voxel grid."""
        return self.kind == "nrrd"

    @property
    def is_of_a_picture(self) -> bool:
        """True if it is drawn in a picture."""
        return self.kind in {"geojson", "coco"}

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class MasksSource:
    """Binary masks of one image, one per structure, each in a file named after it.

    Attributes:
        folder: Their folder.
        masks: The name of each structure, and its file, in the order of the names.
        rules: Reading options of each.
    """

    folder: Path
    masks: tuple[tuple[str, Path], ...]
    rules: FileRules = AS_IT_IS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures."""
        return tuple(name for name, _ in self.masks)

    @property
    def each(self) -> tuple[FileSource, ...]:
        """The masks one by one."""
        return tuple(FileSource(path, rules=self.rules) for _, path in self.masks)

    @property
    def place(self) -> Path:
        """Its location: the folder."""
        return self.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, including separate voxel files."""
        return tuple(part for _, path in self.masks for part in FileSource(path).files)

    def __str__(self) -> str:
        return f"{self.folder} ({len(self.masks)} masks)"


@dataclass(frozen=True)
class ObjectsSource:
    """Binary masks of one image, one per object, all with the same label: a cell in each file.

    Attributes:
        folder: Their folder.
        paths: The files, in the order of their names.
        rules: Reading options of each.
    """

    folder: Path
    paths: tuple[Path, ...]
    rules: FileRules = AS_IT_IS

    @property
    def each(self) -> tuple[FileSource, ...]:
        """The masks one by one."""
        return tuple(FileSource(path, rules=self.rules) for path in self.paths)

    @property
    def place(self) -> Path:
        """Its location: the folder."""
        return self.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, including separate voxel files."""
        return tuple(part for source in self.each for part in source.files)

    def __str__(self) -> str:
        return f"{self.folder} ({len(self.paths)} objects)"


Source = FileSource | SeriesSource | SegmentsSource | MasksSource | ObjectsSource


def stated_modality(source: Source) -> str:
    """Return the modality that a source states, in DICOM's terms ("CT", "MR"); empty if it does not."""
    match source:
        case SeriesSource(traits=traits):
            return known_modality(traits.modality)
        case FileSource(modality=modality):
            return modality
        case _:
            return ""


def digest(sources: Iterable[Source], settings: str) -> str:
    """Hash the bytes of all files of some sources, and the settings they are used with.

    Raises:
        DataError: If a file cannot be read.
    """
    total = hashlib.sha256(settings.encode())
    for source in sources:
        total.update(_part(source).encode())
        for path in source.files:
            try:
                with open_stored(path) as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]  # it has readinto
            except OSError as error:
                raise unreadable(path, error) from error
    return total.hexdigest()[:16]


def _part(source: Source) -> str:
    """Identify the selected part of the files."""
    match source:
        case FileSource(frame=frame, labels=labels, rules=rules):
            stated = (f"{label.value}={label.name}" for label in labels)
            return " ".join([str(frame), *stated, *_chosen(rules)])
        case SeriesSource(frames=frames, fill_gaps=fill_gaps):
            return f"series {frames} {fill_gaps}"
        case SegmentsSource(series=series, picture=picture):
            return f"segments on {series.series_uid if series else picture or None}"
        case MasksSource(masks=masks, rules=rules):
            return f"masks {[(name, path.name) for name, path in masks]} {' '.join(_chosen(rules)) or None}"
        case ObjectsSource(rules=rules):
            return f"objects {' '.join(_chosen(rules))}"


def _chosen(rules: FileRules) -> list[str]:
    """List the reading options that are not left to the file."""
    return [str(choice) for choice in rules.model_dump(exclude_defaults=True).values()]


@dataclass(frozen=True)
class SetAside:
    """Something that was found and is not used, with the reason; nothing is dropped without one.

    Attributes:
        path: The file, or the folder of the series.
        reason: Why, in words a user understands.
        series_uid: SeriesInstanceUID, for a series.
        is_fault: Whether it needs attention, since it may be an image: it cannot be read, is incomplete, or cannot be
            distinguished from another. Anything that states it is something else, or was not requested, is not a fault.
    """

    path: Path
    reason: str
    series_uid: str = ""
    is_fault: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Discovery:
    """The content of a folder tree.

    Attributes:
        sources: Possible volumes, in path order.
        segments: Files that mark named structures, in path order.
        set_aside: Image-like or DICOM items that are not a volume (a localizer, a report), in path order.
        ignored: Number of other files.
        results: volseg's own results that were left out, if requested.
    """

    sources: tuple[Source, ...]
    set_aside: tuple[SetAside, ...]
    ignored: int = 0
    segments: tuple[SegmentsSource, ...] = ()
    results: tuple[Path, ...] = ()
