"""Operating-system differences: cores, processes, files."""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import IO

from volseg.cgroups import read_limits

#: Some microseconds: about as long as the threads of a quiet machine wait for each other.
_SPINS = 5000
_ON_WINDOWS = os.name == "nt"
#: Linux kernel file systems, whose content is generated on reading.
_OF_THE_KERNEL = (Path("/proc"), Path("/sys"))


def cores() -> int:
    """Return the number of cores this process may run on; other processes may be using them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil

    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def limit_busy_waiting() -> None:
    """Limit the busy waiting of threads after parallel loops, unless the user has configured it.

    By default they spin for a millisecond. Where another program takes a core, the last thread then waits for one that
    the others spend on waiting for it, and a training step takes many times as long (benchmarks/TRAINING.md). GNU's
    OpenMP, which PyTorch has on Linux, reads this when it is loaded.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process can keep busy: its own, limited by its container's processor time.

    Args:
        root: Folder that holds Linux's proc/ and sys/.
    """
    cpus = read_limits(root).cpus
    return cores() if cpus is None else max(1, min(cores(), math.ceil(cpus)))


def processor_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def file_opener() -> str:
    """Return the command that opens a file in the program that it belongs to."""
    return {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")


def is_running(process: int) -> bool:
    """Return whether a process with this ID exists."""
    import psutil

    try:
        return bool(psutil.pid_exists(process))
    except OverflowError:  # no system has such a high ID
        return False


def flush(path: Path) -> None:
    """Wait until a file, or the listing of a folder, is on disk.

    Does nothing for folders on Windows, whose file systems journal them.

    Raises:
        OSError: If it cannot be written.
    """
    if _ON_WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)  # Windows flushes only writable files
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_room(file: IO[bytes], folder: Path, size: int) -> None:
    """Reserve disk space for a new file, or, where the system cannot, check that there is enough now.

    Args:
        file: Open for writing.
        folder: A folder on the same disk.
        size: In bytes.

    Raises:
        OSError: If there is less.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_of_the_kernel(path: Path) -> bool:
    """Return whether a path is in a Linux kernel file system (such as /proc), whose files have neither size nor end."""
    place = Path(os.path.realpath(path))
    return any(place.is_relative_to(folder) for folder in _OF_THE_KERNEL)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine under an address that others cannot reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
