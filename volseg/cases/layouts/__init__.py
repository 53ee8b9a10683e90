"""The layouts of a labelled data set, each recognised by what is in the folder; a module per layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Dataset
from volseg.cases.layouts.case_folders import from_case_folders
from volseg.cases.layouts.datalist import from_dataset_json
from volseg.cases.layouts.equal_names import from_equal_names, image_and_label_folders
from volseg.cases.layouts.names import HINT, segment_labels
from volseg.cases.manifest import from_manifest, with_references
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.progress import Progress, ignore_progress


def find_dataset(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> Dataset:
    """Find the cases of a labelled data set.

    Args:
        path: A folder in one of the layouts, or a CSV manifest.
        rules: Which series of a DICOM study is meant, and how it is read.
        progress: Told while files are looked at.

    Returns:
        The cases that have images and a reference, and everything else with the reason why it is not used.

    Raises:
        DataError: If there is nothing at `path`, or no labelled case in it.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"{path} is a single file", hint=f"training takes a folder or a CSV manifest; {HINT}")
        dataset = with_references(from_manifest(path, rules))
    elif (path / "dataset.json").is_file():
        dataset = from_dataset_json(path, rules, progress)
    elif (folders := image_and_label_folders(path)) is not None:
        dataset = from_equal_names(*folders, rules, progress)
    else:
        dataset = from_case_folders(path, rules, progress)
    if not dataset.cases:
        reasons = Counter(item.reason for item in dataset.set_aside)
        found = "; ".join(f"{reason} ({count} files)" for reason, count in reasons.most_common(3)) or "it has no images"
        raise DataError(f"{path} holds no labelled case: {found}", hint=HINT)
    return (
        dataset if dataset.labels else replace(dataset, labels=segment_labels(case.reference for case in dataset.cases))
    )
