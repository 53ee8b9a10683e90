"""Signals that end a run: what is finished is kept, nothing is torn, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY, make_case

from volseg.cli.signals import ended_by_signals, stop_is_requested
from volseg.io import write_volume
from volseg.model.checkpoint import load

INTERRUPTED = "interrupted; finished work is kept. Run the same command again to continue (train: with --resume)"
#: What volseg keeps in a folder of results besides the results.
HIDDEN = {".volseg-written", ".volseg-lock", ".volseg-owner"}
PATIENCE_SECONDS = 300
#: Signals as they are in a terminal: whoever runs the tests in the background has some of them ignored.
UNTOUCHED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
#: So many that the last one is not finished when a signal after the first one arrives.
SCANS = 24
Words = Sequence[object]


def started(words: Words, before: str = "") -> subprocess.Popen[str]:
    """A command in a process of its own, before which some Python may run."""
    program = f"{before}\nimport sys; from volseg.cli import main; sys.argv[0] = 'volseg'; main()"
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(words: Words, number: int, when: Callable[[], bool], times: int = 1) -> str:
    """Send a signal to a command as soon as something is so; what it says on stderr as it ends by that."""
    process = started(words, UNTOUCHED)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not when():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.01)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == INTERRUPTED
    assert "Traceback" not in err
    return err


def finished(words: Words) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "volseg", *map(str, words)], check=False, capture_output=True, text=True
    )


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name not in HIDDEN]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(SCANS):
        write_volume(make_case(number)[0], tmp_path / "scans" / f"p{number}.nii.gz")
    return tmp_path / "scans"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "times"),
    [("SIGTERM", 1), ("SIGTERM", 5), ("SIGHUP", 1), ("SIGINT", 2)],
    ids=["term", "terms", "hup", "ctrl-c"],
)
def test_a_batch_that_is_ended_has_a_row_for_every_mask_and_goes_on(
    scans: Path, trained_run: Path, tmp_path: Path, name: str, times: int
) -> None:
    output = tmp_path / "masks"
    words = ["predict", scans, "--model", trained_run, "--output", output, "--log", tmp_path / "log"]
    ended(words, signal.Signals[name], lambda: any(output.glob("p*.nii.gz")), times)
    masks = {path.name.removesuffix(".nii.gz") for path in output.glob("p*.nii.gz")}
    table = pd.read_csv(output / "cases.csv")
    assert masks
    assert set(table["case_id"]) == masks
    assert set(table["status"]) == {"segmented"}
    assert unfinished(output) == []
    stamps = {path: path.stat().st_mtime_ns for path in output.glob("p*.nii.gz")}
    done = finished(words)
    assert done.returncode == 0, done.stderr
    counts = f"{SCANS - len(masks)} new, {len(masks)} unchanged"
    assert (
        done.stdout
        == f"{SCANS} segmented, 0 skipped, 0 failed of {SCANS} discovered; {counts}; see {output / 'cases.csv'}\n"
    )
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    said = (tmp_path / "log").read_text()
    assert f": {INTERRUPTED}\n" in said
    assert ": predict ends: exit code 130 after " in said


@pytest.mark.slow
def test_a_training_that_is_ended_is_resumed_as_if_it_had_not_been(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    words = ["train", dataset, "--config", config, "--set", "training.epochs=6", "--output"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    ended([*words, cut], signal.SIGTERM, (cut / "last.pt").exists)
    assert unfinished(cut) == []
    assert not (cut / "validation.csv").exists()
    assert finished([*words, cut, "--resume"]).returncode == 0
    assert finished([*words, whole]).returncode == 0
    one, other = (load(run / "model.pt")["weights"] for run in (cut, whole))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_team_that_is_ended_is_resumed(dataset: Path, tmp_path: Path) -> None:
    """The agent of torchrun passes SIGTERM on to the processes that train."""
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(TINY))
    team = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "volseg"]
    words = [*team, "train", str(dataset), "--config", str(config), "--epochs", "8", "--output", str(run)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as agent:
        while not (run / "last.pt").exists():
            assert agent.poll() is None, agent.communicate()[1]
            time.sleep(0.01)
        began = time.monotonic()
        agent.terminate()
        _, err = agent.communicate(timeout=PATIENCE_SECONDS)
    assert agent.returncode != 0
    assert time.monotonic() - began < 30  # after which it would kill them
    assert err.count(INTERRUPTED) == 2
    assert unfinished(run) == []
    resumed = subprocess.run([*words, "--resume"], check=False, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "validation.csv").is_file()


@pytest.mark.slow
def test_an_evaluation_that_is_ended_leaves_nothing_and_starts_again(dataset: Path, tmp_path: Path) -> None:
    labels, scores = dataset / "labels", tmp_path / "scores"
    words = ["evaluate", labels, labels, "--output", scores, "--log", tmp_path / "log", "--centerline", "--lesions"]
    log = tmp_path / "log"
    ended(words, signal.SIGTERM, lambda: log.exists() and "evaluate begins" in log.read_text())
    assert not scores.exists() or {path.name for path in scores.iterdir()} <= HIDDEN
    assert finished(words).returncode == 0
    assert (scores / "metrics.csv").is_file()


def test_a_signal_ends_the_command_from_the_first_moment_on(tmp_path: Path) -> None:
    """While it imports what it needs, and finds its input."""
    log = tmp_path / "log"
    ended(["demo", "--output", tmp_path / "demo", "--log", log], signal.SIGTERM, log.exists)


WAITS = """
import volseg.cli.inspect
from pathlib import Path
def inspect_folder(path, *_):
    (path / "begun").touch()
    {waiting}
