"""Container limits: how much processor time and memory Linux control groups (cgroups) allow this process.

Version 2 is described in Documentation/admin-guide/cgroup-v2.rst of the kernel (cpu.max, memory.max), version 1 in
cgroup-v1/memory.rst and scheduler/sched-bwc.rst. A group inherits the limits of its ancestors, so the smallest limit
along its path applies. A container usually sees its own group only, mounted at the root.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Where Linux mounts the groups.
_MOUNT = "sys/fs/cgroup"


@dataclass(frozen=True)
class Limits:
    """The limits of a process; None where there is no limit.

    Attributes:
        cpus: Processor time per wall time: 1.5 means one and a half cores.
        memory_bytes: Memory.
    """

    cpus: float | None = None
    memory_bytes: int | None = None


def read_limits(root: Path = Path("/")) -> Limits:
    """Read the limits of this process.

    Args:
        root: Folder that holds proc/ and sys/.

    Returns:
        The smallest limits of all groups it is in; no limits if there are no groups or none can be read.
    """
    groups = list(_groups(root))
    return Limits(
        min(filter(None, map(_cpus, groups)), default=None),
        min(filter(None, map(_memory_bytes, groups)), default=None),
    )


def _groups(root: Path) -> Iterator[Path]:
    """Find the folders of the groups this process is in, and of their ancestors, for either version."""
    # A line is "number:controllers:path"; version 2 names no controllers.
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(.+)$", _text(root / "proc/self/cgroup"), re.MULTILINE):
        names = ("", "unified") if not controllers else (controllers, *controllers.split(","))
        below = PurePosixPath(path.lstrip("/"))
        # From within a container, the path of a host group leads out of the mounted tree.
        inside = [PurePosixPath()] if ".." in below.parts else [below, *below.parents]
        yield from (root / _MOUNT / name / group for name in names for group in inside)


def _cpus(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    limited = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return int(quota) / int(period) if limited else None


def _memory_bytes(group: Path) -> int | None:
    limit = (_text(group / "memory.max") or _text(group / "memory.limit_in_bytes")).strip()
    return int(limit) if limit.isdecimal() else None


def _text(path: Path) -> str:
    """Read a file of the kernel; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
