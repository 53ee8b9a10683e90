"""Warnings of the library on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from volseg.cli.remarks import Remarks
from volseg.progress import MILESTONES


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that nobody else listens to."""
    logger = logging.getLogger("test_remarks")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def listening(logger: logging.Logger) -> Remarks:
    remarks = Remarks()
    logger.addHandler(remarks)
    return remarks


def test_a_warning_that_repeats_itself_is_printed_once_and_counted(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    remarks = listening(logger)
    for number in range(13):
        logger.warning("%s: %d voxels are not finite; treated as background", f"p{number}.nii.gz", number)
    assert capfd.readouterr().err == "warning: p0.nii.gz: 0 voxels are not finite; treated as background\n"
    remarks.tell_repeated()
    assert capfd.readouterr().err == (
        "12 more like this (--verbose prints all): warning: p0.nii.gz: 0 voxels are not finite; treated as background\n"
    )
    remarks.tell_repeated()
    assert capfd.readouterr().err == ""


def test_warnings_that_say_something_else_are_all_printed(
    logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    remarks = listening(logger)
    logger.warning("not used: %s", "p1: it has no reference")
    logger.warning("not used: %s", "p2: it is damaged")
    logger.warning("%s: %s", "p3", "one reason")
    logger.warning("%s: %s", "p4", "another reason")
    logger.warning("%s: %s", "p5", "one reason")  # the same for another case
    remarks.tell_repeated()
    assert capfd.readouterr().err.splitlines() == [
        "warning: not used: p1: it has no reference",
        "warning: not used: p2: it is damaged",
        "warning: p3: one reason",
        "warning: p4: another reason",
        "1 more like this (--verbose prints all): warning: p3: one reason",
    ]


def test_verbose_prints_all_there_is(logger: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    remarks = listening(logger)
    logger.info("not seen")
    remarks.is_verbose = True
    logger.info("seen")
    for name in ("a", "b"):
        logger.warning("%s is odd", name)
    remarks.tell_repeated()
    assert capfd.readouterr().err.splitlines() == ["info: seen", "warning: a is odd", "warning: b is odd"]


def test_milestones_are_always_printed_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord(MILESTONES, logging.INFO, __file__, 0, "epoch 1, step 10: loss 0.5", (), None)
    remarks = Remarks()
    remarks.emit(record)
    remarks.emit(record)
    assert capfd.readouterr().err == "epoch 1, step 10: loss 0.5\n" * 2
