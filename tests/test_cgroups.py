"""The limits of a container: in trees of files as Linux shows them, and in a group of its own where one can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from volseg import parallel
from volseg.cgroups import Limits, read_limits
from volseg.memory import total_gb
from volseg.planning.machine import CPU, this_machine
from volseg.system import cores, usable_cores

#: What version 1 says where nothing is limited: the largest number of pages.
UNLIMITED_V1 = "9223372036854771712\n"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Write files below a root: their paths with what they say."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


V2 = "0::/\n"
V1 = "12:memory:/docker/3f\n4:cpu,cpuacct:/docker/3f\n1:name=systemd:/docker/3f\n"


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        pytest.param({}, Limits(), id="no control groups: Windows, macOS"),
        pytest.param({"proc/self/cgroup": V2}, Limits(), id="the root has no files of limits"),
        pytest.param(
            {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "2000\n"},
            Limits(1.5, 2000),
            id="version 2, a container sees its own group as the root",
        ),
        pytest.param(
            {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"},
            Limits(),
            id="version 2, no limits",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/machine.slice/job\n",
                "sys/fs/cgroup/machine.slice/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/machine.slice/memory.max": "5000\n",
                "sys/fs/cgroup/machine.slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/machine.slice/job/memory.max": "7000\n",
                "sys/fs/cgroup/other/cpu.max": "1000 100000\n",
            },
            Limits(3.0, 5000),
            id="version 2, the smallest along the path",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/kubepods/pod:1/c\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/memory.max": "1000\n",
            },
            Limits(0.5, 1000),
            id="version 2, the path is the host's, only the own group is mounted",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../../other\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
                "sys/fs/other/cpu.max": "1 100000\n",
                "sys/other/cpu.max": "1 100000\n",
            },
            Limits(0.5),
            id="version 2, a path that leads out of what is mounted",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/3f/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/3f/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/docker/3f/memory.limit_in_bytes": "4000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            },
            Limits(2.5, 4000),
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "25000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000\n",
            },
            Limits(2.0, 4000),
            id="version 1, only the own group is mounted",
        ),
        pytest.param(
            {
                "proc/self/cgroup": f"{V1}0::/docker/3f\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000\n",
                "sys/fs/cgroup/unified/docker/3f/cpu.max": "100000 100000\n",
            },
            Limits(1.0, 4000),
            id="both versions at once",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "nonsense\n\n0::/\n::\n7\n",
                "sys/fs/cgroup/cpu.max": "a lot\n",
                "sys/fs/cgroup/memory.max": "-5\n",
                "sys/fs/cgroup/cpu.cfs_quota_us": "100\n",
            },
            Limits(),
            id="garbage",
        ),
        pytest.param(
            {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "100000 0\n", "sys/fs/cgroup/memory.max": "0\n"},
            Limits(),
            id="what cannot be",
        ),
        pytest.param(
            {"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max/is_a_folder": "", "sys/fs/cgroup/memory.max": "9\n"},
            Limits(None, 9),
            id="what cannot be read",
        ),
    ],
)
def test_the_limits_that_files_of_the_kernel_state(
    files: dict[str, str], limits: Limits, tree: Callable[..., Path]
) -> None:
    assert read_limits(tree(files)) == limits


@pytest.mark.parametrize(("quota", "usable"), [("1000", 1), ("100000", 1), ("100001", 2), ("1000000000", cores())])
def test_cores_are_usable_as_far_as_there_is_time_for_them(quota: str, usable: int, tree: Callable[..., Path]) -> None:
    root = tree({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert usable_cores(root) == min(usable, cores())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_that_the_process_is_bound_to() -> None:
    code = "import os; from volseg.system import usable_cores; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(usable_cores())"], capture_output=True, check=True)
    assert done.stdout.split() == [b"1"]


@pytest.mark.parametrize(("limit", "gigabytes"), [("2000000000\n", 2.0), ("max\n", None), (UNLIMITED_V1, None)])
def test_memory_is_the_containers(limit: str, gigabytes: float | None, tree: Callable[..., Path]) -> None:
    root = tree({"proc/self/cgroup": V2, "sys/fs/cgroup/memory.max": limit})
    assert total_gb(root) == pytest.approx(gigabytes or psutil.virtual_memory().total / 1e9)


def test_a_plan_fits_into_a_small_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.planning.machine.total_gb", lambda: 3.0)
    assert this_machine(torch.device("cpu")).memory_gb == 1.5
    monkeypatch.setattr("volseg.planning.machine.total_gb", lambda: 64.0)
    assert this_machine(torch.device("cpu")).memory_gb == CPU.memory_gb


@pytest.fixture
def quota(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A container with time for one core on a machine of many."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(parallel, "usable_cores", lambda: 1)
    monkeypatch.setattr(parallel, "_asked", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS", None)  # what the test set; monkeypatch then puts back what was there


@pytest.mark.usefixtures("quota")
def test_pytorch_gets_no_more_threads_than_the_container_has_time_for() -> None:
    parallel.use_threads()
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")


@pytest.mark.usefixtures("quota")
def test_a_number_that_somebody_stated_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    parallel.use_threads()
    assert torch.get_num_threads() == 3
    parallel.use_threads(2)
    parallel.use_threads()
    assert torch.get_num_threads() == 2


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A control group with time for half a core."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    of_version = {line.split(":")[1]: line.split(":", 2)[2] for line in lines}
    first = next((names for names in of_version if "cpu" in names.split(",")), "")
    group = Path("/sys/fs/cgroup", first, of_version[first].lstrip("/"), f"volseg-test-{os.getpid()}")
    try:
        group.mkdir()
        try:
            if first:
                (group / "cpu.cfs_period_us").write_text("100000")
                (group / "cpu.cfs_quota_us").write_text("50000")
            else:
                (group / "cpu.max").write_text("50000 100000")
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


IN_GROUP = """
import os, sys
from pathlib import Path
Path(sys.argv.pop(), "cgroup.procs").write_text(str(os.getpid()))
import volseg
from volseg.cli import main
from volseg.system import usable_cores
sys.argv = ["volseg", "--version"]
try:
    main()
except SystemExit:
    import torch
    print(usable_cores(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
"""


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="this system has no control groups")
@pytest.mark.skipif(cores() < 2, reason="one core cannot be too many")
@pytest.mark.parametrize(("stated", "counts"), [(None, "1 1 1"), ("2", "1 2 2")])
def test_the_command_line_keeps_to_a_real_group(half_a_core: Path, stated: str | None, counts: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": stated} if stated else {}
    words = [sys.executable, "-c", IN_GROUP, str(half_a_core)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == counts
