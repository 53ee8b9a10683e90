"""What a batch is to make of each case, and where that goes."""

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
    """What is to be made of each case.

    Attributes:
        output: Gets a mask per case and format, cases.csv and labels.json.
        formats: Of the masks.
        encoding: Of DICOM Segmentations.
        probabilities: Whether they are written, too.
        allow_mismatch: Whether images that the models were not made for are segmented all the same.
        overwrite: Whether the user gave up files that lie where masks and tables are to be; never the input.
        description: What DICOM objects say of themselves, the model included.
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
        """Each format once, and those that they need."""
        return with_needed(self.formats)

    @property
    def settings(self) -> list[object]:
        """What the files of a case depend on beside its images and the networks."""
        said = [repr(self.description)] if set(self.formats) & set(OF_DICOM) else []
        return [self.all_formats, self.encoding, self.probabilities, *said]

    def paths(self, case_id: str) -> dict[Format, Path]:
        """Where the masks of a case go."""
        return {form: output_path(self.output, case_id, form) for form in self.all_formats}

    @property
    def tables(self) -> list[Path]:
        """What is written once for all cases."""
        of_viewers = (ITKSNAP_FILE, NIIVUE_FILE) if "nifti" in self.formats else ()
        return [self.output / name for name in (CASES_FILE, LABELS_FILE, ABOUT_FILE, *of_viewers)]

    def claim(self, case_id: str, labels: Sequence[Label], inputs: Inputs) -> None:
        """Make sure that what is made of a case replaces no file of the user's, before it is made.

        Raises:
            OutputExistsError: If it would.
        """
        paths = self.paths(case_id)
        for folder in {path for form, path in paths.items() if form in MESHES and not self.overwrite}:
            claim_folder(folder)
        claim_masks(paths, labels, inputs, overwrite=self.overwrite)
        if self.probabilities:
            claim([probability_file(self.output, case_id)], inputs, overwrite=self.overwrite)

    def are_there(self, case_id: str, report: CaseResult) -> bool:
        """Whether all that is to be made of a case is; an empty mask has no meshes."""
        meshless = not any(report.volumes_ml.values())
        masks = all(path.exists() or (meshless and form in MESHES) for form, path in self.paths(case_id).items())
        return masks and (not self.probabilities or probability_file(self.output, case_id).exists())
