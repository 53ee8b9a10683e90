"""What a case is read from: one file, or one DICOM series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSource:
    """One image file: NIfTI, NRRD or MetaImage.

    Attributes:
        path: The file.
        frame: Which 3D volume of a 4D file is meant, from 0; None for a file that must hold exactly one.
    """

    path: Path
    frame: int | None = None

    @property
    def place(self) -> Path:
        """Where it lies: the file."""
        return self.path

    def __str__(self) -> str:
        return str(self.path) if self.frame is None else f"{self.path}[{self.frame}]"


@dataclass(frozen=True)
class SeriesSource:
    """One DICOM series: the files whose slices make one volume.

    Attributes:
        folder: The folder that holds the files (their common parent).
        files: The files in the order of their position along the slice normal, or a single multi-frame file.
        series_uid: SeriesInstanceUID.
        modality: DICOM Modality ("CT", "MR"), empty when it is not stated.
        number: SeriesNumber, None when it is not stated.
    """

    folder: Path
    files: tuple[Path, ...]
    series_uid: str
    modality: str = ""
    number: int | None = None

    @property
    def place(self) -> Path:
        """Where it lies: the folder."""
        return self.folder

    def __str__(self) -> str:
        return f"{self.folder} (DICOM series of {len(self.files)} files)"


Source = FileSource | SeriesSource


@dataclass(frozen=True)
class SetAside:
    """Something that was found and is not used, with the reason; nothing disappears without one.

    Attributes:
        path: The file, or the folder of the series.
        reason: Why, in words a user understands.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Discovery:
    """All that a folder tree holds.

    Attributes:
        sources: What can be tried to be read as a volume, in path order.
        set_aside: Image-like or DICOM things that are no volume (a localizer, a report), in path order.
        ignored: How many other files lie in between.
    """

    sources: tuple[Source, ...]
    set_aside: tuple[SetAside, ...]
    ignored: int = 0
