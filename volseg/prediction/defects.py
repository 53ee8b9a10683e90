"""Errors in one case that are no fault of its files: they become its reason and cost no other case."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from volseg.errors import OutputExistsError
from volseg.io.files import append_text
from volseg.prediction.request import LOG_FILE

logger = logging.getLogger(__name__)


def reason_of_defect(error: Exception, item: str, folder: Path, tellable: Callable[[str], str]) -> str:
    """Return the reason for an unexpected error; the traceback of a defect is kept in the log of the output.

    Args:
        error: A shortage of memory, or a defect.
        item: The case or mask that it was met in, "case p1".
        folder: The output folder.
        tellable: Removes from a text what must not be disclosed.
    """
    if isinstance(error, MemoryError):
        return "it needs more memory than is available; close other programs, or use a machine with more memory"
    story = f"{item}\n{tellable(''.join(traceback.format_exception(error)))}\n"
    try:
        append_text(folder / LOG_FILE, story)
    except OutputExistsError:  # the user has a file of that name
        logger.warning("%s is not volseg's, so the traceback is logged here: %s", LOG_FILE, story)
    return f"a defect of volseg ({type(error).__name__}: {error}); see {LOG_FILE}"
