"""Layouts of labelled data sets, recognised by the content of a folder; one module per layout."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Dataset
from volseg.cases.layouts.bids import from_bids, is_bids
from volseg.cases.layouts.case_folders import from_case_folders
from volseg.cases.layouts.channels import with_colors
from volseg.cases.layouts.coco import annotations_of, from_coco
from volseg.cases.layouts.datalist import from_datalist, from_dataset_json
from volseg.cases.layouts.dicom_objects import from_dicom_objects
from volseg.cases.layouts.equal_names import from_equal_names
from volseg.cases.layouts.folders import image_and_label_folders, two_folders
from volseg.cases.layouts.names import HINT, says_reference, with_annotated
from volseg.cases.layouts.nearest import nearest_layout, what_a_list_needs, what_is_there
from volseg.cases.layouts.object_masks import with_objects
from volseg.cases.layouts.organ_masks import from_organ_masks, mask_folders
from volseg.cases.layouts.patterns import from_patterns
from volseg.cases.layouts.rest import with_the_rest
from volseg.cases.layouts.side_by_side import count_pairs, from_side_by_side
from volseg.cases.manifest import from_manifest, is_manifest, with_references
from volseg.cases.regions import with_regions
from volseg.cases.source_names import distinct
from volseg.cases.stated_names import with_stated_names
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import image_files
from volseg.io.coco import holds_annotations
from volseg.io.readable import check_there
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


def find_dataset(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> Dataset:
    """Find the cases of a labelled data set.

    Args:
        path: A folder in one of the layouts, a CSV manifest, or a JSON that lists cases.
        rules: Which series of a DICOM study to use, and how to read it.
        progress: Called while files are examined.

    Returns:
        The cases that have images and a reference, and everything else with the reason why it is not used.

    Raises:
        DataError: If there is nothing at `path`, or no labelled case in it.
    """
    check_there(path)
    dataset = _taken_for(path, rules, progress)
    if not dataset.cases:
        raise _refusal(path, dataset, rules)
    dataset = with_regions(with_colors(with_annotated(dataset)), path, rules)
    for remark in dataset.remarks:
        logger.warning("%s", remark)
    return with_stated_names(dataset, path if path.is_dir() else path.parent)


def _taken_for(path: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Interpret a path as a data set, with or without usable cases."""
    if path.is_file():
        dataset = _from_file(path, rules)
    elif rules.images and rules.references:
        dataset = from_patterns(path, rules.images, rules.references, rules)
    else:
        dataset = _from_folder(path, rules, progress)
    known, equal = distinct(dataset.cases)
    return replace(dataset, cases=known, set_aside=(*dataset.set_aside, *equal))


def _refusal(path: Path, dataset: Dataset, rules: DicomRules) -> DataError:
    """Build the error for a data set without cases, with a hint."""
    reasons = Counter(item.reason for item in dataset.set_aside)
    found = "; ".join(f"{reason} ({count} files)" for reason, count in reasons.most_common(3)) or "it has no images"
    if path.is_file():
        return DataError(f"{path} holds no labelled case: {found}", hint=what_a_list_needs(path))

    def cases_at(part: Path) -> int:
        try:
            return len(_taken_for(part, rules, ignore_progress).cases)
        except DataError:
            return 0

    return DataError(
        f"{path} holds no labelled case: {found}; there are {what_is_there(path)}",
        hint=nearest_layout(path, dataset, cases_at),
    )


def _from_file(path: Path, rules: DicomRules) -> Dataset:
    if path.suffix.lower() == ".json":
        return from_coco(path, rules) if holds_annotations(path) else from_datalist(path, rules)
    if not is_manifest(path):
        raise DataError(
            f"{path} is a single file", hint=f"training needs a folder, a CSV manifest or a datalist; {HINT}"
        )
    return with_references(from_manifest(path, rules))


def _from_folder(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    if (root / "dataset.json").is_file():
        return with_the_rest(from_dataset_json(root, rules, progress), root, "dataset.json does not list it")
    if objects := with_objects(root, rules):
        return objects
    if annotations := annotations_of(root):
        return from_coco(annotations, rules)
    if (folders := image_and_label_folders(root)) is not None:
        return _from_two_folders(root, folders, rules, progress)
    if is_bids(root):
        return from_bids(root, rules, progress)
    return _by_names_or_uids(root, rules, progress)


def _by_names_or_uids(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Interpret a folder by the names in it, else by the UIDs in DICOM files."""
    dataset = _by_names(root, rules, progress)
    if not dataset.cases and (folders := two_folders(root, rules.roi)):
        paired = _from_two_folders(root, folders, rules, progress)
        dataset = paired if paired.cases else dataset
    if not dataset.cases:
        by_uid = from_dicom_objects(root, rules, progress)
        dataset = by_uid if by_uid.cases else dataset
    return dataset


def _from_two_folders(root: Path, folders: tuple[Path, Path], rules: DicomRules, progress: Progress) -> Dataset:
    images, references = folders
    dataset = from_equal_names(images, references, rules, progress)
    return with_the_rest(dataset, root, f"it lies in neither {images.name}/ nor {references.name}/", folders)


def _by_names(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Choose the name-based layout that explains most cases; in a tie, case folders."""
    files = image_files(root)
    masks = mask_folders(files, root)
    pairs = count_pairs(files, root)
    references = Counter(
        path.relative_to(root).parts[0]
        for folder, paths in files.items()
        for path in paths
        if folder != root and says_reference(path)
    )
    case_folders = sum(count == 1 for count in references.values())
    if len(masks) > max(pairs, case_folders):
        return from_organ_masks(root, masks, rules, progress)
    if pairs > case_folders:
        return from_side_by_side(root, rules, progress)
    return from_case_folders(root, rules, progress)
