"""Fields of view: nothing outside of them is learned, segmented or scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.cases.case import Case, Dataset, reference_base
from volseg.cases.layouts.names import references_in
from volseg.config import DicomRules
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.io import SetAside, Source, discover, read_mask

logger = logging.getLogger(__name__)


def with_regions(dataset: Dataset, root: Path, rules: DicomRules) -> Dataset:
    """Attach fields of view to the cases of a data set; a case without its own is set aside.

    Args:
        dataset: Cases.
        root: Of the data set, or of a folder of images in it.
        rules: Names the folder of the fields of view, if there is one.

    Raises:
        DataError: If there is no such folder.
    """
    if rules.roi is None:
        return dataset
    folder = _folder(root, rules.roi)
    if folder is None:
        raise DataError(
            f"{root} has no folder {rules.roi} of fields of view",
            hint="give its path, or its name in the data set, in data.roi",
        )
    regions = _regions_in(folder, rules)
    known, set_aside = [], [item for item in dataset.set_aside if not item.path.is_relative_to(folder)]
    for case in dataset.cases:
        region = regions.get(case.case_id)
        if region is None:
            reason = f"an image without a field of view: no {case.case_id} in {folder.name}/"
            set_aside.append(SetAside(case.image.place, reason, is_fault=True))
        else:
            known.append(replace(case, region=region))
    return replace(dataset, cases=tuple(known), set_aside=tuple(set_aside))


def with_regions_if_there(dataset: Dataset, root: Path, rules: DicomRules) -> Dataset:
    """Attach fields of view to images for a model trained with them; without any, the whole image is processed."""
    if rules.roi is not None and _folder(root, rules.roi) is None:
        logger.warning("there are no fields of view (data.roi: %s): images are segmented as a whole", rules.roi)
        return dataset
    return with_regions(dataset, root, rules)


def read_region(case: Case, geometry: Geometry) -> NDArray[np.bool_] | None:
    """Read the field of view of a case, (I, J, K); None if it is the whole image.

    Args:
        case: The case to read.
        geometry: The grid of the image.

    Raises:
        DataError: If it is damaged or empty.
        GeometryError: If it lies on another grid.
    """
    if case.region is None:
        return None
    try:
        inside = read_mask(case.region, on=geometry).on(geometry).array > 0
    except GeometryError as error:
        raise GeometryError(f"case {case.case_id}: field of view and image: {error}", hint=error.hint) from error
    if not inside.any():
        raise DataError(f"case {case.case_id}: its field of view is empty", hint="draw it, or leave the case out")
    return inside


def of_regions(rules: DicomRules) -> DicomRules:
    """Return the rules for reading fields of view, which are binary, whatever references hold."""
    return rules.model_copy(update={"values": "labels", "threshold": None})


def _folder(root: Path, name: str) -> Path | None:
    """Return the folder of fields of view: in the data set, or beside the given folder of images."""
    below = root if root.is_dir() else root.parent
    return next((place for place in (below / name, below.parent / name) if place.is_dir()), None)


def _regions_in(folder: Path, rules: DicomRules) -> Mapping[str, Source]:
    """Return case id -> field of view; a mask word in a name is ignored."""
    found, _ = references_in(discover(folder, rules=of_regions(rules)), folder)
    return {reference_base(name): source for name, source in found.items()} | found
