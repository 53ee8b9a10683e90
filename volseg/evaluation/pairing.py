"""Which prediction belongs to which reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from volseg.cases import find_references
from volseg.cases.case import as_case_id
from volseg.cases.layouts.names import name_parts
from volseg.cases.layouts.organ_masks import lone_masks
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.evaluation import CasePair
from volseg.io import Source, discover
from volseg.io.earlier import is_batch_table
from volseg.prediction.cases_csv import CASES_FILE, PROBABILITIES, probability_file, segmented_cases


@dataclass(frozen=True)
class Pairing:
    """Predictions beside references.

    Attributes:
        pairs: One per reference.
        remarks: What a person should know about files that have no partner.
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
) -> Pairing:
    """Pair masks and references by case id.

    Args:
        predictions: A folder of masks, and of probabilities where there are any.
        references: A folder of label maps or a labelled data set.
        only_predicted: Whether references without a prediction are left out.
        rules: How DICOM references are read.
        within: A folder of masks, one per case, outside of which nothing counts.

    Returns:
        The pairs.

    Raises:
        DataError: If there are no references, or no prediction belongs to any.
    """
    wanted = find_references(references, rules)
    made = masks_in(predictions, rules)
    if is_batch_table(predictions / CASES_FILE):  # a mask that it does not tell of belongs to no case
        made = {case_id: made[case_id] for case_id in segmented_cases(predictions / CASES_FILE) if case_id in made}
    longer = _longer_names(wanted, made)
    made |= {case_id: made.pop(name) for case_id, name in longer.items()}
    if not set(made) & set(wanted):
        raise DataError(
            f"no mask in {predictions} has the name of a reference in {references}",
            hint=f"masks: {_some(made)}; references: {_some(wanted)}",
        )
    missing = sorted(set(wanted) - set(made))
    extra = sorted(set(made) - set(wanted))
    remarks = []
    if longer:
        pairs_by_name = (f"{case_id} with {name}" for case_id, name in longer.items())
        remarks.append(f"{len(longer)} references are compared with a longer name: {_some(pairs_by_name)}")
    if missing:
        what = "left out" if only_predicted else "scored 0 (--only-predicted leaves them out)"
        remarks.append(f"{len(missing)} references have no prediction and are {what}: {_some(missing)}")
    if extra:
        remarks.append(f"{len(extra)} predictions have no reference and are not scored: {_some(extra)}")
    chosen = [case_id for case_id in sorted(wanted) if not only_predicted or case_id in made]
    regions = {} if within is None else masks_in(within, rules)
    shares = {case_id: probability_file(predictions, longer.get(case_id, case_id)) for case_id in chosen}
    pairs = [
        CasePair(
            case_id,
            made.get(case_id),
            wanted[case_id],
            regions.get(case_id),
            shares[case_id] if shares[case_id].is_file() else None,
        )
        for case_id in chosen
    ]
    return Pairing(tuple(pairs), tuple(remarks))


def masks_in(folder: Path, rules: DicomRules = NO_RULES) -> dict[str, Source]:
    """The masks of a folder.

    Args:
        folder: As `volseg predict` writes it, or any other.
        rules: How DICOM is read.

    Returns:
        Case id -> its mask; a case in several formats is one case.
    """
    found = discover(folder, rules=rules)
    if per_structure := lone_masks(found, folder, rules):
        return per_structure
    named = {"_".join(name_parts(source, folder)): source for source in reversed([*found.sources, *found.segments])}
    masks: dict[str, Source] = {}
    for name in sorted(named, key=lambda name: (as_case_id([name], ()) != name, name)):  # who is called so comes first
        if not name.endswith(PROBABILITIES):
            masks[as_case_id([name], masks)] = named[name]
    return masks


def _longer_names(wanted: Collection[str], made: Collection[str]) -> dict[str, str]:
    """Case id of a reference -> the one prediction whose name goes on behind it.

    A labelled case may be called by its folder, what is predicted by the path of its image, which may lie deeper.
    """
    longer: defaultdict[str, list[str]] = defaultdict(list)
    for name in set(made) - set(wanted):
        fitting = [case_id for case_id in wanted if name.startswith(f"{case_id}_")]
        if fitting:
            longer[max(fitting, key=len)].append(name)
    return {case_id: names[0] for case_id, names in longer.items() if len(names) == 1 and case_id not in made}


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
