"""Parts of a batch for job arrays, which need no cluster engine: each job segments the cases of its own part.

The part of a case follows from its name alone, so that parts are disjoint and complete whatever else has arrived in the
folder. A file per part says which cases it has, which are being segmented, and whether it is done; from these a merge
knows what a killed job has left.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from volseg.cases import Case
from volseg.errors import ConfigError, DataError
from volseg.io.files import locked_folder
from volseg.io.json_files import read_json, write_json
from volseg.io.labels import LABELS_FILE, read_labels
from volseg.io.record import written_names
from volseg.io.written import remove_if_empty, remove_written_files
from volseg.model.checkpoint import TrainedNetwork
from volseg.parallel import helpers, pipeline
from volseg.prediction.batch import Listeners, open_batch
from volseg.prediction.batch_inputs import BatchInputs
from volseg.prediction.cases_csv import CASES_FILE, ROWS_FOLDER, CaseResult, CaseStatus, read_rows
from volseg.prediction.request import Request
from volseg.prediction.rows import collect_rows, write_row
from volseg.prediction.stages import Job
from volseg.progress import Progress, ignore_progress

PARTS_FOLDER = "parts"
_FORM = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, order=True)
class Part:
    """One of several parts of a batch.

    Attributes:
        count: Number of parts.
        number: Which of them, from 1.
    """

    count: int
    number: int

    def holds(self, case_id: str) -> bool:
        """Return whether a case belongs to it, by a hash of its name."""
        return (
            int(hashlib.sha256(case_id.encode("utf-8", "surrogateescape")).hexdigest(), 16) % self.count
            == self.number - 1
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(text: str) -> Part:
    """Read a part such as 3/8.

    Raises:
        ConfigError: If it is none.
    """
    found = _FORM.fullmatch(text)
    part = Part(int(found[2]), int(found[1])) if found else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise ConfigError(
            f"part {text}: it must be one of N parts, from 1/N to N/N", hint="for example 3/8, in a job array of 1-8"
        )
    return part


@dataclass(frozen=True)
class PartState:
    """How far a part is.

    Attributes:
        part: The part.
        cases: Everything that was discovered of it.
        begun: Case id -> how often it was begun and not ended, because the job was killed.
        is_finished: Whether every case has a row.
    """

    part: Part
    cases: tuple[str, ...]
    begun: Mapping[str, int] = field(default_factory=dict)
    is_finished: bool = False


class PartJournal:
    """The file that says how far a part is, kept up to date by its job, from any thread.

    Args:
        part: The part.
        output: The folder of the masks.
    """

    def __init__(self, part: Part, output: Path) -> None:
        self._path = output / PARTS_FOLDER / f"{part.number}-of-{part.count}.json"
        self._lock = Lock()  # cases begin in one thread and end in another
        earlier = _read(self._path) if self._path.is_file() else PartState(part, ())
        self._state = replace(earlier, cases=(), is_finished=False)

    def deaths(self, case_id: str) -> int:
        """Return how many jobs ended while they had a case."""
        return self._state.begun.get(case_id, 0)

    def open(self, case_ids: Iterable[str]) -> None:
        """State what belongs to the part."""
        self._write(replace(self._state, cases=tuple(sorted(case_ids))))

    def begin(self, case_id: str) -> None:
        """State that a case is being segmented."""
        with self._lock:
            self._write(replace(self._state, begun={**self._state.begun, case_id: self.deaths(case_id) + 1}))

    def end(self, case_id: str) -> None:
        """State that a case has its row."""
        with self._lock:
            left = {name: times for name, times in self._state.begun.items() if name != case_id}
            self._write(replace(self._state, begun=left))

    def finish(self) -> None:
        """State that all cases have their rows."""
        self._write(replace(self._state, begun={}, is_finished=True))

    def _write(self, state: PartState) -> None:
        self._state = state
        write_json(self._path, asdict(state))


def segment_part(
    part: Part,
    inputs: BatchInputs,
    models: Sequence[TrainedNetwork],
    request: Request,
    progress: Progress = ignore_progress,
    on_case_done: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Segment a part of what was found; `merge_parts` makes the table.

    A case that was being segmented when a job was killed is tried once more, alone and after all others; if that ends
    another job, the case fails.

    Args:
        part: Which one.
        inputs: What was found.
        models: Their logits are averaged.
        request: What to write for each case.
        progress: Called per case and window; if it raises, the part stops and can be continued.
        on_case_done: Called with each result as soon as the case is done; not for a case whose mask is up to date.

    Returns:
        One result for each discovered case of the part, in the order of their ids.

    Raises:
        CheckpointError: If the models are incompatible.
        OutputError: If the output cannot be written.
    """
    batch = open_batch(inputs, models, request, Listeners(progress, on_case_done), part.holds)
    record = partial(write_row, data=batch.predictor.data, output=request.output)
    journal, stages = PartJournal(part, request.output), batch.stages(record)
    journal.open([*batch.results, *(case.case_id for case in batch.cases)])
    for result in batch.results.values():
        record(result)
    by_deaths: defaultdict[int, list[Case]] = defaultdict(list)
    for case in batch.cases:
        by_deaths[min(journal.deaths(case.case_id), 2)].append(case)

    def read(case: Case) -> Job:
        journal.begin(case.case_id)
        return stages.read(case)

    def write(job: Job) -> CaseResult:
        result = stages.write(job)
        journal.end(result.case_id)
        return result

    with helpers(2) as workers:
        for cases in (by_deaths[0], *([case] for case in by_deaths[1])):
            for result in pipeline(cases, read, stages.segment, write, workers, stages.leaves_room):
                batch.note(result)
    for case in by_deaths[2]:
        result = batch.lost(case, "it ended two jobs (out of memory?); give the job more memory")
        record(result)
        batch.note(result)
    journal.finish()
    return batch.finish()


