"""The exceptions volseg raises on purpose.

Each carries one sentence that says what is wrong and where, and a hint that says what to do. They are turned into a
line on the terminal in one place, `volseg.cli`; everything below it only raises them.
"""

from __future__ import annotations


class VolsegError(Exception):
    """Something outside volseg is not as it must be.

    Args:
        message: What is wrong, and where (a path, a case, a key).
        hint: What the user can do about it; empty when the message already says so.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def explanation(self) -> str:
        """Message and hint in one line, for tables and logs that tell of a single case."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class ConfigError(VolsegError):
    """A configuration file, a `--set` or a command does not say something volseg can do."""


class DataError(VolsegError):
    """A file or a folder given as input cannot be used."""


class GeometryError(DataError):
    """Where the voxels lie cannot be derived, or two grids that must agree do not."""


class MemoryShortageError(DataError):
    """A case needs more memory than there is.

    Args:
        message: What does not fit.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="close other programs, or predict on a machine with more memory")


class CheckpointError(VolsegError):
    """A model file is missing, damaged, or does not fit what it is asked to do."""


class OutputError(VolsegError):
    """An output cannot be written."""


class ItemOutputError(OutputError):
    """An output cannot be written for what it is called or for what stands in its place; others can."""


class OutputExistsError(ItemOutputError):
    """An output would replace a file that is not volseg's to replace."""


class TrainingError(VolsegError):
    """Training cannot go on."""
