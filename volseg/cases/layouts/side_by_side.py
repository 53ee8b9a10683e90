"""References beside their images, several cases in a folder: `p1.nii.gz` and `p1_seg.nii.gz`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.layouts.names import KEEP_ONE, base_of, further_references, in_order, other_names, says_reference
from volseg.cases.layouts.stems import match_stems
from volseg.cases.source_names import name_of
from volseg.config import DicomRules
from volseg.io import FileSource, ObjectsSource, SegmentsSource, SetAside, Source, discover, is_picture
from volseg.io.outlines import SUFFIXES
from volseg.io.own_results import without_batches
from volseg.progress import Progress


def count_pairs(files: Mapping[Path, list[Path]], root: Path) -> int:
    """Count the pairs of an image and a reference beside it, by names alone.

    Args:
        files: Folder -> its image files.
        root: A pair that is alone in a folder below it is a case folder, not a case of many.
    """
    total = 0
    for folder, paths in files.items():
        pairs = len(paired_bases(paths)) + sum(map(_is_outlined, paths))
        total += pairs if pairs > 1 or folder == root else 0
    return total


def _is_outlined(path: Path) -> bool:
    """Return whether an outline file of the same name lies beside a picture."""
    return is_picture(path) and any(path.with_name(f"{stem(path)}{suffix}").is_file() for suffix in SUFFIXES)


def paired_bases(paths: Iterable[Path]) -> set[str]:
    """Return the base names of references for which some image has that name, or one that continues it."""
    paths = list(paths)
    bases = {base_of(path) for path in paths if says_reference(path)} - {""}
    images = {stem(path) for path in paths if not says_reference(path)}
    return {base for base in bases if any(name == base or name.startswith((f"{base}_", f"{base}-")) for name in images)}


def from_side_by_side(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Pair images and references in one folder whose names begin alike."""
    discovery = without_batches(discover(root, progress, rules=rules), root)
    set_aside = list(discovery.set_aside)
    images: dict[str, Source] = {}
    references: defaultdict[str, list[Source]] = defaultdict(list)
    further = further_references(source.place for source in discovery.sources)
    for source in (*discovery.sources, *discovery.segments):
        name = name_of(source, root)
        if isinstance(source, SegmentsSource) or says_reference(source.place) or source.place in further:
            base = base_of(further.get(source.place, source.place))
            references["/".join([*name.split("/")[:-1], path_name([base])])].append(source)
        else:
            images[f"{name}/{source}" if name in images else name] = (
                source  # a second one with the same name has no partner
            )
    if rules.values == "objects":
        references.update({base: _as_objects(sources) for base, sources in references.items()})
    stems = match_stems(images, references)
    for base in [base for base, sources in references.items() if len(sources) > 1]:
        reason = f"{len(references[base])} references are named {base}: {KEEP_ONE}"
        unclear = [*references.pop(base), *stems.images.pop(base, {}).values()]
        set_aside += [SetAside(source.place, reason) for source in unclear]
    cases: list[Case] = []
    for base, found in stems.images.items():
        channels = dict(zip(stems.channels, found.values(), strict=True))
        cases.append(Case(case_id_of(_name(base, found, root)), channels, references[base][0]))
    lone = [
        SetAside(images[name].place, why or _without_reference(images[name], references))
        for name, why in stems.unclear.items()
    ]
    lone += [
        SetAside(sources[0].place, f"a label without an image: no {stems.named(base.split('/')[-1])} beside it")
        for base, sources in references.items()
        if base not in stems.images
    ]
    return Dataset(
        "images and references side by side",
        in_order(cases),
        stems.channels,
        set_aside=(*set_aside, *lone),
        remarks=other_names(cases),
    )


def _as_objects(sources: list[Source]) -> list[Source]:
    """Combine several masks into one reference, with one object each; outlines are not masks, and stay as they are."""
    masks = [source for source in sources if isinstance(source, FileSource)]
    if len(masks) < max(2, len(sources)):
        return sources
    return [ObjectsSource(masks[0].path.parent, tuple(sorted(mask.path for mask in masks)), masks[0].rules)]


def _name(base: str, images: Mapping[str, Source], root: Path) -> str:
    """Return the name of a case: its image's, or the common part of several."""
    return name_of(next(iter(images.values())), root) if len(images) == 1 else base


def _without_reference(image: Source, references: Mapping[str, list[Source]]) -> str:
    endings = Counter(
        source.place.name[len(base_of(source.place)) :] for sources in references.values() for source in sources
    )
    usual = endings.most_common(1)[0][0] if endings else "_seg.nii.gz"
    return f"an image without a label: no {stem(image.place)}{usual} beside it"
