"""The page of a folder of results, rebuilt from its files."""

from __future__ import annotations

from pathlib import Path

from volseg.errors import DataError
from volseg.evaluation.evaluate import METRICS_FILE
from volseg.io.written import claim
from volseg.reporting.page import REPORT_FILE, REVIEW_FILE, Report, write_report
from volseg.training.files import VALIDATION_FILE


def report_folder(folder: Path, *, overwrite: bool = False) -> Path:
    """Rebuild the page of a folder of results from its files.

    Args:
        folder: What `volseg train` wrote, or `evaluate` or `predict` with --report.
        overwrite: Whether a report.html that volseg did not write, or that was changed since, is given up.

    Returns:
        report.html in it.

    Raises:
        DataError: If it holds no results, or damaged ones.
        OutputExistsError: If there is a report.html of somebody else's.
        OutputError: If it cannot be written.
    """
    claim([folder / REPORT_FILE], overwrite=overwrite)
    return write_report(_page(folder), folder)


def _page(folder: Path) -> Report:
    if (folder / METRICS_FILE).is_file():
        from volseg.reporting.evaluations import page_of_evaluation

        return page_of_evaluation(folder)
    if (folder / REVIEW_FILE).is_file():
        from volseg.reporting.batches import page_of_batch

        return page_of_batch(folder)
    if (folder / VALIDATION_FILE).is_file():
        from volseg.reporting.trainings import page_of_training

        return page_of_training(folder)
    raise DataError(
        f"{folder} holds no results to report",
        hint="name a finished run, what `volseg evaluate` wrote, or `volseg predict` with --report",
    )
