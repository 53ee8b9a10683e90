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
    earlier = {form: path for form in FORMATS if (path := output_path(output, case_id, form)).exists()}
    if not probabilities:
        remove_written(probability_file(output, case_id), inputs)
    for form in FORMATS:
        path = output_path(output, case_id, form)
        if form in MESHES:  # which files there are depends on the mask
            remove_written_in(path, f"*.{form}")
        elif form not in formats:
            remove_written(path, inputs)
    removed = [form for form, path in earlier.items() if form not in formats and not path.exists()]
    if formats and removed:
        _log.warning("%s: removed in formats that are no longer requested: %s", case_id, ", ".join(removed))
