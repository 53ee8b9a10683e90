"""Description of DICOM objects: their series description, and the model that created them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from volseg.about import hash_of
from volseg.cases.case import stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.errors import ConfigError
from volseg.exporting.formats import OF_DICOM, Format
from volseg.image.naming import short_names
from volseg.image.short_names import LONGEST_NAME, short_name
from volseg.image.volume import Label
from volseg.model.files import FOLD_FOLDER, MODEL_FILE

MaskOrigin = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

#: Default series description.
SERIES_DESCRIPTION = "volseg: {labels}"
_SOFTWARE = "volseg"
_PLACEHOLDER = re.compile(r"\{(.*?)\}")
_WRITTEN = re.compile(r"(?P<name>.*\S) (?P<hashes>[0-9a-f]{16}(\+[0-9a-f]{16})*)")
#: Fewest bytes in which labels can be named.
_ROOM_FOR_LABELS = 12


@dataclass(frozen=True)
class ModelIdentity:
    """The identity of the model that predicted a mask, as stated in DICOM objects.

    Attributes:
        name: One line of at most 64 bytes of UTF-8.
        hashes: The first digits of the SHA-256 of each of its files, as in about.json.
    """

    name: str
    hashes: tuple[str, ...]

    @property
    def version(self) -> str:
        """Return the hash of its file, or a combined hash of several files."""
        if len(self.hashes) == 1:
            return self.hashes[0]
        return hashlib.sha256("+".join(self.hashes).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.name} {'+'.join(self.hashes)}"

    @classmethod
    def parse(cls, text: str) -> ModelIdentity | None:
        """Parse the text that `str` returns; None if the text has another form."""
        found = _WRITTEN.fullmatch(text)
        return cls(short_name(found["name"]), tuple(found["hashes"].split("+"))) if found else None

    @classmethod
    def of(cls, name: str, files: Sequence[Path]) -> ModelIdentity | None:
        """Identify a model by its files; None if it has none."""
        hashes = tuple(hash_of(file) for file in files if file.is_file())
        return cls(name, hashes) if hashes else None


@dataclass(frozen=True)
class Description:
    """A series description and a model to state in DICOM objects.

    Attributes:
        series: SeriesDescription; {format}, {labels} and {model} in it are filled in.
        model: The model that predicted the mask, if known.
        origin: How the mask was made (SegmentAlgorithmType, PS3.3 section C.8.20.2): "AUTOMATIC", "SEMIAUTOMATIC" if a
            person has corrected it, or "MANUAL".
        algorithm: Name of the algorithm that made it, if it was not a model of volseg.

    Raises:
        ConfigError: If the text cannot be a SeriesDescription.
    """

    series: str = SERIES_DESCRIPTION
    model: ModelIdentity | None = None
    origin: MaskOrigin = "AUTOMATIC"
    algorithm: str = ""

    @classmethod
    def of(cls, series: str | None, model: ModelIdentity | None, origin: MaskOrigin = "AUTOMATIC") -> Description:
        """Build a description with the given series description, or the default one."""
        return cls(SERIES_DESCRIPTION if series is None else series, model, origin)

    def __post_init__(self) -> None:
        _check_characters(self.series, "the series description")
        unknown = [name for name in _PLACEHOLDER.findall(self.series) if name not in {"format", "labels", "model"}]
        if unknown:
            raise ConfigError(
                f"the series description has an unknown field {{{unknown[0]}}}",
                hint="use {format}, {labels} or {model}",
            )
        for form in OF_DICOM:
            self._with_room(form)

    def series_of(self, form: Format, labels: Sequence[Label]) -> str:
        """Return the description of a series.

        Args:
            form: Format of the object.
            labels: Labels of the mask; as many as there is room for are named, in the order of their values.
        """
        text, room = self._with_room(form)
        names = short_names(labels)
        return text.replace("{labels}", _listed([names[value] for value in sorted(names)], room))

    def _with_room(self, form: Format) -> tuple[str, int]:
        """Fill in all fields but the labels, and return the bytes that remain for each list of them."""
        known = {"format": form, "model": self.model.name if self.model else _SOFTWARE}
        series = "{labels}" if self.origin == "MANUAL" and self.series == SERIES_DESCRIPTION else self.series
        text = _PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), series)
        lists = text.count("{labels}")
        room = LONGEST_NAME - len(text.replace("{labels}", "").encode())
        if room < lists * _ROOM_FOR_LABELS:
            raise ConfigError(
                f"the series description {text!r} is too long",
                hint=f"DICOM allows {LONGEST_NAME} bytes; {{labels}} needs at least {_ROOM_FOR_LABELS} of them",
            )
        return text, room // max(lists, 1)


def checked_text(text: str, what: str) -> str:
    """Return a text if DICOM can state it on one line (the value representation LO, PS3.5 section 6.2).

    Raises:
        ConfigError: If it is empty, too long, or has characters that are not allowed.
    """
    _check_characters(text, what)
    if len(text.encode()) > LONGEST_NAME:
        raise ConfigError(
            f"{what} is too long: {text!r}", hint=f"DICOM allows {LONGEST_NAME} bytes of UTF-8; shorten it"
        )
    return text


def _check_characters(text: str, what: str) -> None:
    if not text.strip() or not text.isprintable() or "\\" in text:
        raise ConfigError(f"{what} cannot be {text!r}", hint="use letters, digits and punctuation, no backslash")


def model_name(paths: Iterable[Path]) -> str:
    """Return the name of a model: that of its run folder, never a path, in characters that are safe everywhere.

    Args:
        paths: The run folders and model files that it was loaded from.
    """
    names = (case_id_of(path_name([_last_part(path)])) for path in paths)
    return short_name(" + ".join(dict.fromkeys(names)))


def _last_part(path: Path) -> str:
    place = path.resolve() if path.name in {"", ".."} else path  # for a link, its own name, as the user gave it
    if not place.is_dir() and place.name != MODEL_FILE:
        return stem(place).removesuffix(".pt")
    folder = place if place.is_dir() else place.parent
    return folder.parent.name if folder.name.startswith(FOLD_FOLDER) else folder.name


def _listed(names: Sequence[str], room: int) -> str:
    """List as many names as fit, and count the rest: "liver, spleen, 2 more"."""
    if len(names) == 1:
        return short_name(names[0], room)
    for shown in range(len(names), 0, -1):
        more = [f"{len(names) - shown} more"] if shown < len(names) else []
        if len((text := ", ".join([*names[:shown], *more])).encode()) <= room:
            return text
    return f"{len(names)} labels"


#: The default description without a model.
USUAL = Description()
