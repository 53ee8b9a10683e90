"""Planes against volumes: what cross-validation says, and that it can be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import volseg
from volseg.cases.phantoms import write_dataset
from volseg.config import PartialConfig
from volseg.errors import ConfigError, DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io import write_mask, write_volume
from volseg.model.files import CHOICE_FILE, model_files
from volseg.planning.folder import plan_folder
from volseg.training.choice import AVERAGE, _best, _summary, parse_dimensions


def thick(root: Path, spacing_mm: tuple[float, float, float], count: int = 2) -> Path:
    rng = np.random.default_rng(0)
    shape = tuple(int(48 / size) for size in spacing_mm)
    grid = Geometry(shape, np.diag([*spacing_mm, 1.0]))  # type: ignore[arg-type]
    for number in range(count):
        array = rng.normal(100, 10, (1, *shape)).astype(np.float32)
        mask = np.zeros(shape, np.uint8)
        mask[tuple(slice(size // 4, size // 2) for size in shape)] = 1
        array[0] += 60 * mask
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, grid), root / "images" / f"p{number}.nii.gz")
        write_mask(Mask(mask, grid), root / "labels" / f"p{number}.nii.gz")
    return root


@pytest.mark.parametrize(
    ("spacing_mm", "axes"), [((1.0, 1.0, 6.0), "SRA"), ((6.0, 1.0, 1.0), "RAS"), ((1.0, 6.0, 1.0), "ARS")]
)
def test_planes_lie_across_the_coarse_axis(spacing_mm: tuple[float, float, float], axes: str, tmp_path: Path) -> None:
    data = thick(tmp_path, spacing_mm)
    planes = plan_folder(data, PartialConfig.of({"patches": {"planes": True}}))[1]
    assert planes.config.preprocessing.axes == axes
    assert planes.config.patches.size[0] == 1
    assert planes.config.preprocessing.spacing_mm == (None, 1.0, 1.0)
    assert planes.config.patches.size[1:] >= (32, 32)
    volumes = plan_folder(data, PartialConfig())[1]
    assert "--compare 2d,2.5d,3d" in volumes.reasons["patches.size"]
    assert volumes.config.preprocessing.axes == "RAS"


def test_slices_are_planned_with_their_neighbors(tmp_path: Path) -> None:
    data = thick(tmp_path, (1.0, 1.0, 6.0))
    config = plan_folder(data, PartialConfig.of({"network": {"neighbors": 1}}))[1].config
    assert config.patches.planes
    assert config.patches.size[0] == 4
    assert config.network.neighbors == 1
    assert config.preprocessing.spacing_mm == (None, 1.0, 1.0)
    assert all(first == 1 for first, _, _ in config.network.kernels)  # type: ignore[union-attr]  # a DynUNet
    for changes, why in (
        ({"patches": {"size": [2, 32, 32]}}, "hold none with 1 neighbours on either side"),
        ({"patches": {"planes": False}}, "nothing is learned slice by slice"),
        ({"network": {"neighbors": 0}}, "one voxel thick"),
    ):
        with pytest.raises(ConfigError, match=why):
            PartialConfig.of(changes).laid_over(config)


def test_the_best_kind_is_kept_or_the_average_where_it_is_better() -> None:
    def table(planes: float, volumes: float, both: float) -> pd.DataFrame:
        rows = [
            {"case_id": case, "label": "a", "2d": planes + shift, "3d": volumes + shift, AVERAGE: both + shift}
            for case, shift in (("p", 0.0), ("q", 0.02))
        ]
        return pd.DataFrame(rows)

    assert _best(_summary(table(0.8, 0.7, 0.79)), ("2d", "3d")) == ("2d",)
    assert _best(_summary(table(0.6, 0.7, 0.69)), ("2d", "3d")) == ("3d",)
    assert _best(_summary(table(0.6, 0.7, 0.71)), ("2d", "3d")) == ("2d", "3d")
    row = _summary(table(0.8, 0.7, 0.79)).set_index("kind").loc["2d"]
    assert row["dice_mean"] == pytest.approx(0.81)
    assert 0.8 - 1e-9 <= row["low"] <= 0.81 <= row["high"] <= 0.82 + 1e-9


def test_kinds_are_named() -> None:
    assert parse_dimensions("2d, 3D") == ("2d", "3d")
    assert parse_dimensions("2d,2.5d,3d") == ("2d", "2.5d", "3d")
    for words in ("2d", "2d,4d", "3d,3d"):
        with pytest.raises(ConfigError):
            parse_dimensions(words)


def test_a_choice_names_folders_beside_it_and_nothing_else(tmp_path: Path) -> None:
    for name in ("../elsewhere", "/etc", "", ".."):
        (tmp_path / CHOICE_FILE).write_text(json.dumps({"models": [name]}))
        with pytest.raises(DataError, match="names no models"):
            model_files(tmp_path)


@pytest.mark.slow
def test_what_was_chosen_is_a_model(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", 4)
    changes = {"training.steps_per_epoch": 1, "training.folds": 2, "training.workers": 0, "inference.backend": "torch"}
    choice = volseg.choose_dimensions(tmp_path / "data", tmp_path / "runs", epochs=1, changes=changes)
    assert sorted(choice.dice["case_id"].unique()) == [f"phantom_{n:02}" for n in range(1, 5)]
    assert set(choice.dice.columns) == {"case_id", "label", "2d", "3d", AVERAGE}
    assert pd.read_csv(tmp_path / "runs" / "comparison.csv")["2d"].notna().any()
    planes, volumes = (choice.runs[kind] for kind in ("2d", "3d"))
    assert planes.splits == volumes.splits
    assert planes.config.preprocessing.axes == volumes.config.preprocessing.axes
    model = volseg.load(tmp_path / "runs")
    assert len(model.networks) == 2 * len(choice.chosen)
    image = next((tmp_path / "data" / "images").iterdir())
    assert model.predict(image).mask.geometry.shape
