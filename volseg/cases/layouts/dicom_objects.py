"""DICOM in any folders: a Segmentation or Structure Set belongs to the series whose UID it states."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from volseg.cases.case import Case, Dataset
from volseg.cases.case_ids import case_id_of
from volseg.cases.layouts.names import KEEP_ONE, in_order
from volseg.cases.source_names import names_in, set_aside, unknown_series
from volseg.config import DicomRules
from volseg.io import SegmentsSource, SeriesSource, discover
from volseg.io.own_results import without_batches
from volseg.progress import Progress


def from_dicom_objects(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Find one case per series that an object marks, wherever the files lie, as when many patients share a folder.

    Args:
        root: The folder.
        rules: How DICOM is read.
        progress: Called while files are examined.
    """
    found = without_batches(discover(root, progress, rules=rules), root)
    marks: dict[SeriesSource, list[SegmentsSource]] = defaultdict(list)
    for segments in found.segments:
        if segments.series is not None:
            marks[segments.series].append(segments)
    cases, unused = [], list(found.set_aside)
    for name, source in names_in(found.sources, root):
        objects = marks.get(source, []) if isinstance(source, SeriesSource) else []
        if len(objects) == 1:
            cases.append(Case(case_id_of(name), {"image": source}, objects[0]))
        else:
            reason = f"it has {len(objects)} references: {KEEP_ONE}" if objects else "an image without a label"
            unused += [set_aside(each, reason) for each in (source, *objects)]
    unused += [set_aside(each, f"it is {unknown_series(each)}") for each in found.segments if not each.series]
    return Dataset("DICOM objects and the series they refer to", in_order(cases), ("image",), set_aside=tuple(unused))
