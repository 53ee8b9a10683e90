"""Memory: how much this process may use, and its peak."""

from __future__ import annotations

import sys
from pathlib import Path

from volseg.cgroups import read_limits

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_share_bytes: int | None = None


def reset_peak() -> None:
    """Reset the peak that the kernel records (Linux: proc(5), clear_refs); elsewhere it counts from process start."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return


def peak_mb() -> float:
    """Return the peak memory of this process since `reset_peak`."""
    try:
        status = _STATUS.read_text(encoding="ascii")
    except OSError:
        return _peak_since_start_mb()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def limit_memory(size_bytes: int | None) -> None:
    """Let this process plan with less memory than the machine has.

    Args:
        size_bytes: Its share; None for all of it.
    """
    global _share_bytes  # noqa: PLW0603  memory belongs to the process
    _share_bytes = size_bytes


def total_gb(root: Path = Path("/")) -> float:
    """Return the memory this process may use: the machine's, or the limit of its container or of `limit_memory`.

    Args:
        root: Folder that holds Linux's proc/ and sys/.
    """
    import psutil

    physical: int = psutil.virtual_memory().total
    return min(physical, read_limits(root).memory_bytes or physical, _share_bytes or physical) / 1e9


def _peak_since_start_mb() -> float:
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # getrusage(2): bytes on macOS, else kilobytes
