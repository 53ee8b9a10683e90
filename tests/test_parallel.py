"""Threads beside the main one: each on one core, and the others as they were."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from volseg.errors import ConfigError
from volseg.parallel import use_threads
from volseg.system import usable_cores

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


NUMBERS = """
import os, sys
import volseg
from volseg.parallel import _thread_count, allowed_threads

{before}
volseg.use_threads({count})
counts = [allowed_threads(), _thread_count()]
import torch
counts += [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"])]
print(*counts)
"""


@pytest.mark.parametrize(
    ("before", "count"), [("", 1), ("import torch", 1), ("import torch; torch.set_num_threads(5)", os.cpu_count() + 1)]
)
def test_one_number_holds_for_all(before: str, count: int) -> None:
    """Whether PyTorch is loaded already or not; more than there are cores is what somebody wants."""
    assert run(NUMBERS.format(before=before, count=count)) == [str(count)] * 4


@pytest.mark.parametrize("count", [0, -1])
def test_no_threads_at_all_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"(?m)^threads: must be at least 1, got {count}$"):
        use_threads(count)


STATED = """
from volseg.parallel import _thread_count, allowed_threads
print(_thread_count(), allowed_threads())
"""


@pytest.mark.parametrize(("stated", "count"), [("3", 3), ("5,2", 5), ("0", None), ("many", None), ("", None)])
def test_what_the_environment_states_is_for_what_one_thread_divides(
    stated: str, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads that make patches are others: `torchrun` states 1, and each of its GPUs wants many."""
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert run(STATED) == [str(count or usable_cores()), str(usable_cores())]


BOUND = """
import threading
import volseg
from volseg.parallel import helpers, side_by_side
from volseg.training import sampling
from volseg.io.dicom import series

volseg.use_threads(2)
together, seen = threading.Barrier(2), set()

def work(number):
    seen.add(threading.get_ident())
    together.wait(60)  # both are at work, or nobody gets on

list(side_by_side(work, range(20)))
print(len(seen))

class Patches:
    def batch(self, step):
        seen.add(threading.get_ident())
        return step

seen.clear()
made = sampling.batches(Patches(), 9, 0)
assert [next(made) for _ in range(50)] == list(range(50))
print(len(seen) <= 2, end="")
"""


def test_the_number_bounds_what_is_done_side_by_side() -> None:
    assert run(BOUND) == ["2", "True"]


OPENVINO = """
import openvino, torch
import volseg
from volseg.inference.engines import Engine, start

volseg.use_threads(2)
network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1)).eval()
told = []
compile_model = openvino.Core.compile_model
openvino.Core.compile_model = lambda core, graph, device, hints: told.append(
    compile_model(core, graph, device, hints)
) or told[-1]
start(Engine("openvino", "fp32"), network, 1, (8, 8, 8), torch.device("cpu"))
print(told[0].get_property("INFERENCE_NUM_THREADS"))
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openvino_keeps_to_the_number() -> None:
    pytest.importorskip("openvino")
    assert run(OPENVINO) == ["2"]