@dataclass(frozen=True)
class Undone:
    """A part that is not finished.

    Attributes:
        part: The part.
        cases: Those of its cases that have no row; None if it has not begun.
    """

    part: Part
    cases: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.cases is None:
            return f"part {self.part} has not begun"
        shown = ", ".join(self.cases[:5]) + (" ..." if len(self.cases) > 5 else "")
        left = f"{len(self.cases)} cases are missing: {shown}" if self.cases else "all of its cases have a row"
        return f"part {self.part} is not finished; {left}"


@dataclass(frozen=True)
class Merge:
    """The result of merging the parts of a batch.

    Attributes:
        table: cases.csv.
        counts: Status -> number of its rows.
        undone: Parts that are not finished.
    """

    table: Path
    counts: Mapping[str, int]
    undone: tuple[Undone, ...] = ()


def merge_parts(output: Path) -> Merge:
    """Merge the rows that the jobs of an array, or the workers of a cluster, have written into cases.csv.

    Args:
        output: The folder of the masks.

    Returns:
        What the table holds, and which parts are not finished. Jobs may go on while this runs.

    Raises:
        DataError: If nothing was segmented into the folder.
        OutputError: If it cannot be written.
    """
    table, folder = output / CASES_FILE, output / PARTS_FOLDER
    if not (output / LABELS_FILE).is_file() or not (
        table.is_file() or (output / ROWS_FOLDER).is_dir() or folder.is_dir()
    ):
        raise DataError(f"{output} holds no masks to merge", hint="name the folder that was given as --output")
    collect_rows(output, read_labels(output / LABELS_FILE))
    rows = read_rows(table)
    undone: list[Undone] = []
    if folder.is_dir():
        with locked_folder(folder):  # no job begins its part anew in between
            undone = _undone([_read(path) for path in _files(folder)], {row["case_id"] for row in rows})
            if not undone:
                remove_written_files(folder, _files(folder))
        if not undone:
            remove_if_empty(folder)
            remove_if_empty(output / ROWS_FOLDER)
    counts = {str(status): sum(row["status"] == status for row in rows) for status in CaseStatus}
    return Merge(table, counts, tuple(undone))


def _undone(states: Sequence[PartState], known: set[str]) -> list[Undone]:
    """Return the parts that are not finished, except of divisions whose cases a finished one has, too."""
    arrays: defaultdict[int, dict[int, PartState]] = defaultdict(dict)
    for state in states:
        arrays[state.part.count][state.part.number] = state
    cases = {count: {name for state in array.values() for name in state.cases} for count, array in arrays.items()}
    left = {
        count: [
            Undone(Part(count, number), _missing(array.get(number), known))
            for number in range(1, count + 1)
            if number not in array or not array[number].is_finished
        ]
        for count, array in sorted(arrays.items())
    }
    finished = [count for count, undone in left.items() if not undone]
    return [
        each
        for count, undone in left.items()
        if not any(cases[count] <= cases[other] for other in finished)
        for each in undone
    ]


def _missing(state: PartState | None, known: set[str]) -> tuple[str, ...] | None:
    return None if state is None else tuple(case_id for case_id in state.cases if case_id not in known)


def _files(folder: Path) -> list[Path]:
    """Return the files that volseg wrote into a folder; none if there is no such folder."""
    return [path for name in sorted(written_names(folder)) if (path := folder / name).is_file()]


def _read(path: Path) -> PartState:
    return read_json(path, _state, "does not describe a part of a batch", "delete it, and run the part again")


def _state(content: Any) -> PartState:
    part = Part(int(content["part"]["count"]), int(content["part"]["number"]))
    begun = {str(case_id): int(times) for case_id, times in content["begun"].items()}
    return PartState(part, tuple(map(str, content["cases"])), begun, bool(content["is_finished"]))
