"""A name means one patient for ever: random trees of patients, changed between runs, through every verb.

Each patient's image lies at a place of its own, so that the grid of a mask says whose image it was made from.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import volseg
from volseg.cases import find_dataset, find_images, read_images, read_reference
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, read_volume, write_mask, write_volume
from volseg.io.tables import read_table

#: What some program that reads a table, a configuration or a file name takes for something else.
RESERVED = [
    *("NA", "N/A", "null", "NULL", "None", "nan", "NaN", "NO", "no", "true", "False", "~", "001", "1e5", "-inf"),
    *("CON", "nul", "COM1.x", "aux", "p1 ", " p1", "p1.", "p.1", "-p1", "=1+1", "@x", "#x", "a,b", 'a"b', "a;b"),
    *("a b", "a_b", "a-b", "A_B", "é", "e\u0301", "ß", "SS", "\u017f", "İ", "i\u0307", "李娜", "王伟", "Möller"),
    *("Müller", "مريم", "👩\u200d⚕\ufe0f", "a\nb", "a\tb", "a\u200bb", "a\u202eb", "a:b", "a\\b", "a*b", "a?b"),
    *("<a>", "a|b", "%41", "&amp;", "$HOME", "a'b", "1_000"),
]
_ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12)
#: Names of files and folders; hidden ones are not looked at, and no name may be longer than a file system allows.
NAMES = st.one_of(st.sampled_from(RESERVED), _ANY).filter(lambda name: not name.startswith("."))
PATHS = st.lists(NAMES, min_size=1, max_size=2).map("/".join)
#: Three runs, each over another choice of the patients.
RUNS = st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=3, max_size=3)


def image_of(patient: int) -> tuple[Volume, Mask]:
    """The image and the reference of a patient, at a place that nobody else has."""
    image, mask = make_case(patient)
    affine = image.geometry.affine.copy()
    affine[:3, 3] = [1000 * patient, 0, 0]
    geometry = Geometry(image.geometry.shape, affine)
    return Volume(image.array, geometry), Mask(mask.array, geometry)


def patient_at(geometry: Geometry) -> int:
    """Whose image or mask lies there."""
    patient = round(geometry.affine[0, 3] / 1000)
    assert geometry.matches(image_of(patient)[0].geometry)
    return patient


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def written(root: Path, paths: list[str], patients: set[int], *, masks: bool = False) -> bool:
    """Write the files of some patients below a folder; False where the file system knows no such names."""
    for patient in sorted(patients):
        path = root / f"{paths[patient]}.nii.gz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            image, mask = image_of(patient)
            if masks:
                write_mask(mask, path)
            else:
                write_volume(image, path)
        except (OSError, volseg.OutputError):
            return False
    return True


def check_batch(source: Path, output: Path, seen: dict[str, int]) -> set[str]:
    """Each row tells of the image it names, each mask lies on it, and no id ever changes its patient."""
    table = read_table(output / "cases.csv")
    segmented = table[table["status"] == "segmented"]
    for row in segmented.to_dict("records"):
        patient = patient_at(read_volume(FileSource(output / f"{row['case_id']}.nii.gz")).geometry)
        assert seen.setdefault(row["case_id"], patient) == patient
        original = source / row["source"]
        if original.exists():
            assert patient_at(read_volume(FileSource(original)).geometry) == patient
    assert segmented["case_id"].is_unique
    return set(segmented["case_id"])


@pytest.mark.slow
@given(paths=st.lists(PATHS, min_size=5, max_size=5, unique=True), runs=RUNS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_masks_stay_with_their_images_whoever_comes_and_goes(
    trained_run: Path, paths: list[str], runs: list[set[int]]
) -> None:
    model = volseg.load(trained_run, changes={"inference.backend": "torch"})
    seen: dict[str, int] = {}
    with folder() as root:
        for patients in runs:
            shutil.rmtree(root / "in", ignore_errors=True)
            if not written(root / "in", paths, patients):
                return
            batch = model.predict_folder(root / "in", root / "masks", report=True)
            assert batch.count("failed") == 0
            check_batch(root / "in", root / "masks", seen)
            images = find_images(root / "in")
            for case_id, case in batch.items():
                if case.status == "segmented":
                    assert patient_at(read_volume(images[case_id]).geometry) == seen[case_id]
            reviewed = set(read_table(root / "masks" / "review.csv")["case_id"])
            assert {case_id for case_id, case in batch.items() if case.status == "segmented"} <= reviewed | set()


@pytest.mark.slow
@given(paths=st.lists(NAMES, min_size=5, max_size=5, unique=True), labelled=st.sets(st.integers(0, 4), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_training_pairs_each_image_with_its_own_reference(paths: list[str], labelled: set[int]) -> None:
    with folder() as root:
        everyone = set(range(5))
        if not (written(root / "images", paths, everyone) and written(root / "labels", paths, labelled, masks=True)):
            return
        try:
            dataset = find_dataset(root)
        except volseg.DataError:  # every name meets another one, and that is refused
            return
        for case in dataset.cases:
            image = read_images(case, dataset.channels)
            assert patient_at(read_reference(case, image, ()).geometry) == patient_at(image.geometry)
        places = {source.place for case in dataset.cases for source in case.images.values()}
        assert len(places) + len({item.path for item in dataset.set_aside if "images" in item.path.parts}) >= 5


@pytest.mark.slow
@given(paths=st.lists(NAMES, min_size=5, max_size=5, unique=True), made=st.sets(st.integers(0, 4), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_evaluation_scores_each_mask_against_its_own_reference(paths: list[str], made: set[int]) -> None:
    with folder() as root:
        everyone = set(range(5))
        if not (written(root / "refs", paths, everyone, masks=True) and written(root / "m", paths, made, masks=True)):
            return
        try:
            metrics: pd.DataFrame = volseg.evaluate(root / "m", root / "refs", root / "scores").metrics
        except volseg.DataError:  # every name meets another one, and that is refused
            return
        assert not (metrics["status"] == "failed").any()
        scored = metrics[metrics["status"] == "ok"]
        assert np.allclose(scored["dice"], 1.0)
        again = read_table(root / "scores" / "metrics.csv")
        assert set(again["case_id"]) == set(metrics["case_id"])
