"""What a case is read from: a file, a DICOM series, a file that marks named structures, or a mask per structure."""

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
        frame: Which 3D volume of a 4D file is meant, or which channel of a picture, from 0; None for a file that must
            hold exactly one.
        labels: What the values of a label map mean, where something beside it says so; which file is meant does not
            depend on it.
        rules: How it is read where it leaves a choice.
        modality: What kind of image it is, in DICOM's word, where what lists it says so; empty where nothing does.
    """

    path: Path
    frame: int | None = None
    labels: tuple[Label, ...] = field(default=(), compare=False)
    rules: FileRules = AS_IT_IS
    modality: str = field(default="", compare=False)

    @property
    def place(self) -> Path:
        """Where it lies: the file."""
        return self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the files of its voxels where they are kept apart."""
        voxels = companion(self.path, ".img") if self.path.suffix.lower() == ".hdr" else None
        apart = (voxels,) if voxels and voxels.is_file() else files_beside(self.path)
        return tuple(dict.fromkeys((self.path, *apart)))

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path}[{self.frame}]"


@dataclass(frozen=True)
class SeriesTraits:
    """What the headers of a series say, by which people and rules choose among the series of a study.

    Attributes:
        modality: DICOM Modality ("CT", "MR"), empty when it is not stated; so are the other texts.
        number: SeriesNumber, None when it is not stated.
        description: SeriesDescription.
        image_type: The values of ImageType.
        orientation: "axial", "coronal" or "sagittal", whichever the slices are closest to.
        slices: How many positions there are.
        spacing_mm: Distance of pixels along a row and along a column, and of slices; None where it is not known.
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
        frames: For each file, which of its frames belong to the volume, from 0; empty when all of all files do.
        volume: Which of several volumes of a series it is, as in "echo2" or "b1000"; empty when it is the only one.
        traits: What the headers say.
        doubt: Why the images cannot be trusted to be a whole volume; empty when nothing speaks against it.
        fill_gaps: Whether missing or unevenly spaced slices are bridged rather than refused.
    """

    folder: Path
    files: tuple[Path, ...]
    series_uid: str
    frames: tuple[tuple[int, ...], ...] = ()
    volume: str = ""
    traits: SeriesTraits = SeriesTraits()
    doubt: str = ""
    fill_gaps: bool = False

    @property
    def place(self) -> Path:
        """Where it lies: the folder, or the file where a file is a volume by itself."""
        return self.files[0] if self.frames else self.folder

    @property
    def wanted_frames(self) -> Iterator[tuple[Path, tuple[int, ...] | None]]:
        """Each file with the frames that are meant, None for all."""
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
        kind: Which of them; only a segmentation of 3D Slicer ("nrrd") has a grid of its own.
        series_uids: SeriesInstanceUIDs of the images it refers to.
        spaces: FrameOfReferenceUIDs of the spaces its positions are in: one, but for structures of several series.
        names: What its segments are called, in the order of their numbers.
        values: The values of their voxels, where no two segments have one; empty where names alone tell them apart.
        series: The images it lies on, where they are known.
        picture: Which of several pictures that the file annotates; empty where it is of one.
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
        """Where it lies: the file."""
        return self.path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    @property
    def has_grid(self) -> bool:
        """Whether it says itself which voxels there are."""
        return self.kind == "nrrd"

    @property
    def is_of_a_picture(self) -> bool:
        """Whether it is drawn in a picture."""
        return self.kind in {"geojson", "coco"}

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class MasksSource:
    """Binary masks of one image, one per structure, each in a file that is called by it.

    Attributes:
        folder: Where they lie.
        masks: What is marked, and the file that marks it, in the order of the names.
        rules: How each is read where it leaves a choice.
    """

    folder: Path
    masks: tuple[tuple[str, Path], ...]
    rules: FileRules = AS_IT_IS

    @property
    def names(self) -> tuple[str, ...]:
        """What is marked."""
        return tuple(name for name, _ in self.masks)

    @property
    def each(self) -> tuple[FileSource, ...]:
        """The masks one by one."""
        return tuple(FileSource(path, rules=self.rules) for _, path in self.masks)

    @property
    def place(self) -> Path:
        """Where it lies: the folder."""
        return self.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, and those of their voxels where they are kept apart."""
        return tuple(part for _, path in self.masks for part in FileSource(path).files)

    def __str__(self) -> str:
        return f"{self.folder} ({len(self.masks)} masks)"


@dataclass(frozen=True)
class ObjectsSource:
    """Binary masks of one image, one per object, all of them of one label: a cell in each file.

    Attributes:
        folder: Where they lie.
        paths: The files, in the order of their names.
        rules: How each is read where it leaves a choice.
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
        """Where it lies: the folder."""
        return self.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, and those of their voxels where they are kept apart."""
        return tuple(part for source in self.each for part in source.files)

    def __str__(self) -> str:
        return f"{self.folder} ({len(self.paths)} objects)"


Source = FileSource | SeriesSource | SegmentsSource | MasksSource | ObjectsSource


def stated_modality(source: Source) -> str:
    """What a source says the image is, in DICOM's word ("CT", "MR"); empty if it does not say."""
    match source:
        case SeriesSource(traits=traits):
            return known_modality(traits.modality)
        case FileSource(modality=modality):
            return modality
        case _:
            return ""


def digest(sources: Iterable[Source], settings: str) -> str:
    """A short hash of the bytes of all files of some sources, and of the settings they are used with.

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
    """What of the files is meant."""
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
    """What is not left to the file."""
    return [str(choice) for choice in rules.model_dump(exclude_defaults=True).values()]


@dataclass(frozen=True)
class SetAside:
    """Something that was found and is not used, with the reason; nothing disappears without one.

    Attributes:
        path: The file, or the folder of the series.
        reason: Why, in words a user understands.
        series_uid: SeriesInstanceUID, of what is a series.
        is_fault: Whether somebody should look at it, since it may be an image: it cannot be read, is not whole, or
            cannot be told from another. What is something else of itself, or not asked for, is none.
    """

    path: Path
    reason: str
    series_uid: str = ""
    is_fault: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Discovery:
    """All that a folder tree holds.

    Attributes:
        sources: What can be tried to be read as a volume, in path order.
        segments: Files that mark named structures, in path order.
        set_aside: Image-like or DICOM things that are no volume (a localizer, a report), in path order.
        ignored: How many other files lie in between.
        results: What volseg wrote and is left out for that, where that was asked for.
    """

    sources: tuple[Source, ...]
    set_aside: tuple[SetAside, ...]
    ignored: int = 0
    segments: tuple[SegmentsSource, ...] = ()
    results: tuple[Path, ...] = ()
