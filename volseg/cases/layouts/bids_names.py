"""BIDS names: entities, suffixes, and the tables that name the values of label maps."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volseg.cases.case import stem
from volseg.errors import DataError
from volseg.image.naming import refuse_misplaced_background

#: Folders of data that are not anatomical volumes.
NO_ANATOMY = frozenset({"func", "fmap", "perf", "eeg", "meg", "ieeg", "nirs", "beh", "motion", "mrs"})

_ENTITY = re.compile(r"([a-zA-Z]+)-([A-Za-z0-9.+]+)")
_LABELS = frozenset({"dseg", "probseg", "mask", "msk", "seg", "label", "labels", "roi", "lesion"})
#: Entities that distinguish the images of a subject; others describe how a derivative was made.
_OF_IMAGES = frozenset(
    {"sub", "ses", "sample", "task", "tracksys", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo"}
    | {"flip", "inv", "mt", "part", "proc", "chunk"}
)
#: Values of `space` that mean the space of the image itself.
_NATIVE = frozenset({"", "orig", "native", "individual", "scanner", "subject"})


@dataclass(frozen=True, eq=False)
class BidsFile:
    """An image or a label map, described by its name.

    Attributes:
        path: The file.
        pipeline: The folders above that of the subject, for a derivative; empty for the data set itself.
        datatype: The folder it is in ("anat"); empty if that is the subject's or the session's.
        entities: Key -> value.
        words: The other parts of its name; the last one is the suffix.
    """

    path: Path
    pipeline: str
    datatype: str
    entities: Mapping[str, str]
    words: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, root: Path) -> BidsFile:
        """Parse the name of a file below a data set."""
        folders = path.relative_to(root).parts[:-1]
        subject = next((place for place, part in enumerate(folders) if part.startswith("sub-")), len(folders))
        inner = [part for part in folders[subject + 1 :] if not part.startswith("ses-")]
        parts = stem(path).split("_")
        entities = {found[1]: found[2] for part in parts if (found := _ENTITY.fullmatch(part))}
        words = tuple(part for part in parts if not _ENTITY.fullmatch(part))
        return cls(path, "/".join(folders[:subject]), "/".join(inner), entities, words or ("",))

    @property
    def suffix(self) -> str:
        """The last word of its name, which states its content."""
        return self.words[-1]

    @property
    def is_label(self) -> bool:
        """True if its name says that it is not an image."""
        return self.suffix in _LABELS or "label" in self.entities

    @property
    def is_raw(self) -> bool:
        """True if it belongs to the data set itself."""
        return not self.pipeline and "sub" in self.entities

    @property
    def marks(self) -> str:
        """The one structure that a mask marks; empty for a label map of several."""
        return self.entities.get("label", "")

    @property
    def of_image(self) -> frozenset[tuple[str, str]]:
        """The entities of the image that it describes."""
        return frozenset(item for item in self.entities.items() if item[0] in _OF_IMAGES)

    @property
    def kind(self) -> str:
        """The kind of a label map, regardless of subject and structure."""
        made = [f"{key}-{value}" for key, value in self.entities.items() if key not in {*_OF_IMAGES, "label"}]
        made += ["label-..."] if self.marks else []
        return "/".join([*([self.pipeline] if self.pipeline else []), "_".join(["*", *made, *self.words])])

    def is_about(self, image: BidsFile) -> bool:
        """Return whether a label map describes an image: all its image entities equal those of the image."""
        space, suffixes = self.entities.get("space", ""), [word for word in self.words[:-1] if word not in _LABELS]
        native = space in {*_NATIVE, image.suffix}
        return (
            self.of_image <= image.of_image
            and ("ses" in self.entities) == ("ses" in image.entities)
            and (not suffixes or image.suffix in suffixes)
            and (space == image.entities.get("space", "") or native)
        )

    def lies_in(self, spaces: Collection[str], suffixes: Collection[str]) -> bool:
        """Return whether a label map is in the space of an image: its own, or one that images are in."""
        return self.entities.get("space", "") in {*_NATIVE, *spaces, *suffixes}


def looked_up_names(root: Path, labels: Sequence[BidsFile]) -> dict[str, int]:
    """Return name -> value, as stated in the tables of label maps; empty if there are none.

    A table `dseg.tsv` has columns `index` and `name`. It lies beside the label map or above it, and applies to those
    that have all entities of its own name.

    Raises:
        DataError: If two tables give a value different names.
    """
    names: dict[int, tuple[str, Path]] = {}
    for table in sorted({table for file in labels if (table := _table_of(file, root)) is not None}):
        for value, name in _read_table(table).items():
            other, where = names.setdefault(value, (name, table))
            if other != name:
                raise DataError(
                    f"{table} calls the value {value} {name!r}, {where} calls it {other!r}",
                    hint="only label maps with the same numbering can be used together",
                )
    return {name: value for value, (name, _) in sorted(names.items())}


def _table_of(file: BidsFile, root: Path) -> Path | None:
    """Return the nearest table that applies to a label map."""
    folder = file.path.parent
    while folder.is_relative_to(root):
        for path in sorted(folder.glob(f"*{file.suffix}.tsv")):
            entities = BidsFile.of(path, root).entities.items()
            if entities <= file.entities.items():
                return path
        folder = folder.parent
    return None


def _read_table(path: Path) -> dict[int, str]:
    """Read value -> name, without background.

    Raises:
        DataError: If it is not such a table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(int(row["index"]), row["name"].strip()) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} is not a table of labels: {error!r}", hint="it needs the columns index and name"
        ) from error
    for value, name in rows:
        refuse_misplaced_background(name, value, str(path))
    return {value: name for value, name in rows if value > 0 and name}
