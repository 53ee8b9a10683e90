"""Choice among the series of a DICOM study: by rules if there are any, else by a fixed order of preference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from volseg.config import DicomRules, SeriesRule
from volseg.io import SeriesSource, SetAside, Source

#: ImageType of an image computed from others, which is used only if there is nothing else.
_DERIVED = {"DERIVED", "SECONDARY", "MPR", "SUBTRACTION", "ADC", "FA", "TRACEW"}
#: With fewer slices it is a scout view or a test, whatever it states.
_FEW_SLICES = 5


@dataclass(frozen=True)
class SeriesChoice:
    """The choice among the series of one study.

    Attributes:
        chosen: Channel -> the series used for it.
        reasons: Series -> why it is or is not used.
    """

    chosen: Mapping[str, SeriesSource]
    reasons: Mapping[SeriesSource, str]

    @property
    def not_taken(self) -> dict[SeriesSource, str]:
        """The series that are used for no channel, with reasons."""
        taken = set(self.chosen.values())
        return {source: reason for source, reason in self.reasons.items() if source not in taken}


def studies_of(series: Sequence[SeriesSource]) -> list[list[SeriesSource]]:
    """Group series that are alternatives: of one study, and distinguishable by their headers.

    Series of the same number, description and kind in several folders cannot be chosen between: those are examinations
    that share a study UID by mistake, and each stays alone.
    """
    groups: dict[object, list[SeriesSource]] = {}
    for source in series:
        groups.setdefault(source.traits.study_uid or source, []).append(source)
    return [part for group in groups.values() for part in _told_apart(group)]


def _told_apart(group: list[SeriesSource]) -> list[list[SeriesSource]]:
    by_header: dict[object, set[object]] = {}
    for source in group:
        traits = source.traits
        header = (traits.number, traits.description, traits.modality, traits.image_type, traits.orientation)
        by_header.setdefault((header, source.volume), set()).add(source.folder)
    if all(len(folders) == 1 for folders in by_header.values()):
        return [group]
    by_folder: dict[object, list[SeriesSource]] = {}
    for source in group:
        by_folder.setdefault(source.folder, []).append(source)
    return list(by_folder.values())


def choose_series(series: Sequence[SeriesSource], channels: Sequence[str], rules: DicomRules) -> SeriesChoice:
    """Choose the series of each channel among those of a study.

    Among the series that match the channel's rule the best is used, in this order: nothing suggests that it is
    incomplete; original rather than derived; at least 5 slices rather than fewer; thinner slices (down to 1 mm, below
    which thickness does not matter); more of them; the smaller series number; the first of the volumes of one series.

    Args:
        series: Of one study.
        channels: The required channels; one without a rule takes any series that no other channel has taken.
        rules: For the channels.
    """
    chosen: dict[str, SeriesSource] = {}
    reasons: dict[SeriesSource, list[str]] = {source: [] for source in series}
    for channel in _pickiest_first(series, channels, rules):
        rule = rules.series.get(channel, SeriesRule())
        faults = {source: fault_of(source, rule) for source in series if source not in chosen.values()}
        fitting = sorted((source for source, fault in faults.items() if not fault), key=_preference)
        for source, fault in faults.items():
            reasons[source] += [f"not chosen for channel {channel}: {fault}"] if fault else []
        for other in fitting[1:]:
            reasons[other].append(f"not chosen: {named(fitting[0])} is preferred{_advantage(fitting[0], other)}")
        if fitting:
            chosen[channel] = fitting[0]
            reasons[fitting[0]] = [
                f"chosen for channel {channel}" + (_advantage(*fitting[:2]) if len(fitting) > 1 else "")
            ]
    return SeriesChoice(chosen, {source: "; ".join(why) for source, why in reasons.items()})


def choose_in_folders(sources: Sequence[Source], rules: DicomRules) -> tuple[list[Source], list[SetAside]]:
    """Choose, where series of one study share a folder, the one that prediction would use; it gets the folder's name.

    Args:
        sources: Series and files.
        rules: For the channel "image".

    Returns:
        The sources used, in the order given; and the series that are not.
    """
    groups: dict[object, list[SeriesSource]] = {}
    for source in sources:
        if isinstance(source, SeriesSource) and source.traits.study_uid:
            groups.setdefault((source.place, source.volume, source.traits.study_uid), []).append(source)
    choices = [choose_series(group, ("image",), rules) for group in groups.values() if len(group) > 1]
    reasons = {source: reason for choice in choices for source, reason in choice.not_taken.items()}
    not_taken = [SetAside(source.place, reason, source.series_uid) for source, reason in reasons.items()]
    return [source for source in sources if source not in reasons], not_taken


def _pickiest_first(series: Sequence[SeriesSource], channels: Sequence[str], rules: DicomRules) -> list[str]:
    """Sort channels by the number of series that match them, so that none takes the only match of another."""
    fitting = {
        channel: sum(not fault_of(source, rules.series.get(channel, SeriesRule())) for source in series)
        for channel in channels
    }
    return sorted(channels, key=lambda channel: (fitting[channel], channel not in rules.series))


def fault_of(source: SeriesSource, rule: SeriesRule) -> str:
    """Describe which part of a rule a series does not match; empty if it matches."""
    traits = source.traits
    words = {word.upper() for word in traits.image_type}
    spacing = traits.spacing_mm or (None, None, None)
    wanted, unwanted = ({word.upper() for word in given} for given in (rule.image_type, rule.not_image_type))
    faults = (
        (rule.modality not in (None, traits.modality), f"modality is {traits.modality or 'not stated'}"),
        (
            rule.description is not None and not re.search(rule.description, traits.description, re.IGNORECASE),
            "its description is another",
        ),
        (not wanted <= words, f"ImageType is {'/'.join(traits.image_type) or 'not stated'}"),
        (bool(unwanted & words), f"ImageType is {'/'.join(traits.image_type)}"),
        (
            rule.orientation not in (None, traits.orientation),
            f"it is {traits.orientation or 'of no known orientation'}",
        ),
        (not _within(spacing[0], rule.pixel_spacing_mm), f"pixels are {_shown(spacing[0])} apart"),
        (not _within(spacing[2], rule.slice_spacing_mm), f"slices are {_shown(spacing[2])} apart"),
        (not _within(traits.slices, rule.slices), f"it has {traits.slices} slices"),
    )
    return next((text for applies, text in faults if applies), "")


def named(source: SeriesSource) -> str:
    """Name a series in a reason, by its number, which identifies no patient."""
    number = "the one without a number" if source.traits.number is None else f"series {source.traits.number}"
    return f"{number} ({source.volume})" if source.volume else number


_CRITERIA = (
    "nothing speaks against its being whole",
    "it is original, not derived",
    f"it has {_FEW_SLICES} slices or more",
    "its slices are thinner",
    "it has more slices",
    "its number is smaller",
    "it is the first",
)


def _preference(source: SeriesSource) -> tuple[bool, bool, bool, float, int, int, str]:
    """Return a sort key that puts the best series first; one value per line of `_CRITERIA`."""
    traits = source.traits
    return (
        bool(source.doubt),
        bool(_DERIVED & {word.upper() for word in traits.image_type}),
        traits.slices < _FEW_SLICES,
        max(1.0, round(traits.spacing_mm[2], 2)) if traits.spacing_mm else float("inf"),
        -traits.slices,
        traits.number if traits.number is not None else 10**9,
        f"{len(source.volume):03d}{source.volume}{source.series_uid}{source.files[0]}",
    )


def _advantage(best: SeriesSource, other: SeriesSource) -> str:
    """Return the first criterion by which one series is better than another."""
    pairs = zip(_CRITERIA, _preference(best), _preference(other), strict=True)
    return next((f": {criterion}" for criterion, ours, theirs in pairs if ours != theirs), "")


def _within(value: float | None, limits: tuple[float, float] | None) -> bool:
    return limits is None or (value is not None and limits[0] <= value <= limits[1])


def _shown(value_mm: float | None) -> str:
    return "an unknown distance" if value_mm is None else f"{value_mm:.3g} mm"
