"""BIDS: images of subjects, with label maps beside them or among the derivatives, matched by entities.

Names are read as the Brain Imaging Data Structure has them: entities and suffixes ("Common principles"), masks and
segmentations ("Imaging derivatives").
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import commonpath
from pathlib import Path

from volseg.cases.case import Case, Dataset
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.content import MASK_BY_NAME
from volseg.cases.layouts.bids_names import NO_ANATOMY, BidsFile, looked_up_names
from volseg.cases.layouts.names import in_order, says_reference
from volseg.cases.source_names import name_of
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import FileSource, MasksSource, SetAside, Source, discover, image_suffix
from volseg.io.own_results import without_batches
from volseg.progress import Progress

_WAY_OUT = "choose in a manifest: a CSV of case_id,image,reference (docs/data.md)"

#: Label maps of one image: one of several structures, or one per structure.
_Labels = tuple[BidsFile, ...]


def is_bids(root: Path) -> bool:
    """Return whether a folder is a BIDS data set with images: folders of subjects, and a description or derivatives."""
    if not root.is_dir() or not ((root / "dataset_description.json").is_file() or (root / "derivatives").is_dir()):
        return False
    files = (path for folder in root.glob("sub-*") for path in folder.rglob("*") if image_suffix(path))
    return any(not _is_label(BidsFile.of(path, root)) for path in files)


def why_no_image(path: Path, root: Path) -> str:
    """Return why a file of a BIDS data set is not segmented; empty if it is."""
    file = BidsFile.of(path, root)
    if _is_label(file):
        return MASK_BY_NAME
    if not file.is_raw:
        return "a derivative, not an image of the data set: to segment it, give its own folder"
    return f"not an anatomical volume ({file.datatype})" if file.datatype in NO_ANATOMY else ""


def _is_label(file: BidsFile) -> bool:
    """Return whether a file is a label map by its BIDS name or, as one from another program may be, by any other."""
    return file.is_label or says_reference(file.path)


def from_bids(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Find the cases of a BIDS data set: each label map with the images that share its entities; suffixes are channels.

    Raises:
        DataError: If several kinds of label maps are possible, or they state different names for a value.
    """
    discovery = without_batches(discover(root, progress, rules=rules), root)
    set_aside = list(discovery.set_aside)
    files: list[BidsFile] = []
    for source in discovery.sources:
        if isinstance(source, FileSource):
            files.append(BidsFile.of(source.path, root))
        else:
            set_aside.append(SetAside(source.place, "not a BIDS file"))
    images = [file for file in files if not why_no_image(file.path, root)]
    labels = [file for file in files if file.is_label]
    set_aside += [
        SetAside(file.path, why_no_image(file.path, root))
        for file in files
        if file not in images and file not in labels
    ]
    chosen, not_chosen = _choose(root, labels, images)
    set_aside += not_chosen
    found: list[tuple[_Labels, dict[str, BidsFile]]] = []
    for group in _of_one_image(chosen):
        mine, reason = _images_of(group[0], images)
        if reason:
            set_aside += [SetAside(file.path, reason) for file in group]
        else:
            found.append((group, mine))
    channels = _usual_channels(mine for _, mine in found)
    cases = _cases(root, found, channels, rules, set_aside)
    used = {source.place for case in cases for source in case.images.values()}
    lone = [file.path for file in images if file.path not in used]
    set_aside += [SetAside(path, "an image without a label, or not of the channels of most cases") for path in lone]
    stated = looked_up_names(root, [group[0] for group, _ in found if len(group) == 1 and not group[0].marks])
    return Dataset(
        "BIDS",
        in_order(cases),
        channels,
        stated,
        set_aside=tuple(set_aside),
        remarks=(f"references are {chosen[0].kind}",) if chosen else (),
    )


