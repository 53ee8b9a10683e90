"""Inputs of a batch: the cases, their names, and which of their paths may be disclosed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from volseg.cases import Case, Dataset, find_inputs
from volseg.cases.case import stem
from volseg.cases.case_ids import (
    CaseNaming,
    case_id_of,
    lies_below,
    marked,
    path_name,
    pseudonym,
    same_on_any_disk,
    short_hash,
)
from volseg.cases.content import refuse_label_maps
from volseg.config import DataConfig
from volseg.io import SeriesSource, SetAside, stands_for
from volseg.io.files import locked_folder, without_root, write_private_text
from volseg.io.tables import as_csv, read_table
from volseg.io.written import Inputs
from volseg.prediction.cases_csv import CaseResult, CaseStatus, Origin
from volseg.progress import Progress, ignore_progress
from volseg.text import readable

#: The table of pseudonyms.
KEY_FILE = "pseudonyms.csv"
_HIDDEN = "[...]"


@dataclass(frozen=True, eq=False)
class BatchInputs:
    """The inputs of a batch.

    Attributes:
        source: Where they were found.
        dataset: The cases, and what was set aside.
        naming: How cases are named. With "hash", nothing written or logged reveals where a case lies.
        input_hash: Identifies the input folder without revealing it; by default made from its path.
    """

    source: Path
    dataset: Dataset
    naming: CaseNaming = "path"
    input_hash: str = ""

    def __post_init__(self) -> None:
        if not self.input_hash:
            object.__setattr__(self, "input_hash", short_hash(os.path.realpath(self.root)))

    def of_case(self, case: Case) -> BatchInputs:
        """Return the inputs of one case, for a process that segments it alone."""
        return replace(self, dataset=replace(self.dataset, cases=(case,), set_aside=()))

    @cached_property
    def files(self) -> Inputs:
        """All files that are read."""
        images = (source for case in self.dataset.cases for source in case.images.values())
        return Inputs.of(self.source, *(path for image in images for path in image.files))

    @property
    def root(self) -> Path:
        """The folder that contains everything."""
        return self.source if self.source.is_dir() else self.source.parent

    @cached_property
    def origins(self) -> dict[str, Origin]:
        """Return id -> origin, for each case and for everything that was set aside."""
        cases = {case.case_id: self._origin_of(case) for case in self.dataset.cases}
        return cases | {case_id: self._origin(item.path, item.series_uid) for case_id, item in self._set_aside}

    def skipped_beside(self, earlier: Mapping[str, Origin]) -> list[CaseResult]:
        """Return a result for everything that was set aside, under ids not used in an earlier batch.

        Args:
            earlier: Id -> origin of the cases segmented into the same folder.
        """
        results = []
        for case_id, item in self._set_aside:
            result = self.described(CaseResult(case_id, CaseStatus.SKIPPED, item.reason, is_fault=item.is_fault))
            before = earlier.get(case_id)
            if before and self._told_origin(case_id).is_another_than(before):
                result = replace(result, case_id=case_id_of(marked(case_id, result.series_uid or result.source)))
            results.append(result)
        return results

    def described(self, result: CaseResult) -> CaseResult:
        """Add to a result what may be disclosed about its origin."""
        origin = self._told_origin(result.case_id)
        reason = self.tellable(result.reason)
        return replace(
            result, reason=reason, source=origin.source, series_uid=origin.series_uid, input_hash=origin.input_hash
        )

    def tellable(self, text: str) -> str:
        """Remove the user's paths from a text and, with pseudonyms, all names below them."""
        shorter = without_root(text, self.source)
        return self._names.sub(_HIDDEN, shorter) if self.naming == "hash" else shorter

    def strangers(self, earlier: Mapping[str, Origin]) -> dict[str, CaseResult]:
        """Return the cases whose ids belong to other patients in an earlier batch, each with its result.

        Args:
            earlier: Id -> origin of the cases segmented into the same folder.
        """
        known = {same_on_any_disk(case_id): (case_id, origin) for case_id, origin in earlier.items()}
        found = {}
        for case in self.dataset.cases:
            written, before = known.get(same_on_any_disk(case.case_id), (case.case_id, Origin()))
            now = self._told_origin(case.case_id)
            if written != case.case_id or now.is_another_than(before):
                found[case.case_id] = self._refused(case.case_id, now)
        return found

    def write_key(self, output: Path) -> None:
        """Write the table of pseudonyms, readable by the user alone; entries of earlier batches stay.

        Raises:
            OutputError: If it cannot be written.
            DataError: If the existing file is not such a table.
        """
        path = output / KEY_FILE
        rows = {case_id: (case_id, origin.source, origin.series_uid) for case_id, origin in self.origins.items()}
        with locked_folder(output):
            if path.is_file():
                table = read_table(path, ["case_id", "source", "series_uid"]).fillna("")
                rows = {str(row["case_id"]): tuple(row.values()) for row in table.to_dict("records")} | rows
            write_private_text(path, as_csv(sorted(rows.values()), ["case_id", "source", "series_uid"]))

    def _told_origin(self, case_id: str) -> Origin:
        return Origin() if self.naming == "hash" else self.origins[case_id]

    def _refused(self, case_id: str, origin: Origin) -> CaseResult:
        by_series = ", or --case-id series" if origin.series_uid and self.naming != "series" else ""
        reason = (
            f"in this output {case_id} is another series or file, of an earlier batch, whose mask stays; "
            f"choose another --output{by_series}"
        )
        own = case_id_of(marked(case_id, origin.series_uid or origin.source))
        return CaseResult(
            own,
            CaseStatus.FAILED,
            reason,
            source=origin.source,
            series_uid=origin.series_uid,
            input_hash=origin.input_hash,
        )

    def _origin_of(self, case: Case) -> Origin:
        return self._origin(case.image.place, case.image.series_uid if isinstance(case.image, SeriesSource) else "")

    def _origin(self, place: Path, series_uid: str) -> Origin:
        return Origin(told_place(place, self.root), series_uid, self.input_hash)

    @cached_property
    def _set_aside(self) -> list[tuple[str, SetAside]]:
        """Items that were set aside, by an id made of the path, plus a hash of series and reason if not unique."""
        items = list(dict.fromkeys(self.dataset.set_aside))
        paths = [lies_below(item.path, self.root) for item in items]
        short = [path_name([*parts[:-1], stem(Path(parts[-1]))]) for parts in paths]
        long = [
            marked(name, f"{'/'.join(parts)}\n{item.series_uid}")
            for name, parts, item in zip(short, paths, items, strict=True)
        ]
        longest = [marked(name, f"{name}\n{item.reason}") for name, item in zip(long, items, strict=True)]
        names, ids = short, [self._id(name) for name in short]
        for others in (long, longest):
            counts = Counter(map(same_on_any_disk, [*ids, *(case.case_id for case in self.dataset.cases)]))
            names = [
                other if counts[same_on_any_disk(case_id)] > 1 else name
                for name, other, case_id in zip(names, others, ids, strict=True)
            ]
            ids = [self._id(name) for name in names]
        return list(zip(ids, items, strict=True))

    def _id(self, name: str) -> str:
        return pseudonym(name) if self.naming == "hash" else case_id_of(name)

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """A pattern for every file or folder name below the input, and every series, as whole words."""
        words = {word for word in self._words() if word}
        longest_first = sorted(words, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)" if words else r"(?!)")

    def _words(self) -> Iterator[str]:
        sources = [source for case in self.dataset.cases for source in case.images.values()]
        files = [path for source in sources for path in (source.place, *source.files)]
        for path in {*files, *(item.path for item in self.dataset.set_aside)}:
            parts = lies_below(path, self.root)
            yield from (str(path), str(Path(*parts)), *parts, *map(stem, map(Path, parts)))
        yield from (source.series_uid for source in sources if isinstance(source, SeriesSource))
        yield from (item.series_uid for item in self.dataset.set_aside)


def told_place(place: Path, root: Path) -> str:
    """Return where something lies below an input, as cases.csv tells it."""
    return readable(path_name(lies_below(place, root)))


def find_batch(
    source: Path, data: DataConfig, progress: Progress = ignore_progress, naming: CaseNaming = "path"
) -> BatchInputs:
    """Find what to segment.

    Args:
        source: A data set, a file, a DICOM folder or a tree of these.
        data: The channels that a model needs, and how DICOM is read.
        progress: Called while files are examined.
        naming: How cases are named.

    Raises:
        DataError: If there is nothing at `source`, or only masks.
    """
    source = stands_for(source)
    dataset = find_inputs(source, data.channels, data, progress, naming)
    refuse_label_maps(dataset, source)
    return BatchInputs(source, dataset, naming)
