"""The domain of a data set: modality, value and voxel size ranges, which prediction compares images with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from volseg.config import MIXED, UNKNOWN, named_modality
from volseg.errors import ConfigError, DataError
from volseg.planning.fingerprint import CasePrint, Fingerprint

#: In CT, half of the cases have values below this (air); MR and PET have no values far below zero.
_CT_LOW = -200.0
#: MR phase images reach as far below 0, but further above it.
_CT_HIGH = 4000.0
#: Most cases named in a message.
_NAMED = 10


def plan_modality(fingerprint: Fingerprint, given: Sequence[str] = ()) -> tuple[list[str], str]:
    """Determine the modality of each channel: as given, as stated by files or channel name, or CT by its values.

    Args:
        fingerprint: Of the data.
        given: Modalities in the configuration, one for each channel or one for all.

    Returns:
        The modalities, and the reason for them.

    Raises:
        DataError: If the cases differ in modality and none was given.
        ConfigError: If more or fewer are given than there are channels.
    """
    channels = len(fingerprint.channels)
    stated = list(given) if len(given) > 1 else list(given or [UNKNOWN]) * channels
    if len(stated) != channels:
        raise ConfigError(
            f"data.modality has {len(stated)} entries for {channels} channels", hint="give one, or one per channel"
        )
    modalities, reasons = [], []
    for channel, (name, word) in enumerate(zip(fingerprint.channels, stated, strict=True)):
        modality, reason = (word, "given") if word != UNKNOWN else _find_modality(fingerprint, channel)
        modalities.append(modality)
        reasons.append(f"{name}: {reason}")
    return modalities, "; ".join(reasons)


def plan_domain(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return the ranges of values and of voxel sizes that the cases span, as `DomainConfig` has them."""
    spacings = fingerprint.spacings_mm
    return {
        "intensities": [_intensities(fingerprint.cases, channel) for channel in range(len(fingerprint.channels))],
        "spacings_mm": [_span(spacings[:, axis].tolist()) for axis in range(3)],
    }


def _find_modality(fingerprint: Fingerprint, channel: int) -> tuple[str, str]:
    cases, name = fingerprint.cases, fingerprint.channels[channel]
    named = named_modality(name)
    intensities = [case.intensities[channel] for case in cases]
    kinds = [
        case.modalities[channel] or ("CT" if seen.looks_like_ct else named)
        for case, seen in zip(cases, intensities, strict=True)
    ]
    if len(set(kinds) - {""}) > 1:
        raise _mixed(name, cases, [kind or "unknown" for kind in kinds])
    foreign = [seen.cannot_be_hounsfield for seen in intensities]
    if set(kinds) == {"CT"} and all(foreign):
        raise DataError(
            f"channel {name} is stated to be CT, but no case of it is in Hounsfield units: they are of another "
            "modality, or lack their rescale intercept",
            hint=f"export them again, or {_hint('CT')}",
        )
    if set(kinds) <= {"CT", ""} and any(foreign) and (named or any(seen.looks_like_ct for seen in intensities)):
        raise _mixed(name, cases, ["not in Hounsfield units" if odd else "CT" for odd in foreign])
    stated = sum(bool(case.modalities[channel]) for case in cases)
    if stated:
        return max(kinds), f"the files of {stated} of {len(cases)} cases state it"
    if named:
        if named not in kinds:
            raise DataError(f"channel {name} is named as {named}, but its values are those of CT", hint=_hint("CT"))
        return named, "the name of the channel states it"
    low, high = (float(np.median([getattr(seen, end) for seen in intensities])) for end in ("low", "high"))
    if low < _CT_LOW and high <= _CT_HIGH:
        return "CT", "no file states it, but there is air as in CT"
    return UNKNOWN, "no file states it, and the values are not those of CT"


def _mixed(name: str, cases: Sequence[CasePrint], kinds: Sequence[str]) -> DataError:
    """Build the error for mixed modalities: the most frequent is counted, the other cases are listed."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case, kind in zip(cases, kinds, strict=True):
        groups[kind].append(case.case_id)
    (usual, most), *others = sorted(groups.items(), key=lambda group: -len(group[1]))
    odd = "; ".join(f"{kind}: {_listed(ids)}" for kind, ids in others)
    return DataError(
        f"the cases of channel {name} are not all of one modality: {len(most)} are {usual}, but {odd}",
        hint=f"remove the exceptions, or {_hint(usual if len(usual) == 2 else 'CT')}",
    )


def _hint(modality: str) -> str:
    return (
        f"state the modality of all (data.modality={modality}), or that they differ on purpose (data.modality={MIXED})"
    )


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}"


def _intensities(cases: Sequence[CasePrint], channel: int) -> dict[str, Any]:
    seen = [case.intensities[channel] for case in cases]
    values = np.concatenate([case.values[channel] for case in cases])
    finite = values[np.isfinite(values)]
    return {
        "low": _span([each.low for each in seen]),
        "high": _span([each.high for each in seen]),
        "labelled": _span(np.percentile(finite, [0.5, 99.5]).tolist()) if finite.size else None,
    }


def _span(values: Sequence[float]) -> tuple[float, float]:
    return float(f"{min(values):.5g}"), float(f"{max(values):.5g}")
