"""References and images of a data set by case id, for masks that already exist."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Case
from volseg.cases.inputs import find_inputs
from volseg.cases.layouts import find_dataset
from volseg.cases.layouts.bids import is_bids
from volseg.cases.layouts.coco import annotations_of
from volseg.cases.layouts.datalist import is_datalist
from volseg.cases.layouts.folders import image_and_label_folders
from volseg.cases.layouts.names import references_in, says_reference
from volseg.cases.layouts.object_masks import with_objects
from volseg.cases.layouts.organ_masks import lone_masks, mask_folders
from volseg.cases.layouts.side_by_side import paired_bases
from volseg.cases.manifest import from_manifest, is_manifest
from volseg.cases.source_names import by_reason
from volseg.cases.stated_names import NamesBeside, of_references, with_stated_names
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import FileSource, SegmentsSource, SetAside, Source, discover, image_files, is_picture
from volseg.io.own_results import without_batches
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


def find_references(
    path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress
) -> dict[str, Source]:
    """Find the references of cases: of a labelled data set in any layout, or a folder of label maps.

    Args:
        path: A data set, a CSV manifest with a `reference` column, a folder of label maps, or one label map.
        rules: How DICOM is read.
        progress: Called while files are examined.

    Returns:
        Case id -> where its reference is read from.

    Raises:
        DataError: If there is none.
    """
    if is_manifest(path):
        cases = with_stated_names(from_manifest(path, rules), path.parent).cases
    elif is_dataset(path, rules) or annotations_of(path):
        cases = _all_cases(path, rules, progress)
    else:
        discovery = without_batches(discover(path, progress, rules=rules), path)
        if masks := lone_masks(discovery, path, rules):
            return masks
        found, unclear = references_in(discovery, path)
        if not found:
            raise DataError(f"{path} holds no reference", hint="give a folder of label maps, or a labelled data set")
        if not _beside_images(found, path):
            _say_not_scored(unclear, path)
            names = NamesBeside(path, of_references)
            return {case_id: names.given(source) for case_id, source in found.items()}
        cases = _all_cases(path, rules, progress)
    return {case.case_id: case.reference for case in cases if case.reference is not None}


def find_images(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> dict[str, Source]:
    """Find the images of cases for display: the first of several channels.

    Args:
        path: A data set recognised by its names or a manifest, or a folder of images.
        rules: How DICOM is read.
        progress: Called while files are examined.

    Returns:
        Case id -> where its image is read from.

    Raises:
        DataError: If there is nothing at `path`.
    """
    if is_manifest(path):
        cases = from_manifest(path, rules).cases
    elif is_dataset(path, rules) or annotations_of(path):
        cases = find_dataset(path, rules, progress).cases
    else:
        cases = find_inputs(path, ("image",), rules, progress).cases
    return {case.case_id: _first_channel(case.image) for case in cases}


def images_beside(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> dict[str, Source]:
    """Find the images of the cases whose references `find_references` finds; none if they lie elsewhere.

    Args:
        path: A data set, a CSV manifest, a folder of label maps, or one label map.
        rules: How DICOM is read.
        progress: Called while files are examined.

    Returns:
        Case id -> where the first channel of its image is read from.
    """
    if is_manifest(path) or is_dataset(path, rules) or annotations_of(path):
        return find_images(path, rules, progress)
    found, _ = references_in(without_batches(discover(path, progress, rules=rules), path), path)
    if not _beside_images(found, path):
        return {}
    return {case.case_id: _first_channel(case.image) for case in find_dataset(path, rules, progress).cases}


def _first_channel(image: Source) -> Source:
    """Return the first channel of a picture, whose number of channels is unknown without a model."""
    return replace(image, frame=0) if isinstance(image, FileSource) and is_picture(image.path) else image


def is_list(path: Path) -> bool:
    """Return whether a path is a list of cases: a manifest, or a JSON."""
    return is_manifest(path) or is_datalist(path)


def is_dataset(path: Path, rules: DicomRules = NO_RULES) -> bool:
    """Return whether a path holds images and references, by its names or the rules."""
    if not path.is_dir():
        return is_datalist(path)
    if rules.images or with_objects(path, rules):
        return True
    names = {entry.name: entry.is_dir() for entry in path.iterdir()}
    described = "dataset.json" in names and any(names.values())  # nnU-Net puts one among its masks, too
    stated = described or not names.keys().isdisjoint({"labels", "labelsTr"})
    return stated or image_and_label_folders(path) is not None or is_bids(path)


def _all_cases(path: Path, rules: DicomRules, progress: Progress) -> tuple[Case, ...]:
    """Find the cases of a labelled data set, logging what is not used: its absence from a mean would not be noticed."""
    dataset = find_dataset(path, rules, progress)
    _say_not_scored(dataset.set_aside, path)
    return dataset.cases


def _say_not_scored(items: Iterable[SetAside], root: Path) -> None:
    for line in by_reason(items, root):
        logger.warning("not scored: %s", line)


def _beside_images(found: dict[str, Source], root: Path) -> bool:
    """Return whether references lie beside images: in a folder per case, or with the name of their image."""
    files = image_files(root)
    if paired_bases(files.get(root, ())) or mask_folders(files, root):
        return True
    below = [
        isinstance(source, SegmentsSource) or says_reference(source.place)
        for source in found.values()
        if source.place.parent != root
    ]
    return any(below) and not all(below)
