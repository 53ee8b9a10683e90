from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MEMBER = """
import os, signal, sys
from pathlib import Path
import torch
from volseg.errors import TrainingError
from volseg.training.team import gather_team
"""

LEAVES = """
with gather_team() as team:
    team.share(torch.nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
    assert team.collect([team.rank]) == [0, 1]
    team.meet()
    rank = team.rank
threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
Path(sys.argv[1], str(rank)).write_text(" ".join(threads))
"""

IS_LOST = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left
try:
    with gather_team() as team:
        team.meet()
        if team.rank == 1:
            os.abort()
        team.meet()
except TrainingError as error:
    Path(sys.argv[1], "told").write_text(f"{error}")
"""


def started(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two processes that run a script together."""
    (folder / "member.py").write_text(MEMBER + script)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", folder / "member.py", folder]
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)


def test_nothing_of_the_team_outlives_it(tmp_path: Path) -> None:
    """A thread of the group that drops a tensor while Python ends would abort the process."""
    told = started(LEAVES, tmp_path)
    assert told.returncode == 0, told.stderr
    for rank in "01":
        assert "gloo" not in (tmp_path / rank).read_text()


def test_who_is_left_says_that_another_was_lost(tmp_path: Path) -> None:
    assert started(IS_LOST, tmp_path).returncode != 0
    assert (tmp_path / "told").read_text() == "another process of the team was lost"
