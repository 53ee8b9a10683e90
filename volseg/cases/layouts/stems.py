"""Images and references whose names begin alike: `p1_ct` and `p1_seg`, or `p1_t1`, `p1_t2` and `p1_seg`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from volseg.io import Source

_SEPARATORS = "-_. "


@dataclass(frozen=True)
class Stems:
    """Images matched with references by the beginning of their names.

    Attributes:
        images: Base name of a reference ("p1") -> rest of the image's name ("ct" or empty) -> the image.
        unclear: Name of any other image -> why its match is ambiguous; empty if it begins like no reference.
        endings: The endings of most cases.
    """

    images: dict[str, dict[str, Source]]
    unclear: dict[str, str]
    endings: tuple[str, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that the endings stand for; a single one is the image whatever its name."""
        return ("image",) if len(self.endings) < 2 else tuple(_channel_of(ending) for ending in self.endings)

    def named(self, base: str) -> str:
        """Return the image names that a reference would need."""
        return ", ".join(f"{base}_{ending}" if ending else base for ending in self.endings or ("",))


def match_stems(images: Mapping[str, Source], bases: Collection[str]) -> Stems:
    """Find the images of each reference.

    An image belongs to the longest base that its name begins with. Only cases with the usual endings are matched: if
    most references `p1` have an image `p1_ct`, a reference `p2` with `p2_ct` and `p2_b_ct` is not. An image with
    exactly the base name is matched whatever other endings there are.

    Args:
        images: Name -> image.
        bases: Base names of the references.
    """
    found: dict[str, dict[str, str]] = {base: {} for base in bases}
    for name in images:
        fitting = [base for base in bases if name == base or _goes_on(name, base)]
        if fitting:
            base = max(fitting, key=len)
            found[base][name[len(base) :].strip(_SEPARATORS)] = name
    endings = _usual_endings(found.values())
    usual = {ending: f"_{ending}" if ending else "" for ending in endings}
    chosen, unclear = {}, dict.fromkeys(images, "")
    for base, names in found.items():
        if not names:
            continue
        if set(names) == set(endings) or (endings == ("",) and "" in names):
            chosen[base] = {ending: images[names[ending]] for ending in endings}
            unclear = {name: why for name, why in unclear.items() if name not in {names[ending] for ending in endings}}
        else:
            theirs = ", ".join(f"{base}{ending}" for ending in usual.values())
            unclear |= dict.fromkeys(
                names.values(),
                f"the images of {base} are {', '.join(sorted(names.values()))}; "
                f"by the names in most cases they would be {theirs}",
            )
    return Stems(chosen, unclear, endings)


def _channel_of(ending: str) -> str:
    """Return the channel that the end of a name stands for."""
    if ending.isdigit():
        return f"channel_{int(ending)}"
    return ending or "image"


def _goes_on(name: str, base: str) -> bool:
    """Return whether a name continues another one; `p1_2` does not belong to `p1`, `p1_0000` is its channel."""
    rest = name[len(base) :]
    if not base or not name.startswith(base) or not rest or rest[0] not in _SEPARATORS:
        return False
    rest = rest.strip(_SEPARATORS)
    return bool(rest) and (not rest[0].isdigit() or (len(rest) == 4 and rest.isdigit()))


def _usual_endings(found: Collection[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the endings of most cases; in a tie, those that more cases have among others."""
    counts = Counter(tuple(sorted(names)) for names in found if names)
    if not counts:
        return ()
    exact = sum("" in names for names in found)
    within = {endings: sum(set(endings) <= set(names) for names in found) for endings in counts}
    usual = max(counts, key=lambda endings: (counts[endings], within[endings], "" in endings, len(endings), endings))
    return ("",) if exact > counts[usual] else usual