def _choose(
    root: Path, labels: Sequence[BidsFile], images: Sequence[BidsFile]
) -> tuple[list[BidsFile], list[SetAside]]:
    """Return the label maps of the only possible kind, and why the others are not used."""
    suffixes, spaces = {file.suffix for file in images}, {file.entities.get("space", "") for file in images}
    set_aside: list[SetAside] = []
    kinds: defaultdict[str, list[BidsFile]] = defaultdict(list)
    for file in labels:
        if file.suffix == "probseg":
            set_aside.append(SetAside(file.path, "probabilities, not a label map"))
        elif not file.lies_in(spaces, suffixes):
            set_aside.append(SetAside(file.path, f"in the space {file.entities['space']}, where the images are not"))
        else:
            kinds[file.kind].append(file)
    discrete = {kind: files for kind, files in kinds.items() if files[0].suffix == "dseg" and not files[0].marks}
    candidates = discrete or kinds
    if len(candidates) > 1:
        listed = "; ".join(f"{kind} ({len(files)})" for kind, files in sorted(candidates.items()))
        raise DataError(
            f"{root} has several kinds of label maps, and it is not stated which to use: {listed}", hint=_WAY_OUT
        )
    taken = next(iter(candidates), "")
    for kind, files in kinds.items():
        if kind != taken:
            set_aside += [SetAside(file.path, f"the references are {taken}") for file in files]
    return list(candidates.get(taken, ())), set_aside


def _of_one_image(labels: Sequence[BidsFile]) -> Iterator[_Labels]:
    """Yield label maps, grouping masks of single structures of one image."""
    groups: defaultdict[object, list[BidsFile]] = defaultdict(list)
    for file in labels:
        groups[(file.of_image, file.datatype, file.words) if file.marks else file].append(file)
    return (tuple(sorted(group, key=lambda file: file.marks)) for group in groups.values())


def _images_of(label: BidsFile, images: Sequence[BidsFile]) -> tuple[dict[str, BidsFile], str]:
    """Return suffix -> image for a label map; or why that is ambiguous."""
    fitting = [image for image in images if label.is_about(image)]
    if label.datatype and any(image.datatype == label.datatype for image in fitting):
        fitting = [image for image in fitting if image.datatype == label.datatype]
    if not fitting:
        return {}, "a label without an image: none shares its entities"
    found = {image.suffix: image for image in fitting}
    if len(found) < len(fitting):
        return {}, f"several images share its entities: {', '.join(image.path.name for image in fitting)}; {_WAY_OUT}"
    return found, ""


def _usual_channels(found: Iterable[Mapping[str, BidsFile]]) -> tuple[str, ...]:
    """Return the suffixes that most cases have; in a tie, those that more cases have among others."""
    known = list(found)
    counts = Counter(tuple(sorted(images)) for images in known)
    within = {names: sum(set(names) <= set(images) for images in known) for names in counts}
    return max(counts, key=lambda names: (counts[names], within[names], len(names), names), default=("image",))


def _cases(
    root: Path,
    found: Sequence[tuple[_Labels, Mapping[str, BidsFile]]],
    channels: tuple[str, ...],
    rules: DicomRules,
    set_aside: list[SetAside],
) -> list[Case]:
    """Build the cases that have all channels; others are added to `set_aside`."""
    cases: list[Case] = []
    taken: set[Path] = set()
    for labels, images in found:
        missing = [channel for channel in channels if channel not in images]
        paths = [images[channel].path for channel in channels if channel in images]
        if missing:
            set_aside += [SetAside(file.path, f"{missing[0]} is missing, which most cases have") for file in labels]
        elif taken & set(paths):
            set_aside += [SetAside(file.path, f"another label map describes {paths[0].name}, too") for file in labels]
        else:
            taken.update(paths)
            sources: dict[str, Source] = {
                channel: FileSource(path, rules=rules.of_files) for channel, path in zip(channels, paths, strict=True)
            }
            cases.append(Case(case_id_of(_name(paths, root, channels)), sources, _reference(labels, rules)))
    return cases


def _name(paths: Sequence[Path], root: Path, channels: Sequence[str]) -> str:
    """Return the name of a case, as in prediction: the path of the image, or of the folder of several."""
    name = name_of(FileSource(paths[0]), root)
    if len(paths) == 1:
        return name
    folder = Path(commonpath([path.parent for path in paths]))
    alike = [path for path in folder.iterdir() if BidsFile.of(path, root).suffix == channels[0]]
    alone = len([path for path in alike if image_suffix(path)]) <= 1
    beginning = name.split("/")[-1].removesuffix(f"_{channels[0]}")
    return path_name([*folder.relative_to(root).parts, *([] if alone else [beginning])])


def _reference(labels: _Labels, rules: DicomRules) -> Source:
    if not labels[0].marks:
        return FileSource(labels[0].path, rules=rules.of_files)
    masks = tuple((file.marks, file.path) for file in labels)
    return MasksSource(labels[0].path.parent, masks, rules.of_files)
