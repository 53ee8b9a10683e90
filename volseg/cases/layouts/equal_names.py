"""A folder of images and a folder of references with equal names; also nnU-Net's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from volseg.cases.case import Case, Dataset, reference_base
from volseg.cases.case_ids import case_id_of
from volseg.cases.layouts.channels import as_channels, group_channels, split_numbered
from volseg.cases.layouts.names import in_order, other_names, references_in
from volseg.cases.layouts.stems import match_stems
from volseg.cases.series import choose_in_folders
from volseg.cases.source_names import by_id, by_name, refused
from volseg.config import DicomRules
from volseg.io import SetAside, Source, discover
from volseg.io.own_results import without_batches, without_results
from volseg.progress import Progress


def from_equal_names(
    images: Path, references: Path, rules: DicomRules, progress: Progress, channels: tuple[str, ...] = ("image",)
) -> Dataset:
    """Pair images and references of the same name, relative to their folder and without suffix.

    A reference word in a name is ignored: `labels/p1_seg` belongs to `images/p1`. If no name has a partner, images are
    matched by the beginning of the reference's name: `images/p1_ct` and `labels/p1_seg`.
    """
    found, wanted = (discover(folder, progress, rules=rules) for folder in (images, references))
    found, wanted = without_results(found, images), without_batches(wanted, references)
    sources, not_taken = choose_in_folders(found.sources, rules) if len(channels) == 1 else (found.sources, [])
    named, unclear_images = by_name(sources, images)
    labels, unclear_labels = references_in(wanted, references)
    set_aside = [*found.set_aside, *wanted.set_aside, *not_taken, *unclear_images, *unclear_labels]
    plain = _by_base(labels)
    # If there are images/a_0000 and labels/a_0000, the number belongs to the case.
    as_they_are = set(map(case_id_of, named)) & (labels.keys() | plain.keys())
    numbered, rest = ({}, named) if as_they_are else split_numbered(named)
    numbered_cases, names = group_channels(numbered, channels)
    found_cases = [*numbered_cases.items(), *((name, as_channels(source, names)) for name, source in rest.items())]
    grouped, equal = by_id((case_id_of(name), channel_sources) for name, channel_sources in found_cases)
    set_aside += [item for group in equal for item in refused(sources.values() for sources in group)]
    labels = _called_as(grouped, labels, plain)
    if named and not grouped.keys() & labels.keys():
        grouped, names, labels = _by_stem(named, plain, labels, channels) or (grouped, names, labels)
    cases = []
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
    return Dataset(
        "images and labels with equal names",
        in_order(cases),
        names,
        set_aside=tuple(set_aside),
        remarks=other_names(case for case in cases if case.images[names[0]].place.is_file()),
    )


def _by_base(labels: Mapping[str, Source]) -> dict[str, str]:
    """Return base name ("p1" of "p1_seg") -> name of the reference, where it is the only one."""
    bases = Counter(reference_base(name) for name in labels)
    return {base: name for name in labels if bases[base := reference_base(name)] == 1 and base}


def _called_as(
    grouped: Mapping[str, object], labels: Mapping[str, Source], plain: Mapping[str, str]
) -> dict[str, Source]:
    """Return the references under their image's name, if the names differ in the reference word only."""
    called = {plain[base]: base for base in grouped if base in plain and base not in labels}
    called = {name: base for name, base in called.items() if name not in grouped}
    return {called.get(name, name): source for name, source in labels.items()}


def _by_stem(
    named: Mapping[str, Source], plain: Mapping[str, str], labels: Mapping[str, Source], channels: tuple[str, ...]
) -> tuple[dict[str, dict[str, Source]], tuple[str, ...], dict[str, Source]] | None:
    """Return images, channels and references by the beginning of their names; None if no two match.

    A case of one image has the image's name, one of several the common part of their names.
    """
    ids, _ = by_id((case_id_of(name), source) for name, source in named.items())
    stems = match_stems(ids, plain)
    if not stems.images:
        return None
    names = {source: case_id for case_id, source in ids.items()}
    channels = channels if len(channels) == len(stems.channels) == 1 else stems.channels
    grouped: dict[str, dict[str, Source]] = {}
    references = dict(labels)
    for base, found in stems.images.items():
        case_id = names[next(iter(found.values()))] if len(found) == 1 else case_id_of(base)
        grouped[case_id] = dict(zip(channels, found.values(), strict=True))
        references[case_id] = references.pop(plain[base])
    for name in stems.unclear:
        grouped[name] = {channels[0]: ids[name]}
    return grouped, channels, references
