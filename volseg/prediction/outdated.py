"""Removal of outdated masks, which no row of cases.csv refers to any more."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from volseg.exporting import FORMATS, MESHES, Format, output_path
from volseg.io.written import Inputs, remove_written, remove_written_in
from volseg.prediction.cases_csv import probability_file

_log = logging.getLogger(__name__)


def remove_masks(
    output: Path, case_id: str, inputs: Inputs, formats: Collection[Format] = (), *, probabilities: bool = False
) -> None:
    """Remove masks of an earlier batch, in any format, so that none stands beside a row that does not refer to it.

    Args:
        output: Their folder.
        case_id: Of the case.
        inputs: Files that the batch reads, of which nothing is removed.
        formats: Formats that are written anew: each file replaces the earlier one, so that there always is one.
        probabilities: Whether probabilities are written anew, too.
    """
    earlier = {form: path for form in FORMATS if _holds(path := output_path(output, case_id, form), form)}
    shares = probability_file(output, case_id)
    had_shares = shares.exists()
    if not probabilities:
        remove_written(shares, inputs)
    for form in FORMATS:
        path = output_path(output, case_id, form)
        if form in MESHES:  # which files there are depends on the mask
            remove_written_in(path, f"*.{form}")
        elif form not in formats:
            remove_written(path, inputs)
    removed: list[str] = [form for form, path in earlier.items() if form not in formats and not _holds(path, form)]
    removed += ["probabilities"] if had_shares and not shares.exists() else []
    if formats and removed:
        _log.warning("%s: removed what is no longer requested: %s", case_id, ", ".join(removed))


def _holds(path: Path, form: Format) -> bool:
    """Return whether there is a mask in a format: a file, or files in the folder of meshes."""
    return any(path.glob(f"*.{form}")) if form in MESHES else path.exists()
