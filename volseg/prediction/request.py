"""The request of a batch: what to write for each case, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from volseg.about import ABOUT_FILE
from volseg.exporting import MESHES, OF_DICOM, Encoding, Format, output_path, with_needed
from volseg.exporting.description import USUAL, Description
from volseg.exporting.write import claim_masks
from volseg.image.volume import Label
from volseg.io.labels import LABELS_FILE
from volseg.io.written import Inputs, claim, claim_folder
from volseg.prediction.cases_csv import CASES_FILE, CaseResult, probability_file

ITKSNAP_FILE, NIIVUE_FILE = "itksnap_labels.txt", "niivue_colormap.json"
#: Holds the tracebacks of defects.
LOG_FILE = "volseg.log"


@dataclass(frozen=True)
class Request:
    """The outputs to write for each case.

    Attributes:
        output: Folder for a mask per case and format, cases.csv and labels.json.
        formats: Of the masks.
        encoding: Of DICOM Segmentations.
        probabilities: Whether to also write probabilities.
        allow_mismatch: Whether to segment images that the models were not made for.
        overwrite: Whether foreign files in the place of masks and tables may be replaced; never the input.
        description: Series description and model, as DICOM objects state them.
    """

    output: Path
    formats: tuple[Format, ...] = ("nifti",)
    encoding: Encoding = "binary"
    probabilities: bool = False
    allow_mismatch: bool = False
    overwrite: bool = False
    description: Description = USUAL

    @property
    def all_formats(self) -> list[Format]:
        """Each format once, including the formats that others need."""
        return with_needed(self.formats)

    @property
    def settings(self) -> list[object]:
        """Settings that the files of a case depend on, beside its images and the networks."""
        said = [repr(self.description)] if set(self.formats) & set(OF_DICOM) else []
        return [self.all_formats, self.encoding, self.probabilities, *said]

    def paths(self, case_id: str) -> dict[Format, Path]:
        """Return the paths of a case's masks."""
        return {form: output_path(self.output, case_id, form) for form in self.all_formats}

    @property
    def tables(self) -> list[Path]:
        """The files that are written once for all cases."""
        of_viewers = (ITKSNAP_FILE, NIIVUE_FILE) if "nifti" in self.formats else ()
        return [self.output / name for name in (CASES_FILE, LABELS_FILE, ABOUT_FILE, *of_viewers)]

    def claim(self, case_id: str, labels: Sequence[Label], inputs: Inputs) -> None:
        """Check, before the work, that no output of a case replaces a file of the user's.

        Raises:
            OutputExistsError: If one would.
        """
        paths = self.paths(case_id)
        for folder in {path for form, path in paths.items() if form in MESHES and not self.overwrite}:
            claim_folder(folder)
        claim_masks(paths, labels, inputs, overwrite=self.overwrite)
        if self.probabilities:
            claim([probability_file(self.output, case_id)], inputs, overwrite=self.overwrite)

    def are_there(self, case_id: str, report: CaseResult) -> bool:
        """Return whether all outputs of a case exist; an empty mask has no meshes."""
        meshless = not any(report.volumes_ml.values())
        masks = all(path.exists() or (meshless and form in MESHES) for form, path in self.paths(case_id).items())
        return masks and (not self.probabilities or probability_file(self.output, case_id).exists())
