"""What concerns a batch beside segmenting it, which is `Model.predict_folder`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from volseg.loaded_model import StrPath

if TYPE_CHECKING:
    from volseg.prediction.job_array import Merge


def merge(folder: StrPath) -> Merge:
    """Merge what the jobs of an array have segmented (`predict_folder` with `part`) into cases.csv.

    Also what the workers of a cluster have, if the process that started them was ended.

    Args:
        folder: The output folder of the jobs.

    Returns:
        How many cases have which outcome, and the parts that are not finished: `undone`.

    Raises:
        DataError: If nothing was segmented into the folder.
        OutputError: If the table cannot be written.
    """
    from volseg.prediction.job_array import merge_parts

    return merge_parts(Path(folder))
