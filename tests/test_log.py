"""`--log`: one line per record, night after night, in a file that holds nothing else."""

from __future__ import annotations

import inspect
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from conftest import make_case

import volseg.cli as command_line
from volseg.cli.log_file import LogFile
from volseg.cli.verb import READ
from volseg.io import write_volume
from volseg.version import __version__

Volseg = Callable[..., tuple[int, str, str]]

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d (INFO|WARNING|ERROR) volseg\[\d+\]: (.*)")
VERBS = (
    command_line.demo,
    command_line.download,
    command_line.evaluate,
    command_line.export,
    command_line.inspect,
    command_line.plan,
    command_line.predict,
    command_line.report,
    command_line.train,
)
#: Parameters that name a path and nothing that is searched through: outputs, configurations, models and labels.
NOT_SEARCHED = {"output", "config", "model", "labels"}


def records(log: Path) -> list[tuple[str, str]]:
    """Level and message of every line."""
    found = [LINE.fullmatch(line) for line in log.read_bytes().decode().split("\n")[:-1]]
    assert all(found), log.read_text()
    return [(match[1], match[2]) for match in found if match]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A good case and one whose name and content are a problem."""
    write_volume(make_case(0)[0], tmp_path / "scans" / "good.nii.gz")
    (tmp_path / "scans" / "bad\n.nii.gz").write_bytes(b"damaged")
    return tmp_path / "scans"


def test_a_log_has_all_that_is_said(volseg: Volseg, scans: Path, trained_run: Path, tmp_path: Path) -> None:
    log = tmp_path / "night.log"
    words = ("predict", scans, "--model", trained_run, "--output", tmp_path / "masks", "--log", log)
    assert volseg(*words)[0] == 3
    first = records(log)
    messages = [message for _, message in first]
    assert first[0] == ("INFO", f"predict begins: volseg {__version__}")
    assert any(message.startswith("good: ") for message in messages)
    assert any(message.startswith("predict 2/2") for message in messages)
    assert any(level == "WARNING" and message.startswith("failed: bad") for level, message in first)
    assert messages[-2].startswith("1 segmented, 0 skipped, 1 failed of 2 discovered")
    assert first[-1][0] == "WARNING"
    assert re.fullmatch(r"predict ends: exit code 3 after \d+\.\d s", messages[-1])
    code, out, err = volseg(*words)
    again = records(log)
    assert again[: len(first)] == first  # it is appended to
    assert ("INFO", "case good is up to date") in again[len(first) :]  # info of the library, which a terminal lacks
    assert "up to date" not in out + err
    assert (code, volseg(*words[:-2])) == (3, (code, out, err))  # what the terminal shows is the same without


def test_an_error_is_in_the_log_with_its_hint(volseg: Volseg, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code, _, err = volseg("inspect", tmp_path / "nothing", "--log", log)
    assert code == 2
    said = [(level, message) for level, message in records(log) if level == "ERROR"]
    assert [message for _, message in said[:-1]] == [line.rstrip() for line in err.splitlines()]
    assert said[-1][1].startswith("inspect ends: exit code 2 after ")


@pytest.mark.parametrize("content", [b"precious\n", b"2026-01-02 something else\n", b"\xff\x00"])
def test_a_file_that_is_no_log_stays_as_it_is(volseg: Volseg, dataset: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    code, out, err = volseg("inspect", dataset, "--log", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {file} is no log of volseg")
    assert file.read_bytes() == content


def test_places_where_no_log_can_be(volseg: Volseg, dataset: Path, tmp_path: Path) -> None:
    assert "the folder of the log" in refused(volseg, dataset, tmp_path / "no" / "log")
    assert not (tmp_path / "no").exists()
    assert "is no file" in refused(volseg, dataset, tmp_path)
    assert "which is read" in refused(volseg, dataset, dataset / "images" / "night.log")
    (tmp_path / "link").symlink_to(dataset)
    assert "which is read" in refused(volseg, dataset, tmp_path / "link" / "night.log")
    assert not list(dataset.rglob("*.log"))


def refused(volseg: Volseg, dataset: Path, log: Path) -> str:
    code, out, err = volseg("inspect", dataset, "--log", log)
    assert (code, out) == (2, "")
    return err


def test_what_a_verb_reads_is_known_by_the_names_of_its_parameters() -> None:
    for verb in VERBS:
        hints = get_type_hints(verb)
        paths = {name for name in inspect.signature(verb).parameters if "Path" in str(hints[name])}
        assert paths <= READ | NOT_SEARCHED, verb


def test_a_log_that_was_rotated_goes_on(volseg: Volseg, dataset: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    volseg("inspect", dataset, "--log", log)
    whole = log.read_text().splitlines(keepends=True)
    for rest in ("", "".join(whole[1:])):  # emptied, or without its older part
        log.write_text(rest)
        assert volseg("inspect", dataset, "--log", log)[0] == 0
        assert len(records(log)) == len(rest.splitlines()) + len(whole)


def test_a_full_disk_is_told_once_and_tears_nothing(
    tiny_disk: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    filler = tiny_disk / "filler"
    log = LogFile(tiny_disk / "log")
    log.emit(record("before"))
    filler.write_bytes(b"\0" * 56_000)
    for number in range(20):
        log.emit(record(f"{number} " + "x" * 900))
    filler.unlink()
    log.emit(record("after"))
    log.close()
    assert capfd.readouterr().err.count("warning: lines of the log") == 1
    lines = (tiny_disk / "log").read_text().splitlines()
    assert LINE.fullmatch(lines[0])
    assert lines[-1].endswith(": after")
    assert LINE.fullmatch(lines[-1])


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("volseg", logging.INFO, __file__, 0, message, (), None)


APPENDS = """
import logging, sys
from pathlib import Path
from volseg.cli.log_file import LogFile
log = LogFile(Path(sys.argv[1]))
for number in range(2000):
    log.emit(logging.LogRecord("volseg", logging.INFO, "", 0, f"{number} " + "x" * (number % 700), (), None))
"""


def test_two_processes_share_a_log_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writers = [subprocess.Popen([sys.executable, "-c", APPENDS, log]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    numbers: dict[int, list[int]] = {}
    for line in log.read_text().splitlines():
        match = re.fullmatch(r"\S+ INFO volseg\[(\d+)\]: (\d+) (x*)", line)
        assert match, line
        assert len(match[3]) == int(match[2]) % 700
        numbers.setdefault(int(match[1]), []).append(int(match[2]))
    assert list(numbers.values()) == [list(range(2000))] * 2


def test_progress_on_a_terminal_is_a_bar_and_in_the_log_lines(dataset: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    log = tmp_path / "log"
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "volseg", "inspect", dataset, "--log", log]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        shown = b"".join(iter(lambda: read(master), b""))
        assert process.stdout
        process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[" in shown
    assert ("INFO", "inspect 12/12") in records(log)
    assert "\x1b" not in log.read_text()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_a_defect_is_in_the_log(volseg: Volseg, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("volseg.inspection.inspect_folder", defect)
    code, _, err = volseg("inspect", dataset, "--log", tmp_path / "log")
    assert code == 1
    Path(err.split("report it with ")[1].strip()).unlink()
    messages = [message for _, message in records(tmp_path / "log")]
    assert messages[1] == "error: a defect of volseg: ZeroDivisionError: oops"
    assert messages[-1].startswith("inspect ends: exit code 1")
