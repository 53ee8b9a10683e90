"""The results of prediction: the mask of one image, or the masks of a folder, and how to save and measure them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from volseg.exporting import Encoding, Format
    from volseg.exporting.description import ModelIdentity
    from volseg.io import Source
    from volseg.io.in_memory import InMemoryMask, NibabelImage, SimpleItkImage
    from volseg.model.usual_volumes import VolumeRange
    from volseg.prediction.cases_csv import CaseResult, CaseStatus
    from volseg.prediction.request import Request


@dataclass(frozen=True, eq=False)
class Prediction:
    """The mask of one image.

    Attributes:
        mask: On the grid of the image, post-processed.
        seconds: Time taken, including reading.
        image: Where the image was read from; None if it was in memory.
        mismatches: How the image lies outside the training data, where `allow_mismatch` let it pass.
        model: Identity of the model, for DICOM objects; None if it has no file.
        is_edited: Whether the mask was changed since.
        usual_volumes: Label name -> how large it was in the model's own cases.
        known_probabilities: What `probabilities` returns; None if it was not requested.
    """

    mask: Mask
    seconds: float
    image: Source | None = None
    mismatches: tuple[str, ...] = ()
    model: ModelIdentity | None = None
    is_edited: bool = False
    usual_volumes: Mapping[str, VolumeRange] = field(default_factory=dict)
    known_probabilities: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.array.shape))
        return f"<Prediction of {size} voxels; labels: {', '.join(label.name for label in self.labels)}>"

    @property
    def array(self) -> NDArray[np.unsignedinteger]:
        """(I, J, K) uint8 or uint16 label values in the storage order of the image; 0 is background."""
        return self.mask.array

    @property
    def geometry(self) -> Geometry:
        """The grid of the image."""
        return self.mask.geometry

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that the values stand for."""
        return self.mask.labels

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(I, J, K, labels) the probability of each of `labels` in steps of 1/255, before post-processing.

        Raises:
            DataError: If it was not requested.
        """
        if self.known_probabilities is None:
            raise DataError("there are no probabilities", hint="request them: predict(image, probabilities=True)")
        return self.known_probabilities

    @cached_property
    def volumes_ml(self) -> dict[str, float]:
        """Label name -> volume in millilitres."""
        return self.mask.volumes_ml

    def review(self) -> tuple[str, ...]:
        """Return why somebody should look at the mask, as a review of a batch does; empty if there is no reason.

        Reasons are a volume unlike those in the model's own cases, a structure that is cut off at an edge of the image,
        and an image unlike those that the model learned from.
        """
        from volseg.reporting.batches import review

        rows = review("", self.mask, self.labels, self.usual_volumes)
        return (*self.mismatches, *(f"{row.label}: {row.reason}" for row in rows if row.reason))

    def with_array(self, array: InMemoryMask) -> Prediction:
        """Return this prediction with an edited mask, to be saved or scored.

        Args:
            array: (I, J, K) label values, 0 is background; or an image of nibabel or SimpleITK on the same grid.

        Raises:
            DataError: If a voxel holds a value that no label has.
            GeometryError: If the array has another shape, or the image another grid.
        """
        from volseg.io.in_memory import mask_of

        edited = mask_of(array, self.geometry).on(self.geometry)
        if strangers := {label.value for label in edited.labels} - {label.value for label in self.labels}:
            raise DataError(
                f"the array holds {', '.join(map(str, sorted(strangers)))}, which no label has",
                hint=f"labels: {', '.join(f'{label.value} {label.name}' for label in self.labels)}",
            )
        mask = Mask(edited.array, self.geometry, self.labels)
        return replace(self, mask=mask, is_edited=True, known_probabilities=None)

    def to_nibabel(self) -> NibabelImage:
        """Return the mask as an image of nibabel, on the grid of the image."""
        from volseg.io.nifti import image_of

        return image_of(self.array, self.geometry)

    def to_simpleitk(self) -> SimpleItkImage:
        """Return the mask as an image of SimpleITK, on the grid of the image."""
        from volseg.io.itk import image_of

        return image_of(self.array, self.geometry)

    def save(
        self,
        path: str | PathLike[str],
        images: str | PathLike[str] | None = None,
        *,
        format: Format | None = None,  # noqa: A002  what everybody calls it
        encoding: Encoding = "binary",
        series_description: str | None = None,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write the mask.

        Args:
            path: The file, or the folder of the meshes; relative to the current folder.
            images: The images that a DICOM object refers to, or that a preview shows; by default those that were
                segmented.
            format: Needed only where the suffix of the path does not determine it: "stl" and "ply" are folders.
            encoding: Of a DICOM Segmentation: "binary", or "labelmap".
            series_description: Series description of DICOM objects, instead of "volseg: " and the labels; {format},
                {labels} and {model} in it are filled in.
            overwrite: Replace files at the path even if volseg did not write them; never the images.

        Returns:
            The files written: a structured report comes with the Segmentation it refers to.

        Raises:
            ConfigError: If the format is unknown or does not match the path, or the description is not possible.
            DataError: If the format refers to images and there are none, or they are of another kind.
            GeometryError: If the mask does not lie on any of the images.
            OutputExistsError: If a file is in the way that volseg did not write or that was changed since.
            OutputError: If it cannot be written.
        """
        from volseg.exporting import save_mask
        from volseg.exporting.description import Description
        from volseg.io import SeriesSource

        image = self.image if images is None else Path(images)
        description = Description.of(series_description, self.model, "SEMIAUTOMATIC" if self.is_edited else "AUTOMATIC")
        made_from = self.image.series_uid if isinstance(self.image, SeriesSource) else ""
        return save_mask(
            self.mask, Path(path), image, format, encoding, description, made_from=made_from, overwrite=overwrite
        )


