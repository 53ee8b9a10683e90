"""The verb `export`: a mask, or every mask in a folder, in another format and with the model that made it."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from volseg.cases import find_images
from volseg.cases.case import stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.series import studies_of
from volseg.config import DicomRules
from volseg.errors import ConfigError, DataError, ItemOutputError, OutputError
from volseg.evaluation.pairing import masks_in, partners
from volseg.exporting import MESHES, Export, Exported, export, output_path, warn_of_private_codes
from volseg.exporting.description import ModelIdentity
from volseg.exporting.export import export_on, images_at
from volseg.image.volume import Label
from volseg.io import SegmentsSource, SeriesSource, Source
from volseg.io.files import append_text, make_folder, without_root
from volseg.io.tables import write_table
from volseg.io.written import Inputs, claim, claim_folder, is_corrected, remove_written_in
from volseg.prediction.batch_inputs import told_place
from volseg.prediction.cases_csv import CASES_FILE, Origin, models_in, read_origins
from volseg.prediction.request import LOG_FILE
from volseg.progress import Progress, ignore_progress

#: What became of each mask, beside what was written.
EXPORTS_FILE = "exports.csv"

logger = logging.getLogger(__name__)


class ExportStatus(StrEnum):
    """The outcome for a mask: it is exported, or that failed."""

    EXPORTED = "exported"
    FAILED = "failed"


@dataclass(frozen=True)
class ExportedCase:
    """One mask of a folder.

    Attributes:
        case_id: Of the mask.
        status: What became of it.
        reason: Why it failed.
        paths: What was written: a report comes with the Segmentation it refers to.
        labels: What the values of the mask mean.
    """

    case_id: str
    status: ExportStatus
    reason: str = ""
    paths: tuple[Path, ...] = ()
    labels: tuple[Label, ...] = ()


def export_mask(request: Export) -> Exported:
    """Export one mask; see `volseg.exporting.export`."""
    case_id = case_id_of(path_name([stem(request.mask)]))
    return export(_described(request, models_in(request.mask.parent).get(case_id)))


def export_folder(request: Export, progress: Progress = ignore_progress) -> tuple[ExportedCase, ...]:
    """Export every mask in a folder; one that fails does not stop the others.

    Args:
        request: What is asked for: `mask` is the folder of masks, `reference` that of the images, and `output` the
            folder that is written to.
        progress: Told per mask.

    Returns:
        What became of each mask, in the order of the case ids.

    Raises:
        DataError: If there are no masks, or no images.
        OutputExistsError: If there is a table that volseg did not write or that was changed since.
        OutputError: If the output cannot be written.
    """
    masks = masks_in(request.mask, request.rules)
    if not masks:
        raise DataError(
            f"there is no mask in {request.mask}",
            hint="give a folder of masks, such as `volseg predict` writes",
        )
    images = _Images(request.reference, request.rules, sorted(masks), read_origins(request.mask / CASES_FILE))
    inputs = Inputs.of(*request.inputs.paths, *(file for source in masks.values() for file in source.files))
    claim([request.output / EXPORTS_FILE], inputs, overwrite=request.overwrite)
    make_folder(request.output)
    models = models_in(request.mask)
    cases = []
    for done, case_id in enumerate(sorted(masks)):
        progress("export", done, len(masks), case_id)
        path = output_path(request.output, case_id, request.form)
        one = replace(request, mask=masks[case_id].place, output=path)
        cases.append(_exported(case_id, masks[case_id], images, one, models.get(case_id), inputs))
    progress("export", len(masks), len(masks))
    for labels in dict.fromkeys(case.labels for case in cases):
        warn_of_private_codes(labels, [request.form])
    rows = [
        {
            "case_id": case.case_id,
            "status": str(case.status),
            "reason": case.reason,
            "path": "; ".join(path.name for path in case.paths),
        }
        for case in cases
    ]
    write_table(rows, request.output / EXPORTS_FILE)
    return tuple(cases)


def _exported(
    case_id: str,
    source: Source,
    images: _Images,
    request: Export,
    model: ModelIdentity | None,
    inputs: Inputs,
) -> ExportedCase:
    """Export one mask, or say why it could not be."""
    try:
        if request.form in MESHES and not request.overwrite:
            claim_folder(request.output)
            remove_written_in(request.output, f"*.{request.form}")
        exported = export_on(source, images.of(case_id, source), _described(request, model), inputs)
    except (ConfigError, DataError, ItemOutputError) as error:
        reason = error.explanation
    except OutputError:
        raise  # no other mask would fare better
    except MemoryError:
        reason = "it needs more memory than there is; close other programs, or use a machine with more memory"
    except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
        reason = f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}"
        append_text(request.output.parent / LOG_FILE, f"mask {case_id}\n{traceback.format_exc()}\n")
    else:
        return ExportedCase(case_id, ExportStatus.EXPORTED, paths=exported.paths, labels=exported.mask.labels)
    reason = without_root(without_root(reason, request.mask.parent), request.reference)
    logger.info("mask %s is not exported: %s", case_id, reason)
    return ExportedCase(case_id, ExportStatus.FAILED, reason)


def _described(request: Export, model: ModelIdentity | None) -> Export:
    """State the model, and whether somebody has corrected its mask."""
    description = replace(request.description, model=model, corrected=is_corrected(request.mask))
    return replace(request, description=description)


class _Images:
    """The images that a folder of masks was made from.

    Args:
        path: Where they lie: best what was segmented, else a data set or a folder of images.
        rules: How they are read.
        case_ids: Of the masks.
        origins: Case id -> where it lay below the input, of a folder that `predict` wrote.
    """

    def __init__(self, path: Path, rules: DicomRules, case_ids: Sequence[str], origins: Mapping[str, Origin]) -> None:
        self._path, self._rules, self._case_ids, self._origins = path, rules, case_ids, origins
        root = path if path.is_dir() else path.parent
        self._found = images_at(path, rules)
        self._of_series, self._at = defaultdict[str, list[Source]](list), defaultdict[str, list[Source]](list)
        for image in self._found:
            self._of_series[_uid(image)].append(image)
            self._at[told_place(image.place, root)].append(image)

    def of(self, case_id: str, mask: Source) -> Sequence[Source]:
        """Return those that a mask may lie on: of the series that it names, where cases.csv says, or of its name.

        Raises:
            DataError: If there is none.
        """
        named = mask.series_uids if isinstance(mask, SegmentsSource) else ()
        if stated := [image for uid in named if uid for image in self._of_series.get(uid, ())]:
            return stated
        origin = self._origins.get(case_id, Origin())
        placed = self._at.get(origin.source, ()) if origin.source else ()
        if same := [image for image in placed if origin.series_uid in {"", _uid(image)}]:
            return same
        if case_id in self._called:
            return self._called[case_id]
        raise DataError(
            f"no image is called {case_id}",
            hint="give what was segmented as --reference, or give both one name",
        )

    @cached_property
    def _called(self) -> dict[str, Sequence[Source]]:
        """Return case id of a mask -> the image that is called so, and the other series of its study."""
        images = find_images(self._path, self._rules)
        studies = studies_of([image for image in self._found if isinstance(image, SeriesSource)])
        alternatives: dict[Source, Sequence[Source]] = {image: study for study in studies for image in study}
        names = partners(self._case_ids, images)
        return {case_id: alternatives.get(images[name], [images[name]]) for case_id, name in names.items()}


def _uid(image: Source) -> str:
    return image.series_uid if isinstance(image, SeriesSource) else ""
