"""How threads that wait for each other should do it, on a quiet machine and beside other programs.

Run it with `python benchmarks/threads.py`: it prints the seconds of a training step for several lengths of the time
that threads spin before they sleep, alone and beside programs that multiply matrices with a thread each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from statistics import median

#: What GNU's OpenMP is told: None leaves it as it is.
SPINS = (None, 0, 5_000, 30_000)
#: Of each measurement, in a process of its own.
STEPS = 5
COMPETITOR = "import torch; torch.set_num_threads(1); a = torch.randn(1500, 1500)\nwhile True: a @ a"


def time_steps() -> None:
    """Print the seconds of some steps of the planned network for small crops."""
    import torch

    from volseg.config import validate
    from volseg.training.timing import step_seconds

    tree = {
        "data": {"labels": {"one": 1, "other": 2}},
        "patches": {"size": [32, 48, 32]},
        "network": {"name": "dynunet", "filters": [16, 32, 64, 128], "deep_supervision": 2},
    }
    config = validate(tree, "the benchmark")
    threads = [torch.get_num_threads()]
    print(" ".join(str(step_seconds(config, torch.device("cpu"), threads)) for _ in range(STEPS)))


def seconds_of_a_step(spins: int | None) -> float:
    """The median in a process whose threads spin so long."""
    environment = {key: value for key, value in os.environ.items() if key not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = str(spins)
    command = [sys.executable, "-W", "ignore", __file__, "--steps"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return median(map(float, done.stdout.split()))


@contextlib.contextmanager
def competing(programs: int) -> Iterator[None]:
    """Let other programs compute meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", COMPETITOR]) for _ in range(programs)]
    try:
        yield
    finally:
        for process in started:
            process.kill()


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time training steps by how long waiting threads spin.")
    parser.add_argument("--competitors", type=int, nargs="+", default=[0, 2], help="Other programs that compute.")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Print a table, or time steps for it."""
    options = parse()
    if options.steps:
        time_steps()
        return
    print("GOMP_SPINCOUNT  " + "".join(f"{count} beside".rjust(12) for count in options.competitors))
    for spins in SPINS:
        row = []
        for count in options.competitors:
            with competing(count):
                row.append(f"{seconds_of_a_step(spins):12.3f}")
        print(f"{'default' if spins is None else spins!s:16}" + "".join(row), flush=True)


if __name__ == "__main__":
    main()
