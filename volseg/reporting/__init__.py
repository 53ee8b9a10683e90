"""What a folder of results has to show, gathered into its page.

Drawing a case needs its image and masks, so that is done while they are known (`evaluations`, `batches`) and kept in
`pictures/` (`gallery`); the page can then be made again from the folder alone. A run's page needs no pictures
(`trainings`).
"""

from __future__ import annotations

from pathlib import Path

from volseg.errors import DataError
from volseg.evaluation.evaluate import METRICS_FILE
from volseg.reporting.batches import REVIEW_FILE, describe_batch, page_of_batch, report_batch
from volseg.reporting.evaluations import describe_evaluation, page_of_evaluation, report_evaluation
from volseg.reporting.page import write_report
from volseg.reporting.trainings import page_of_training
from volseg.training.record import VALIDATION_FILE

__all__ = ["describe_batch", "describe_evaluation", "report_batch", "report_evaluation", "report_folder"]


def report_folder(folder: Path) -> Path:
    """Write the page of a folder of results again, from what it holds.

    Args:
        folder: What `volseg train` wrote, or `evaluate` or `predict` with --report.

    Returns:
        report.html in it.

    Raises:
        DataError: If it holds no results, or damaged ones.
        OutputError: If it cannot be written.
    """
    pages = {METRICS_FILE: page_of_evaluation, REVIEW_FILE: page_of_batch, VALIDATION_FILE: page_of_training}
    for file, page in pages.items():
        if (folder / file).is_file():
            return write_report(page(folder), folder)
    raise DataError(
        f"{folder} holds no results to report",
        hint="name a finished run, what `volseg evaluate` wrote, or `volseg predict` with --report",
    )
