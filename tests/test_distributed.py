from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IMPORTS = """
import os, signal, sys
from pathlib import Path
import torch
from volseg.errors import TrainingError
from volseg.training.distributed import join_process_group
"""

LEAVES = """
with join_process_group(torch.device('cpu')) as group:
    group.distribute(torch.nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
    assert group.gather([group.rank]) == [0, 1]
    group.barrier()
    rank = group.rank
threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
Path(sys.argv[1], str(rank)).write_text(" ".join(threads))
"""

IS_LOST = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left
try:
    with join_process_group(torch.device('cpu')) as group:
        group.barrier()
        if group.rank == 1:
            os.abort()
        group.barrier()
except TrainingError as error:
    Path(sys.argv[1], "told").write_text(f"{error}")
"""


def run_in_two_processes(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a group of two processes."""
    (folder / "script.py").write_text(IMPORTS + script)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", folder / "script.py", folder]
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)


def test_no_thread_of_the_process_group_outlives_it(tmp_path: Path) -> None:
    """A thread of the group that drops a tensor while Python ends would abort the process."""
    done = run_in_two_processes(LEAVES, tmp_path)
    assert done.returncode == 0, done.stderr
    for rank in "01":
        assert "gloo" not in (tmp_path / rank).read_text()


def test_the_process_that_is_left_reports_the_lost_one(tmp_path: Path) -> None:
    assert run_in_two_processes(IS_LOST, tmp_path).returncode != 0
    assert (tmp_path / "told").read_text() == "another process of the group was lost"