@dataclass(frozen=True, eq=False)
class BatchCase:
    """One discovered case of a batch.

    Attributes:
        result: Its row of cases.csv.
        paths: Format -> path of its mask; empty unless it was segmented.
        image: Where its first channel is read from; None if it is not a case.
        labels: The labels that the values of its mask stand for.
    """

    result: CaseResult
    paths: Mapping[Format, Path]
    image: Source | None
    labels: tuple[Label, ...]

    @property
    def status(self) -> CaseStatus:
        """Its outcome: segmented, skipped or failed."""
        return self.result.status

    @property
    def reason(self) -> str:
        """The reason why it was skipped or failed; for a segmented case, a warning if there is one."""
        return self.result.reason

    @property
    def is_unchanged(self) -> bool:
        """True if its mask is from an earlier batch, since neither the image nor the model has changed."""
        return self.result.is_unchanged

    @property
    def is_fault(self) -> bool:
        """True if it was skipped although it may be an image: unreadable, incomplete, or not distinct from another."""
        return self.result.is_fault

    @property
    def volumes_ml(self) -> Mapping[str, float]:
        """Label name -> volume in millilitres."""
        return self.result.volumes_ml

    @property
    def mask(self) -> Mask:
        """Read the mask from the folder.

        Raises:
            DataError: If there is none, or none of its formats can be read back.
        """
        from volseg.config import AS_IT_IS, ReadingRules
        from volseg.io import FileSource, SegmentsSource, read_grid, read_mask, single_source

        readable = [path for form, path in self.paths.items() if form in _READABLE]
        if not readable:
            raise DataError(
                f"case {self.result.case_id} has no mask that can be read: {self.reason or ', '.join(self.paths)}",
                hint=f"predict again in one of the formats {', '.join(_READABLE)}",
            )
        # The mask of an image with a contradictory header has the same header; one in PNG states its own size.
        rules = self.image.rules if isinstance(self.image, FileSource) else AS_IT_IS
        source = single_source(readable[0], rules=ReadingRules(geometry=rules.geometry, pixel_mm="stated"))
        drawn = isinstance(source, SegmentsSource) and not source.has_grid
        return read_mask(source, self.labels, on=read_grid(self.image) if drawn and self.image else None)


#: Formats that masks are read back from, the plainest first.
_READABLE = ("nifti", "nrrd", "mha", "seg-nrrd", "dicom-seg", "rtstruct", "png")


class Batch(Mapping[str, BatchCase]):
    """The outcome of everything found in a folder, by case id, in the order of cases.csv.

    Attributes:
        folder: The folder of the masks.
        cases: Case id -> case.
        report: The review page, if requested.
    """

    def __init__(self, folder: Path, cases: Mapping[str, BatchCase], report: Path | None = None) -> None:
        self.folder = folder
        self.report = report
        self._cases = dict(cases)

    @classmethod
    def of(
        cls,
        results: list[CaseResult],
        request: Request,
        images: Mapping[str, Source],
        labels: tuple[Label, ...],
        report: Path | None = None,
    ) -> Batch:
        """Assemble the results of a batch."""
        cases = {
            result.case_id: BatchCase(
                result,
                {form: path for form, path in request.paths(result.case_id).items() if path.exists()}
                if result.status == "segmented"
                else {},
                images.get(result.case_id),
                labels,
            )
            for result in results
        }
        return cls(request.output, cases, report)

    def __getitem__(self, case_id: str) -> BatchCase:
        if case_id not in self._cases:
            alike = [name for name in self._cases if name.startswith(case_id)] or get_close_matches(
                case_id, self._cases
            )
            raise KeyError(f"no case {case_id!r}" + (f"; did you mean {alike[0]!r}?" if alike else ""))
        return self._cases[case_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __len__(self) -> int:
        return len(self._cases)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of these cases in cases.csv."""
        from volseg.io.tables import read_table
        from volseg.prediction.cases_csv import CASES_FILE

        rows = read_table(self.folder / CASES_FILE)
        return rows[rows["case_id"].isin(list(self))].reset_index(drop=True)

    def count(self, status: CaseStatus | str) -> int:
        """Count the cases that were "segmented", "skipped" or "failed"; the three add up to all."""
        return Counter(str(case.status) for case in self.values())[str(status)]

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(status)} {status}" for status in ("segmented", "skipped", "failed"))
        return f"<Batch {self.folder}: {counts}>"
