"""Threads beside the main one: each on one core, and the others as they were."""

from __future__ import annotations

import subprocess
import sys

ALONE = "import torch; print(torch.get_num_threads())"
BESIDE_HELPERS = """
import threading
import torch
from volseg.parallel import helpers

counts = []
with helpers(2) as executor:
    counts.append(executor.submit(torch.get_num_threads).result())
    counts.append(torch.get_num_threads())
later = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
later.start()
later.join()
print(*counts)
"""


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_helpers_keep_to_one_core_and_leave_the_others_theirs() -> None:
    """In processes of their own: PyTorch settles how many threads a thread uses when it is first asked."""
    (count,) = run(ALONE)
    assert run(BESIDE_HELPERS) == ["1", count, count]
