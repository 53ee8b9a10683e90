"""A folder of images and a folder of references with equal names; nnU-Net's, too."""

from __future__ import annotations

from pathlib import Path

from volseg.cases.case import Case, Dataset, as_case_id
from volseg.cases.layouts.channels import as_channels, group_channels, split_numbered
from volseg.cases.layouts.names import by_name, in_order, references_in
from volseg.config import DicomRules
from volseg.io import SetAside, discover
from volseg.progress import Progress


def from_equal_names(
    images: Path, references: Path, rules: DicomRules, progress: Progress, channels: tuple[str, ...] = ("image",)
) -> Dataset:
    """Pair images and references of the same name, below their folder and without suffix."""
    found, wanted = (discover(folder, progress, fill_gaps=rules.allow_gaps) for folder in (images, references))
    named, labels = by_name(found.sources, images), references_in(wanted, references)
    # Where images/a_0000 has its labels/a_0000, the number is that of the case.
    numbered, rest = ({}, named) if named.keys() & labels.keys() else split_numbered(named)
    grouped, names = group_channels(numbered, channels)
    for name, source in rest.items():
        grouped[as_case_id([name], grouped)] = as_channels(source, names)
    cases, set_aside = [], [*found.set_aside, *wanted.set_aside]
    for case_id, channel_sources in grouped.items():
        missing = [name for name in names if name not in channel_sources]
        reason = f"channel {', '.join(missing)} of case {case_id} is missing" if missing else ""
        reason = reason or (
            "" if case_id in labels else f"an image without a label: no {case_id} in {references.name}/"
        )
        if reason:
            unused = [*channel_sources.values(), *([labels[case_id]] if case_id in labels else [])]
            set_aside += [SetAside(place, reason) for place in dict.fromkeys(source.place for source in unused)]
        else:
            cases.append(Case(case_id, channel_sources, labels[case_id]))
    for case_id in sorted(set(labels) - set(grouped)):
        reason = f"a label without an image: no {case_id} in {images.name}/"
        set_aside.append(SetAside(labels[case_id].place, reason))
    return Dataset("images and labels with equal names", in_order(cases), names, set_aside=tuple(set_aside))


def image_and_label_folders(root: Path) -> tuple[Path, Path] | None:
    """The two folders of a data set that is divided so; None if it is not."""
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    return None
