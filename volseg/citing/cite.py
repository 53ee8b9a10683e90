"""Methods section, references and table for a paper, from a run and the scores of its masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from volseg.citing.methods import methods_of
from volseg.citing.references import bibtex_of
from volseg.citing.scores import Scores, read_scores
from volseg.citing.words import named
from volseg.errors import DataError
from volseg.io.files import make_folder, write_text
from volseg.io.json_files import read_json
from volseg.io.written import Inputs, claim
from volseg.model.files import CHOICE_FILE, model_files
from volseg.reporting.record import RunRecord, read_record
from volseg.text import listed
from volseg.training.files import VALIDATION_FILE
from volseg.version import __version__

METHODS_FILE, REFERENCES_FILE, TABLE_FILE = "methods.md", "references.bib", "table.tex"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Citation:
    """The text about a run for a paper.

    Attributes:
        methods: Methods section in Markdown, with Pandoc citations.
        bibtex: A BibTeX entry for each citation.
        table: Table of the scores in LaTeX (package booktabs); empty without scores.
    """

    methods: str
    bibtex: str
    table: str = ""


def cite(
    run: str | PathLike[str],
    scores: str | PathLike[str] | None = None,
    output: str | PathLike[str] | None = None,
    *,
    overwrite: bool = False,
) -> Citation:
    """Write the methods section of a paper about a run, with its references.

    All numbers come from the run. Whatever it did not record is left out.

    Args:
        run: A run folder.
        scores: Folder that `volseg.evaluate` wrote for masks predicted by the run's model.
        output: Folder for methods.md, references.bib and table.tex; if None, nothing is written.
        overwrite: Whether to replace files there that volseg did not write.

    Returns:
        Methods, references and table.

    Raises:
        CheckpointError: If the run holds no model.
        DataError: If the run is not finished, tables are damaged, or the scores belong to another model.
        OutputError: If the files cannot be written.
    """
    folder = Path(run)
    inputs, paths = Inputs.of(run, scores), _paths(output, with_table=scores is not None)
    claim(paths, inputs, overwrite=overwrite)
    records = {part: _finished(part) for part in _runs(folder)}
    found = None if scores is None else read_scores(Path(scores), model_files(folder))
    made = _citation(folder, records, found)
    if output is not None:
        make_folder(Path(output))
    for path, text in zip(paths, (made.methods, made.bibtex, made.table), strict=False):
        write_text(path, text + "\n")
    return made


def _paths(output: str | PathLike[str] | None, *, with_table: bool) -> list[Path]:
    names = (METHODS_FILE, REFERENCES_FILE, *((TABLE_FILE,) if with_table else ()))
    return [] if output is None else [Path(output) / name for name in names]


def _runs(folder: Path) -> list[Path]:
    """Return the run, or the runs that a comparison has chosen."""
    if not (folder / CHOICE_FILE).is_file():
        return [folder]
    return list(dict.fromkeys(file.parent.parent for file in model_files(folder)))


def _finished(run: Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        DataError: If it was interrupted: its best epoch and its post-processing are still to be chosen.
    """
    record = read_record(run)
    if record.splits and not (run / VALIDATION_FILE).is_file():
        raise DataError(f"the training in {run} is not finished", hint="go on with `volseg train --resume`")
    return record


def _citation(folder: Path, records: Mapping[Path, RunRecord], scores: Scores | None) -> Citation:
    methods = [methods_of(record) for record in records.values()]
    if (folder / CHOICE_FILE).is_file():
        methods.insert(0, _comparison(folder, [part.name for part in records]))
    first = next(iter(records.values()))
    if "imported from" in first.about.facts:
        logger.warning("the model was trained with another program: also cite what its authors ask for")
    if scores is not None:
        _tell_of_known_cases(scores, records)
        methods.append(scores.words)
    text = "\n\n".join(methods)
    versions = first.about.versions
    bibtex = bibtex_of(text, versions.volseg if versions else __version__)
    return Citation(text, bibtex, scores.table if scores else "")


def _comparison(folder: Path, chosen: list[str]) -> str:
    """Describe the comparison of networks and its result."""
    dice = read_json(
        folder / CHOICE_FILE,
        lambda content: {str(kind): float(mean) for kind, mean in content["out_of_fold_dice"].items()},
        "does not hold the result of a comparison",
        hint="train again, or give one of the runs in it",
    )
    means = listed([f"{named(kind)} {mean:.3f}" for kind, mean in dice.items()])
    return (
        "Networks that process volumes slice by slice (2d), with neighbouring slices as additional channels (2.5d), or "
        f"in three dimensions (3d) were compared by cross-validation. The mean out-of-fold Dice was: {means}. The "
        f"final model uses the {listed(list(map(named, chosen)))} networks{'' if len(chosen) == 1 else ', averaged'}."
    )


def _tell_of_known_cases(scores: Scores, records: Mapping[Path, RunRecord]) -> None:
    """Warn if scored cases were used in training or validation: they are not a test set."""
    known = scores.cases & {case_id for record in records.values() for case_id in record.cases}
    if known:
        logger.warning(
            "%d of the %d scored cases have the names of training or validation cases of this run: "
            "do not report them as a test set",
            len(known),
            len(scores.cases),
        )
