"""Pairing of predictions with references."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from volseg.cases import find_references
from volseg.cases.case import reference_base
from volseg.cases.case_ids import case_id_of, path_name, why_equal
from volseg.cases.layouts.organ_masks import lone_masks
from volseg.cases.regions import of_regions
from volseg.cases.source_names import by_id, names_in
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.evaluation import CasePair
from volseg.io import FileSource, SeriesSource, Source, discover, is_picture
from volseg.io.earlier import is_batch_table
from volseg.io.files import without_root
from volseg.io.images import read_file
from volseg.io.pictures import holds_colors
from volseg.prediction.cases_csv import CASES_FILE, PROBABILITIES, segmented_cases

_ENDING = f"{PROBABILITIES}.nii.gz"
#: Suffixes of the files that volseg writes next to masks, with the same names.
_NO_MASKS = (PROBABILITIES, ".overlay")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairing:
    """Predictions paired with references.

    Attributes:
        pairs: One per reference.
        remarks: Remarks on files without a partner.
    """

    pairs: tuple[CasePair, ...]
    remarks: tuple[str, ...]


def pair_cases(
    predictions: Path,
    references: Path,
    *,
    only_predicted: bool,
    rules: DicomRules = NO_RULES,
    within: Path | None = None,
    threshold: float | None = None,
) -> Pairing:
    """Pair masks and references by case id.

    Args:
        predictions: A folder of masks, and of probabilities if there are any.
        references: A folder of label maps or a labelled data set.
        only_predicted: Whether references without a prediction are left out.
        rules: How DICOM references are read.
        within: Folder of regions of interest, one mask per case; voxels outside are not scored.
        threshold: Probability above which a voxel has the only label, for soft masks; None for label maps.

    Returns:
        The pairs.

    Raises:
        DataError: If there are no references, or no prediction belongs to any.
    """
    wanted = find_references(references, rules)
    made = masks_in(predictions, rules.model_copy(update={"threshold": threshold}))
    if threshold is not None and rules.certain is None:
        made = _on_one_scale(made)
    if rules.values == "colors":
        made = {case_id: _in_numbers(source) for case_id, source in made.items()}
    lay: dict[str, str] = {}
    if is_batch_table(predictions / CASES_FILE):  # a mask that it does not list belongs to no case
        lay = {case_id: origin.source for case_id, origin in segmented_cases(predictions / CASES_FILE).items()}
        made = {case_id: made[case_id] for case_id in lay if case_id in made}
    if not made:
        raise DataError(
            f"there is no mask in {predictions}",
            hint="give a folder of masks, such as `volseg predict` writes",
        )
    names = partners(wanted, made, lay)
    if predictions.is_file() and references.is_file() and len(wanted) == len(made) == 1:
        names = dict(zip(wanted, made, strict=True))
    if not names:
        raise DataError(
            f"no mask in {predictions} has the name of a reference in {references}",
            hint=f"masks: {_some(made)}; references: {_some(wanted)}",
        )
    remarks = other_names(names, "references are compared with")
    if missing := set(wanted) - set(names):
        what = "left out" if only_predicted else "scored 0 (--only-predicted leaves them out)"
        remarks.append(f"{len(missing)} references have no prediction and are {what}: {_some(missing)}")
    if extra := set(made) - set(names.values()):
        remarks.append(f"{len(extra)} predictions have no reference and are not scored: {_some(extra)}")
    regions = {} if within is None else masks_in(within, of_regions(rules))
    inside = partners(wanted, regions)
    remarks += other_names(inside, "references are looked at within")
    shares = probabilities_in(predictions)
    pairs = (
        CasePair(
            case_id,
            made[names[case_id]] if case_id in names else None,
            wanted[case_id],
            regions[inside[case_id]] if case_id in inside else None,
            shares.get(names.get(case_id, case_id)),
        )
        for case_id in sorted(wanted)
    )
    return Pairing(tuple(pair for pair in pairs if pair.prediction or not only_predicted), tuple(remarks))


def _on_one_scale(made: Mapping[str, Source]) -> dict[str, Source]:
    """Return soft masks with one scale for their integers, from the largest value of all: 1, 255 or 65535."""
    most = 1
    for source in made.values():
        if not isinstance(source, FileSource):
            continue
        try:
            array, _ = read_file(source)
        except DataError:  # scoring the case reports the error
            continue
        if array.dtype.kind == "u" and array.max(initial=0) > most:
            most = 255 if array.max() <= 255 else 65535
        if most >= 256 ** min(array.dtype.itemsize, 2) - 1:  # no file of this type can hold more
            break
    return {
        case_id: replace(source, rules=source.rules.model_copy(update={"certain": most}))
        if isinstance(source, FileSource)
        else source
        for case_id, source in made.items()
    }


def _in_numbers(source: Source) -> Source:
    """Return a mask that is read by its values, with or without a palette; one that has only colours keeps them."""
    if not isinstance(source, FileSource) or not is_picture(source.path) or holds_colors(source.path):
        return source
    return replace(source, rules=source.rules.model_copy(update={"values": "labels"}))


def masks_in(folder: Path, rules: DicomRules = NO_RULES) -> dict[str, Source]:
    """Find the masks in a folder.

    Args:
        folder: A folder as `volseg predict` writes it, or any other.
        rules: How DICOM is read.

    Returns:
        Case id -> its mask; a case in several formats counts once. Masks with equal ids are not used, with a warning.
    """
    found = discover(folder, rules=rules)
    if per_structure := lone_masks(found, folder, rules):
        return per_structure
    marked = {uid for segments in found.segments for uid in segments.series_uids}  # the images of masks, not masks
    sources = [each for each in found.sources if not (isinstance(each, SeriesSource) and each.series_uid in marked)]
    named = dict(names_in(reversed([*sources, *found.segments]), folder))
    masks = ((case_id_of(name), source) for name, source in named.items() if not name.endswith(_NO_MASKS))
    known, equal = by_id(masks, key=str)
    for group in equal:
        logger.warning("not used: %s", without_root(why_equal(str(source.place) for source in group), folder))
    return known


def probabilities_in(folder: Path) -> dict[str, Path]:
    """Return case id -> file of probabilities, as `volseg predict` writes it."""
    return {case_id_of(path_name([path.name])[: -len(_ENDING)]): path for path in folder.glob(f"*{_ENDING}")}


def partners(
    wanted: Collection[str], found: Collection[str], lay: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Match case ids with the names that were found.

    A name matches itself, with or without a word for reference: "p1_seg" matches "p1". A case id without such a match
    is matched to the only name that continues it and fits no other: a labelled case may be named by its folder, a
    prediction by the path of its image, which is longer.

    Args:
        wanted: Case ids.
        found: Case ids.
        lay: Paths of the found cases below their input, if known; they show where a name continues.

    Returns:
        Wanted case id -> found case id.
    """
    bases = Counter(map(reference_base, wanted))
    about = {case_id: base if (base := reference_base(case_id)) and bases[base] == 1 else case_id for case_id in wanted}
    equal = {case_id: base for case_id, base in about.items() if base in found}
    equal |= {case_id: case_id for case_id in wanted if case_id in found}
    taken = set(equal.values())
    begun = {name: _beginnings(name, about, lay.get(name, "")) for name in found if name not in taken}
    times = Counter(case_id for beginnings in begun.values() for case_id in beginnings)
    longer = {only[0]: name for name, only in begun.items() if len(only) == 1 and times[only[0]] == 1}
    return longer | equal


def _beginnings(name: str, about: Mapping[str, str], lay: str) -> list[str]:
    """Return the ids that a longer name may continue: the folders of its source, or any part up to an underscore."""
    folders = {case_id_of(path_name(folder.parts)) for folder in PurePosixPath(lay).parents}
    return [case_id for case_id in about if case_id in folders] or [
        case_id for case_id, base in about.items() if name.startswith(f"{base}_")
    ]


def images_of(pairs: Iterable[CasePair], images: Mapping[str, Source]) -> tuple[dict[str, Source], list[str]]:
    """Find the image of each case.

    Args:
        pairs: The cases.
        images: Case id -> image.

    Returns:
        Case id -> its image, and remarks on images with other names.
    """
    names = partners([pair.case_id for pair in pairs], images)
    return {case_id: images[name] for case_id, name in names.items()}, other_names(names, "references are drawn on")


def other_names(partners: Mapping[str, str], what: str) -> list[str]:
    """Return a remark on partners with other names, if there are any."""
    others = [f"{case_id} with {name}" for case_id, name in partners.items() if name != case_id]
    return [f"{len(others)} {what} another name: {_some(others)}"] if others else []


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