import volseg.inspection
volseg.inspection.inspect_folder = inspect_folder
"""
SWALLOWS = """
    progress = _[-1]
    import time
    class Grave:
        def __del__(self):
            time.sleep(5)
    Grave()  # what is raised in a destructor is lost
    while True:
        progress("inspect", 0, 1)
        time.sleep(0.01)
"""
WRITES = """
    import time
    try:
        time.sleep(60)
    finally:
        time.sleep(1)
        (path / "whole").touch()
"""


def begun(tmp_path: Path, waiting: str, before: str = "") -> subprocess.Popen[str]:
    """An `inspect` that does something else, which has begun."""
    process = started(["inspect", tmp_path], WAITS.format(waiting=waiting.strip("\n").lstrip()) + before)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


def test_what_a_destructor_swallowed_is_raised_again(tmp_path: Path) -> None:
    process = begun(tmp_path, SWALLOWS)
    time.sleep(0.5)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == INTERRUPTED


def test_a_second_signal_does_not_disturb_what_the_first_has_begun(tmp_path: Path) -> None:
    process = begun(tmp_path, WRITES)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.1)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()) == (130, [INTERRUPTED])
    assert (tmp_path / "whole").exists()


def test_what_the_parent_has_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup does."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = begun(
        tmp_path, "import time; time.sleep(2)\n    raise __import__('volseg').DataError('at its end')", ignore
    )
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "error: at its end\n")


def test_a_terminal_that_is_closed_ends_the_run(tmp_path: Path, dataset: Path) -> None:
    """SIGHUP comes, and nothing can be said any more."""
    pty = pytest.importorskip("pty")
    log = tmp_path / "log"
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
        words = ["demo", "--output", str(tmp_path / "demo"), "--log", str(log)]
        os.execv(sys.executable, [sys.executable, "-m", "volseg", *words])
    while not log.exists() or "phantoms" not in log.read_text():
        time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert log.read_text().splitlines()[-2].endswith(INTERRUPTED)


def test_the_library_installs_no_handler() -> None:
    program = """
import signal
before = {number: signal.getsignal(number) for number in signal.valid_signals()}
import volseg, volseg.cli
assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    """There a signal without a handler is nothing; `docker stop` sends SIGTERM to it."""
    log = tmp_path / "log"
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("a namespace of processes can only be made by root")
    words = ["-m", "volseg", "demo", "--output", str(tmp_path / "demo"), "--log", str(log)]
    with subprocess.Popen([*unshare, sys.executable, *words], stderr=subprocess.PIPE, text=True) as process:
        while not log.exists() or "phantoms" not in log.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        assert " volseg[1]: " in log.read_text()
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, INTERRUPTED)


def test_a_signal_that_a_destructor_swallows_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    class Torn:
        def __init__(self, tear: Callable[[], object]) -> None:
            self.tear = tear

        def __del__(self) -> None:
            self.tear()

    with ended_by_signals():
        Torn(lambda: signal.raise_signal(signal.SIGTERM))
        assert stop_is_requested()
        Torn(lambda: 1 / 0)
    assert [type(each.exc_value) for each in told] == [ZeroDivisionError]  # type: ignore[attr-defined]
    assert sys.unraisablehook == told.append
