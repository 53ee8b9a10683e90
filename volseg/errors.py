"""The exceptions volseg raises on purpose.

Each carries one sentence that says what is wrong and where, and a hint that says what to do. The command line prints
both in one place, `volseg.cli`; a traceback in Python shows the hint as a note (PEP 678).
"""

from __future__ import annotations


class VolsegError(Exception):
    """Something outside volseg is wrong: an input, an output, a setting.

    Args:
        message: What is wrong, and where (a path, a case, a key).
        hint: What the user can do about it; empty when the message already says so.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    @property
    def explanation(self) -> str:
        """Message and hint on one line, for tables and logs about a single case."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class ConfigError(VolsegError):
    """A configuration file, a `--set` or a command asks for something invalid."""


class DataError(VolsegError):
    """An input file or folder cannot be used."""


class GeometryError(DataError):
    """The position of the voxels cannot be determined, or two grids that must match do not."""


class MemoryShortageError(DataError):
    """A case needs more memory than is available.

    Args:
        message: What does not fit.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="close other programs, or predict on a machine with more memory")


class CheckpointError(VolsegError):
    """A model file is missing, damaged, or incompatible with its intended use."""


class OutputError(VolsegError):
    """An output cannot be written."""


class ItemOutputError(OutputError):
    """One output cannot be written because of its name or what is in its place; others can."""


class OutputExistsError(ItemOutputError):
    """An output would replace a file that volseg may not replace."""


class TrainingError(VolsegError):
    """Training cannot continue."""


class WorkerError(VolsegError):
    """Work cannot be done on other processes or machines."""


#: What to do about a worker that does not see a folder.
SHARE_FOLDERS = "mount the folder on every machine, under the same path or with a path map"


class UnfitWorkerError(WorkerError):
    """A worker cannot do this work: it has another model or version, or does not see the folders. Others may."""


class WorkerLostError(WorkerError):
    """A piece of work ended every worker that was given it."""


class DeliveryError(VolsegError):
    """A DICOM node or service cannot be reached, or does not let us in; a later attempt may succeed."""
