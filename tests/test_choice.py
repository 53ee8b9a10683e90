"""Planes against volumes: what cross-validation says, and that it can be used."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TINY

import volseg
from volseg.cases import Case, Split
from volseg.cases.phantoms import write_dataset
from volseg.config import Config, PartialConfig
from volseg.errors import ConfigError, DataError, OutputExistsError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, write_mask, write_volume
from volseg.model.files import CHOICE_FILE, model_files
from volseg.planning.folder import plan_folder
from volseg.training.choice import AVERAGE, _best, _dice_of, _in_time, _keys_of, _summary, _unseen_by, parse_dimensions


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
        ({"patches": {"size": [2, 32, 32]}}, "too thin for 1 neighbours on either side"),
        ({"patches": {"planes": False}}, "does not learn slice by slice"),
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
    assert parse_dimensions("3d,2d") == ("2d", "3d"), "planes come first, whose axes hold for all"
    for words in ("2d", "2d,4d", "3d,3d"):
        with pytest.raises(ConfigError):
            parse_dimensions(words)


def test_a_choice_names_folders_beside_it_and_nothing_else(tmp_path: Path) -> None:
    for name in ("../elsewhere", "/etc", "", ".."):
        (tmp_path / CHOICE_FILE).write_text(json.dumps({"models": [name]}))
        with pytest.raises(DataError, match="names no models"):
            model_files(tmp_path)


def test_each_kind_has_its_keys_and_its_part_of_the_time() -> None:
    given = PartialConfig.of({"training": {"minutes": 120.0}, "data": {"labels": {"a": 1}}})
    keys = {kind: _keys_of(kind, given, 3, "SRA") for kind in ("2d", "2.5d", "3d")}
    assert all(each["training"] == {"fold": "all", "minutes": pytest.approx(0.8 * 40)} for each in keys.values())
    assert [each["patches"] for each in keys.values()] == [{"planes": True}, {"planes": True}, {"planes": False}]


@pytest.mark.parametrize("key", ["training.fold=0", "patches.planes=true", "network.neighbors=2"])
def test_what_is_compared_cannot_be_given(key: str, tmp_path: Path) -> None:
    name, _, value = key.partition("=")
    with pytest.raises(ConfigError, match=f"{name} is decided by the comparison"):
        volseg.choose_dimensions(thick(tmp_path / "data", (1.0, 1.0, 6.0)), tmp_path / "runs", changes={name: value})
    assert not (tmp_path / "runs").exists()


def test_a_table_of_the_users_stays_and_is_found_at_once(tmp_path: Path) -> None:
    data = thick(tmp_path / "data", (1.0, 1.0, 6.0))
    table = tmp_path / "runs" / "comparison.csv"
    table.parent.mkdir()
    table.write_text("mine")
    with pytest.raises(OutputExistsError):
        volseg.choose_dimensions(data, tmp_path / "runs")
    assert [path.name for path in table.parent.iterdir()] == ["comparison.csv"]
    assert table.read_text() == "mine"


class Says:
    """A predictor that says what it is given."""

    def __init__(self, array: np.ndarray, geometry: Geometry) -> None:
        self.mask = Mask(array, geometry)

    def prepare(self, _: Case) -> Says:
        return self

    def segment(self, _: Says) -> Says:
        return self


def dice_of(root: Path, drawn: np.ndarray, said: np.ndarray, annotated: set[str] | None = None, **data: Any) -> dict:
    """What a comparison makes of an answer, by label."""
    grid = Geometry(drawn.shape, np.eye(4))
    write_volume(Volume(np.arange(drawn.size, dtype=np.float32).reshape(1, *drawn.shape), grid), root / "image.nii.gz")
    write_mask(Mask(drawn, grid), root / "drawn.nii.gz")
    region = None
    if "roi" in data:
        inside = np.zeros(drawn.shape, np.uint8)
        inside[:4] = 1
        write_mask(Mask(inside, grid), root / "inside.nii.gz")
        region = FileSource(root / "inside.nii.gz")
    case = Case(
        "p",
        {"image": FileSource(root / "image.nii.gz")},
        FileSource(root / "drawn.nii.gz"),
        None if annotated is None else frozenset(annotated),
        region,
    )
    preprocessing = {"spacing_mm": [1, 1, 1], "normalization": [{"method": "none"}]}
    config = Config.model_validate({**TINY, "preprocessing": preprocessing, "data": data})
    return {row["label"]: row["3d"] for row in _dice_of(case, {"3d": Says(said, grid)}, config)}  # type: ignore[dict-item]


def blocks(*values: int) -> np.ndarray:
    """(8, 4, 4) with a slice of each value."""
    return np.repeat(np.array([*values, *[0] * (8 - len(values))], np.uint8), 16).reshape(8, 4, 4)


def test_a_comparison_counts_what_the_reference_says(tmp_path: Path) -> None:
    labels = {"a": 1, "b": 2}
    assert dice_of(tmp_path, blocks(1, 1, 2), blocks(1, 0, 2), labels=labels) == {"a": pytest.approx(2 / 3), "b": 1}
    ignoring = {**labels, "ignore": 9}
    assert dice_of(tmp_path, blocks(1, 9, 2), blocks(1, 1, 2), labels=ignoring) == {"a": 1, "b": 1}
    outside = dice_of(tmp_path, blocks(1, 0, 0, 0, 1, 1), blocks(1), labels={"a": 1}, roi="inside")
    assert outside == {"a": 1}
    partly = dice_of(tmp_path, blocks(1), blocks(1, 2), {"a"}, labels=labels)
    assert partly == {"a": 1, "b": pytest.approx(np.nan, nan_ok=True)}


def test_a_region_is_what_lies_within_it(tmp_path: Path) -> None:
    regions = [{"name": "whole", "labels": [1, 2], "value": 1}, {"name": "core", "labels": [2], "value": 2}]
    found = dice_of(tmp_path, blocks(1, 1, 2), blocks(1, 1, 2), labels={"edge": 1, "inner": 2}, regions=regions)
    assert found == {"whole": 1, "core": 1}


def test_cases_are_judged_by_networks_that_never_saw_them() -> None:
    """Also where the folds of the kinds differ, since one could not prepare a case."""
    runs = {
        "2d": SimpleNamespace(splits=(Split(("b", "c"), ("a", "d")), Split(("a", "d"), ("b", "c")))),
        "3d": SimpleNamespace(splits=(Split(("b",), ("a", "c")), Split(("a", "c"), ("b",)))),
    }
    unseen = _unseen_by(runs)  # type: ignore[arg-type]
    assert unseen == {(0, 0): ["a"], (1, 1): ["b"], (1, 0): ["c"]}


def test_cases_are_judged_as_long_as_there_is_time_for_one_more() -> None:
    def judged(seconds: float, each_takes: float) -> list[str]:
        found = []
        for case_id in _in_time(["a", "b", "c", "d"], seconds):
            found.append(case_id)
            time.sleep(each_takes)
        return found

    assert judged(-1, 0) == ["a"], "one of every fold"
    assert judged(math.inf, 0) == ["a", "b", "c", "d"]
    assert judged(0.25, 0.1) == ["a", "b"]


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
