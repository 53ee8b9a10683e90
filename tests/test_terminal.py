"""The command line on a terminal, which is a pseudo-terminal of a given width."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import TINY

pty = pytest.importorskip("pty")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

Volseg = Callable[..., tuple[int, str, str]]

#: Colours, movements of the cursor, and what hides it.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Sequences that move the cursor or erase.
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJK]")
TRAIN = ("--set", "training.epochs=3")


def on_terminal(*words: object, columns: int = 80, stdout: Path | None = None) -> str:
    """Run volseg on a terminal, with the standard output there too or in a file; return what the terminal got."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    command = [sys.executable, "-m", "volseg", *map(str, words)]
    with Path(stdout or os.devnull).open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file if stdout else slave, stderr=slave, env={**environment, "TERM": "xterm"}
        )
        os.close(slave)
        got = b"".join(iter(lambda: _read(master), b""))
        code = process.wait()
    os.close(master)
    text = got.decode().replace("\r\n", "\n")
    assert code == 0, text
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def lines_of(shown: str) -> list[str]:
    """Every line that was there at some time, the frames of the bar included."""
    moved = CURSOR.sub("\n", shown)  # what is written after the cursor moved is another line
    return [line.rstrip() for line in re.split(r"[\r\n]", ESCAPES.sub("", moved)) if line.strip()]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config file for trainings that take seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_training_shows_a_bar_with_one_remaining_time_and_whole_lines_above_it(
    dataset: Path, tiny: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shown = on_terminal("train", dataset, "-o", run, "--config", tiny, *TRAIN)
    lines = lines_of(shown)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80  # paths are not broken
    assert any(re.search(r"^epoch \d, step \d+, loss .* left$", line) for line in lines)  # the note below the bar
    bars = [line for line in lines if line.startswith("train ") and "%" in line]
    assert bars
    assert not [line for line in bars if "left" in line]  # it stands in the note alone
    log = (run / "train.log").read_text().splitlines()
    told = [line.split(" ", 1)[1] for line in log]
    assert [line.split()[0] for line in told] == ["started", "epoch", "epoch", "epoch", "finished"]
    assert set(told) <= set(lines)
    assert re.search(r"^train 100%, \d+:\d\d:\d\d$", "\n".join(lines), flags=re.MULTILINE)
    assert re.search(r"^validate 2/2, ", "\n".join(lines), flags=re.MULTILINE)


def test_results_in_a_file_are_not_on_the_terminal(dataset: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    shown = on_terminal(
        "train", dataset, "--output", tmp_path / "run", "--config", tiny, *TRAIN, "--show-epochs", stdout=out
    )
    written = out.read_text().splitlines()
    assert [line[:8] for line in written if line.startswith("epoch ")] == ["epoch 1:", "epoch 2:", "epoch 3:"]
    assert "epoch 1:" not in shown
    assert not [line for line in lines_of(shown) if re.match(r"epoch 1, step \d+: ", line)]  # one form is enough


def test_tables_fit_a_terminal_and_are_whole_elsewhere(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    volseg("predict", dataset, "--model", trained_run, "--output", masks)
    narrow, wide = (
        lines_of(on_terminal("evaluate", masks, dataset / "labels", "-o", tmp_path / f"{n}", columns=n))
        for n in (80, 120)
    )
    assert max(map(len, narrow)) <= 80
    assert max(map(len, wide)) <= 120
    (row,) = [line for line in narrow if line.startswith("label_1 ")]
    summary = pd.read_csv(tmp_path / "80" / "summary.csv").set_index("label").loc["label_1"]
    assert f"{summary['dice_mean']:.4g}" in row.split()
    assert f"{summary['nsd_mean']:.4g}" in row.split()
    _, out, _ = volseg("evaluate", masks, dataset / "labels", "--output", tmp_path / "piped")
    assert out.splitlines()[0].split() == [
        *("label", "scored", "missed", "false_alarm", "absent", "not_predicted", "failed"),
        *("dice_mean", "hd95_mm_mean", "assd_mm_mean", "nsd_mean"),
    ]


@pytest.mark.parametrize("columns", [80, 100])
def test_long_messages_break_between_words(tmp_path: Path, trained_run: Path, columns: int) -> None:
    shown = on_terminal("convert", trained_run, "--to", "bundle", "-o", tmp_path / "bundle", columns=columns)
    lines = lines_of(shown)
    assert "    python -m monai.bundle run --config_file configs/inference.json" in lines
