"""Export of a mask, or of every mask in a folder, to another format, with the model that predicted it."""

from __future__ import annotations

import logging
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
from volseg.cases.source_names import names_in
from volseg.config import DicomRules
from volseg.errors import ConfigError, DataError, GeometryError, ItemOutputError, OutputError
from volseg.evaluation.pairing import masks_in, partners
from volseg.exporting import MESHES, Export, Exported, export, output_path, warn_of_private_codes
from volseg.exporting.description import MaskOrigin, ModelIdentity
from volseg.exporting.export import export_on, images_at
from volseg.image.volume import Label
from volseg.io import SegmentsSource, SeriesSource, Source
from volseg.io.files import make_folder, without_root
from volseg.io.tables import write_table
from volseg.io.written import Inputs, claim, claim_folder, is_corrected, remove_written_in
from volseg.prediction.batch_inputs import told_place
from volseg.prediction.cases_csv import CASES_FILE, Origin, models_in, read_origins
from volseg.prediction.defects import reason_of_defect
from volseg.progress import Progress, ignore_progress

#: Table with the outcome for each mask, in the output folder.
EXPORTS_FILE = "exports.csv"

logger = logging.getLogger(__name__)


class ExportStatus(StrEnum):
    """The outcome of exporting a mask."""

    EXPORTED = "exported"
    FAILED = "failed"


@dataclass(frozen=True)
class ExportedCase:
    """The result for one mask of a folder.

    Attributes:
        case_id: Case id of the mask.
        status: The outcome.
        reason: The reason if it failed.
        paths: The files that were written: a report comes with the Segmentation it refers to.
        labels: The meaning of the values of the mask.
    """

    case_id: str
    status: ExportStatus
    reason: str = ""
    paths: tuple[Path, ...] = ()
    labels: tuple[Label, ...] = ()


def export_mask(request: Export) -> Exported:
    """Export one mask; see `volseg.exporting.export`."""
    case_id, folder = case_id_of(path_name([stem(request.mask)])), request.mask.parent
    made_from = read_origins(folder / CASES_FILE).get(case_id, Origin()).series_uid
    return export(_described(replace(request, made_from=made_from), models_in(folder).get(case_id)))


def export_folder(request: Export, progress: Progress = ignore_progress) -> tuple[ExportedCase, ...]:
    """Export every mask in a folder; one that fails does not stop the others.

    Args:
        request: The request: `mask` is the folder of masks, `reference` that of the images, and `output` the folder to
            write to.
        progress: Called per mask.

    Returns:
        The result for each mask, in the order of the case ids.

    Raises:
        DataError: If there are no masks, or no images.
        OutputExistsError: If a table there was not written by volseg, or was changed since.
        OutputError: If the output cannot be written.
    """
    masks = masks_in(request.mask, request.rules)
    if not masks:
        raise DataError(
            f"there is no mask in {request.mask}",
            hint="give a folder of masks, such as `volseg predict` writes",
        )
    origins = read_origins(request.mask / CASES_FILE)
    images = _Images(request.reference, request.rules, sorted(masks), origins)
    inputs = Inputs.of(*request.inputs.paths, *(file for source in masks.values() for file in source.files))
    claim([request.output / EXPORTS_FILE], inputs, overwrite=request.overwrite)
    make_folder(request.output)
    models = models_in(request.mask)
    cases = []
    for done, case_id in enumerate(sorted(masks)):
        progress("export", done, len(masks), case_id)
        path = output_path(request.output, case_id, request.form)
        made_from = origins.get(case_id, Origin()).series_uid
        one = replace(request, mask=masks[case_id].place, output=path, made_from=made_from)
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
    """Export one mask; return the reason if it fails."""

    def tellable(text: str) -> str:
        return without_root(without_root(text, request.mask.parent), request.reference)

    try:
        if request.form in MESHES and not request.overwrite:
            claim_folder(request.output)
            remove_written_in(request.output, f"*.{request.form}")
        exported = _export_on_likeliest(source, images.of(case_id, source), _described(request, model), inputs)
    except (ConfigError, DataError, ItemOutputError) as error:
        reason = error.explanation
    except OutputError:
        raise  # it would affect all other masks as well
    except Exception as error:  # noqa: BLE001  a defect met in one case must not cost the others; it is kept in full
        reason = reason_of_defect(error, f"mask {case_id}", request.output.parent, tellable)
    else:
        return ExportedCase(case_id, ExportStatus.EXPORTED, paths=exported.paths, labels=exported.mask.labels)
    reason = tellable(reason)
    logger.info("mask %s is not exported: %s", case_id, reason)
    return ExportedCase(case_id, ExportStatus.FAILED, reason)


