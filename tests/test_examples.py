"""The studies in examples/ run by their one command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent


def retinas(root: Path, count: int) -> Path:
    """Round pictures with dark lines, and who drew them."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels", "labels_second_observer", "roi"):
        (root / name).mkdir(parents=True)
    rows, columns = np.mgrid[:96, :96]
    inside = (rows - 48) ** 2 + (columns - 48) ** 2 < 44**2
    for number in range(count):
        lines = Image.new("L", (96, 96))
        for _ in range(4):
            ImageDraw.Draw(lines).line([tuple(point) for point in rng.integers(0, 96, (2, 2)).tolist()], 255, 3)
        vessels = (np.asarray(lines) > 0) & inside
        colors = rng.normal(140, 6, (96, 96, 3)) - 70.0 * vessels[..., None]
        colors[~inside] = 0
        name = f"eye_{number:02}"
        Image.fromarray(np.clip(colors, 0, 255).astype(np.uint8)).save(root / "images" / f"{name}.jpg")
        for folder, drawn in (("labels", vessels), ("labels_second_observer", np.roll(vessels, 1)), ("roi", inside)):
            Image.fromarray(drawn.astype(np.uint8) * 255).save(root / folder / f"{name}.png")
    return root


@pytest.mark.slow
def test_the_study_of_vessels_ends_with_a_table(tmp_path: Path) -> None:
    data, output = retinas(tmp_path / "data", 7), tmp_path / "study"
    command = [sys.executable, ROOT / "examples" / "vessels" / "study.py", data, "--output", output]
    done = subprocess.run(
        [*command, "--minutes", "0.05", "--held-out", "2"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = (output / "table.md").read_text(encoding="utf-8")
    assert table in done.stdout
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")] == [
        *("variant", "---", "pretrained", "scratch", "plain", "second observer")
    ]
    assert "`plain`: AUC ROC" in table
    with Image.open(output / "errors" / "eye_06_plain.png") as errors:
        assert errors.size == (96, 96)
    again = subprocess.run([*command, "--held-out", "2"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "min" not in again.stderr  # what is finished is not done again
