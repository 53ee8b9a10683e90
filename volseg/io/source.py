"""What a case is read from: one file, or one DICOM series."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from volseg.errors import DataError


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

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the file of its voxels where they are kept apart."""
        parts = (self.path.with_suffix(suffix) for suffix in (".img", ".raw", ".zraw"))
        return (self.path, *(part for part in parts if part != self.path and part.is_file()))

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


def digest(sources: Iterable[Source], settings: str) -> str:
    """A short hash of the bytes of all files of some sources, and of the settings they are used with.

    Raises:
        DataError: If a file cannot be read.
    """
    total = hashlib.sha256(settings.encode())
    for source in sources:
        total.update(str(source.frame if isinstance(source, FileSource) else "series").encode())
        for path in source.files:
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}") from error
    return total.hexdigest()[:16]


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