def _export_on_likeliest(
    source: Source, images: tuple[Sequence[Source], Sequence[Source]], request: Export, inputs: Inputs
) -> Exported:
    """Export a mask on an image that is called like it, else on another one that may be meant."""
    called, others = images
    if not called:
        return export_on(source, others, request, inputs)
    try:
        return export_on(source, called, request, inputs)
    except GeometryError:
        if len(others) > len(called):
            return export_on(source, others, request, inputs)
        raise


def _described(request: Export, model: ModelIdentity | None) -> Export:
    """Add the model to a request, and whether somebody has corrected its mask."""
    origin: MaskOrigin = "SEMIAUTOMATIC" if is_corrected(request.mask) else "AUTOMATIC"
    return replace(request, description=replace(request.description, model=model, origin=origin))


class _Images:
    """The images that a folder of masks belongs to.

    Args:
        path: Their folder: best the input of the prediction, else a data set or a folder of images.
        rules: How they are read.
        case_ids: Case ids of the masks.
        origins: Case id -> its path below the input, for a folder that `predict` wrote.
    """

    def __init__(self, path: Path, rules: DicomRules, case_ids: Sequence[str], origins: Mapping[str, Origin]) -> None:
        self._path, self._rules, self._case_ids, self._origins = path, rules, case_ids, origins
        root = path if path.is_dir() else path.parent
        found = images_at(path, rules)
        self._series = [image for image in found if isinstance(image, SeriesSource)]
        self._series_called = {case_id_of(name): image for name, image in names_in(self._series, root)}
        self._of_series, self._at = defaultdict[str, list[Source]](list), defaultdict[str, list[Source]](list)
        for image in found:
            self._of_series[_uid(image)].append(image)
            self._at[told_place(image.place, root)].append(image)

    def of(self, case_id: str, mask: Source) -> tuple[Sequence[Source], Sequence[Source]]:
        """Find those that a mask may lie on: of the series that it names, where cases.csv says, or of its name.

        Returns:
            The images that are called so, and all that may be meant: several series of a study, volumes of a series.

        Raises:
            DataError: If there are none.
        """
        named = mask.series_uids if isinstance(mask, SegmentsSource) else ()
        origin = self._origins.get(case_id, Origin())
        placed = self._at.get(origin.source, ()) if origin.source else ()
        stated = [image for uid in named if uid for image in self._of_series.get(uid, ())]
        called = self._series_called.get(case_id)  # one of several volumes of a series, maybe
        if likely := stated or [image for image in placed if origin.series_uid in {"", _uid(image)}]:
            return [image for image in likely if image == called], likely
        if image := called or self._partners.get(case_id):
            return [image], self._alternatives.get(image, ())
        raise DataError(
            f"no image has the name {case_id}", hint="give the segmented folder as --reference, or rename image or mask"
        )

    @cached_property
    def _partners(self) -> dict[str, Source]:
        """Return case id of a mask -> the image that has its name, or a longer one."""
        images = find_images(self._path, self._rules)
        return {case_id: images[name] for case_id, name in partners(self._case_ids, images).items()}

    @cached_property
    def _alternatives(self) -> dict[Source, Sequence[Source]]:
        """Return each series -> all of its study."""
        return {image: study for study in studies_of(self._series) for image in study}


def _uid(image: Source) -> str:
    return image.series_uid if isinstance(image, SeriesSource) else ""
