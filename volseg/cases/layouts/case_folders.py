"""One folder per case: the reference is recognised by its kind or its name, the remaining images are the channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from volseg.cases import source_names
from volseg.cases.case import Case, Dataset, names_a_reference
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.layouts.names import KEEP_ONE, in_order, is_of_slicer
from volseg.cases.series import choose_in_folders, choose_series
from volseg.cases.source_names import by_id, by_name, refused
from volseg.config import DicomRules
from volseg.io import Discovery, SeriesSource, SetAside, Source, discover
from volseg.io.own_results import without_batches
from volseg.io.written import is_result
from volseg.progress import Progress


def from_case_folders(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Find one case per folder: the reference by its kind or its name, the remaining images as channels."""
    folders: list[tuple[str, tuple[dict[str, Source], list[Source]]]] = []
    set_aside: list[SetAside] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        discovery = without_batches(discover(folder, progress, rules=rules), root)
        set_aside += discovery.set_aside
        images, references, not_taken = parts_of_case(discovery, folder, rules)
        set_aside += not_taken
        if images or references:
            folders.append((case_id_of(path_name([folder.name])), (images, references)))
    found, equal = by_id(folders)
    for group in equal:
        set_aside += refused([*images.values(), *references] for images, references in group)
    for path in sorted(root.glob("[!.]*")):
        if path.is_file() and not is_result(path):
            set_aside += _loose(path)
    channels = tuple(rules.series) or common_channels(images for images, _ in found.values())
    cases = []
    for case_id, (images, references) in found.items():
        chosen = images if len(channels) > 1 else dict(zip(channels, images.values(), strict=False))
        reason = why_not(case_id, images, references, channels)
        if reason:
            set_aside += [source_names.set_aside(source, reason) for source in [*images.values(), *references]]
        else:
            cases.append(Case(case_id, {name: chosen[name] for name in channels}, references[0]))
    return Dataset("one folder per case", in_order(cases), channels, set_aside=tuple(set_aside))


def _loose(path: Path) -> list[SetAside]:
    """Set aside what lies beside the case folders: a file, or what is wrong with it or in it."""
    discovery = discover(path)
    if discovery.sources or discovery.segments:
        return [SetAside(path, "lies beside the case folders, not in one")]
    return list(discovery.set_aside)


def parts_of_case(
    discovery: Discovery, folder: Path, rules: DicomRules
) -> tuple[dict[str, Source], list[Source], list[SetAside]]:
    """Return the images by channel, the references, and the unused series of a case folder."""
    marked = {source.series for source in discovery.segments} - {None}
    free = not rules.series and len(marked) != 1
    sources, not_taken = choose_in_folders(discovery.sources, rules) if free else (discovery.sources, [])
    named, unclear = by_name(sources, folder)
    references: list[Source] = [
        source for name, source in named.items() if names_a_reference(name.split("/")[-1]) or is_of_slicer(source.place)
    ]
    others = {name: source for name, source in named.items() if source not in references}
    candidates = {name: source for name, source in others.items() if not is_result(source.place)}
    references += discovery.segments
    series = [source for source in candidates.values() if isinstance(source, SeriesSource)]
    images: dict[str, Source] = {}
    reasons: dict[SeriesSource, str] = {}
    if rules.series:
        choice = choose_series(series, tuple(rules.series), rules)
        images |= choice.chosen
        reasons = choice.not_taken
    elif len(marked) == 1:  # the reference states which image it describes
        reasons = {source: "the reference refers to another series" for source in series if source not in marked}
    rest = {name: s for name, s in candidates.items() if s not in reasons and s not in images.values()}
    images |= _as_channels_of(rest, folder, taken=images)
    not_taken += [source_names.set_aside(source, reason) for source, reason in reasons.items()]
    return images, references, [*not_taken, *unclear]


def _as_channels_of(named: Mapping[str, Source], folder: Path, taken: Iterable[str]) -> dict[str, Source]:
    """Return channel -> source, by the distinguishing parts of the names; others keep their names."""
    short = {name: case_id_of(_channel_name(name, path_name([folder.name]))) for name in named}
    counts = Counter([*short.values(), *taken])
    return {short[name] if counts[short[name]] == 1 else case_id_of(name): source for name, source in named.items()}


def why_not(case_id: str, images: Mapping[str, Source], references: list[Source], channels: tuple[str, ...]) -> str:
    """Return why a case folder is not a labelled case; empty if it is one."""
    if not images:
        return f"a label without an image in case {case_id}"
    if not references:
        return f"an image without a label in case {case_id}"
    if len(references) > 1:
        return f"case {case_id} has {len(references)} references: {KEEP_ONE}"
    if len(channels) == 1 and len(images) == 1:
        return ""
    if set(images) != set(channels):
        return f"case {case_id} has channels {', '.join(sorted(images))}, most cases have {', '.join(channels)}"
    return ""


def common_channels(images: Iterable[Mapping[str, Source]]) -> tuple[str, ...]:
    """Return the set of channels that most cases have; a single image per case is one channel whatever its name."""
    counts = Counter(tuple(sorted(found)) if len(found) > 1 else ("image",) for found in images if found)
    return max(counts, key=lambda names: (counts[names], names)) if counts else ("image",)


def _channel_name(name: str, case_name: str) -> str:
    """Return the part of a name that distinguishes a file within its case folder: "BraTS_001_flair" -> "flair"."""
    return name.removeprefix(case_name).strip("_-. ") or "image"
