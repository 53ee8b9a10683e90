"""Memory: how much this process may use, and its peak."""

from __future__ import annotations

import sys
from pathlib import Path

from volseg.cgroups import read_limits

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


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


def total_gb(root: Path = Path("/")) -> float:
    """Return the memory this process may use: the machine's, or the limit of its container.

    Args:
        root: Folder that holds Linux's proc/ and sys/.
    """
    import psutil

    physical: int = psutil.virtual_memory().total
    return min(physical, read_limits(root).memory_bytes or physical) / 1e9


def _peak_since_start_mb() -> float:
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # getrusage(2): bytes on macOS, else kilobytes
