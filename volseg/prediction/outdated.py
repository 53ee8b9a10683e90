"""Masks that no row of cases.csv tells of any more."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from volseg.exporting import FORMATS, MESHES, Format, output_path
from volseg.io.written import Inputs, remove_written, remove_written_in
from volseg.prediction.cases_csv import probability_file


def remove_masks(
    output: Path, case_id: str, inputs: Inputs, formats: Collection[Format] = (), *, probabilities: bool = False
) -> None:
    """No mask of an earlier batch, in whatever format, may stand beside a row that does not tell of it.

    Args:
        output: Where they are.
        case_id: Of the case.
        inputs: What the batch reads, of which nothing is removed.
        formats: Those that are written anew: a file takes the place of the earlier one, so that there always is one.
        probabilities: Whether those are.
    """
    if not probabilities:
        remove_written(probability_file(output, case_id), inputs)
    for form in FORMATS:
        path = output_path(output, case_id, form)
        if form in MESHES:  # which files there are depends on the mask
            remove_written_in(path, f"*.{form}")
        elif form not in formats:
            remove_written(path, inputs)
