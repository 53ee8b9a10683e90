"""Check that a training ends when it was told to, and that the time left is true: `python benchmarks/budget.py DATA`.

Each run is the command itself, beside programs that multiply matrices with a thread each. Over: by how much it missed
its time. Worst: the largest error of the time left, as a share of the time that was then left, after the first tenth of
the run and until a minute before its end.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from threads import competing

#: A line of the log while training: when it was written, and the time left.
LINE = re.compile(r"^(\S+) INFO .*: train .* (\d+):(\d\d):(\d\d) left$", re.MULTILINE)


def run(data: Path, minutes: float, folder: Path) -> tuple[float, float]:
    """Train.

    Returns:
        Seconds that it took, and the worst error of the time left, as a share.
    """
    log = folder / "log"
    words = ["train", str(data), "--output", str(folder / "run"), "--minutes", str(minutes), "--log", str(log)]
    began, at = time.monotonic(), datetime.now().astimezone()
    subprocess.run([sys.executable, "-m", "volseg", *words], check=True, capture_output=True)
    taken = time.monotonic() - began
    errors = [0.0]
    for written, hours, mins, seconds in LINE.findall(log.read_text(encoding="utf-8")):
        passed = (datetime.fromisoformat(written) - at).total_seconds()
        told = timedelta(hours=int(hours), minutes=int(mins), seconds=int(seconds)).total_seconds()
        if 0.1 * taken <= passed <= taken - 60:
            errors.append(abs(told - (taken - passed)) / (taken - passed))
    return taken, max(errors)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time runs with a limit.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    parser.add_argument("--competitors", type=int, nargs="+", default=[0, 2], help="Other programs that compute.")
    return parser.parse_args(words)


def main() -> None:
    """Print a table."""
    options = parse()
    print("| minutes | beside | wall | over | worst time left |\n| --- | --- | --- | --- | --- |")
    for count in options.competitors:
        for minutes in options.minutes:
            with tempfile.TemporaryDirectory() as folder, competing(count):
                taken, worst = run(options.data, minutes, Path(folder))
            over = taken - 60 * minutes
            print(f"| {minutes:g} | {count} | {taken:.0f} s | {over:+.0f} s | {worst:.0%} |", flush=True)


if __name__ == "__main__":
    main()
