"""A name means one patient, whatever else lies in the folder and whatever letters it is written in."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_dicom import edit, make_volume

from volseg.cases import find_dataset, find_inputs
from volseg.cases.case import names_a_reference, stem
from volseg.cases.case_ids import (
    LONGEST_BYTES,
    case_id_of,
    is_case_id,
    path_name,
    pseudonym,
    same_on_any_disk,
)
from volseg.errors import DataError
from volseg.evaluation.pairing import masks_in, pair_cases
from volseg.exporting.formats import FORMATS, output_path
from volseg.image.geometry import Geometry
from volseg.image.terminology import lookup
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, read_mask, write_mask, write_volume
from volseg.io.dicom import write_series

#: Any text at all, bytes that are no text among it; names of devices, and words that readers of tables and YAML know.
WORDS = ["NA", "null", "None", "nan", "NO", "true", "001", "1e5", "-inf", "~", "CON", "nul.x", "COM1", "lpt¹", "aux"]
WORDS += [".seg", "p.SEG", "x.nii", "a.probabilities", "a ", "a.", "_", "-x", "=1+1", "Müller", "Mu\u0308ller", "李娜"]
NAMES = (
    st.text(max_size=12) | st.sampled_from(WORDS) | st.text(st.characters(categories=["Cs", "Ll", "Mn"]), max_size=9)
)


@given(st.lists(NAMES, min_size=1, max_size=4))
@example(["0\0"])
def test_an_id_is_a_file_name_on_every_system(parts: list[str]) -> None:
    case_id = case_id_of(path_name(parts))
    assert len(case_id.encode()) <= LONGEST_BYTES  # no surrogates either
    assert not set(case_id) & set('<>:"/\\|?*')
    assert all(char.isprintable() for char in case_id)
    assert case_id[0] not in "-. =+@"
    assert case_id[-1] not in ". "
    device = case_id.split(".")[0].strip().lower()
    assert device not in {"con", "prn", "aux", "nul"}
    assert device[:3] not in {"com", "lpt"} or device[3:] not in set("0123456789¹²³")


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_an_id_is_its_own_id_and_knows_no_form_of_accents(parts: list[str]) -> None:
    case_id = case_id_of(path_name(parts))
    assert is_case_id(case_id)
    assert case_id_of(unicodedata.normalize("NFD", case_id)) == case_id
    assert case_id_of(unicodedata.normalize("NFD", path_name(parts))) == case_id


@given(NAMES)
def test_the_name_of_a_written_file_gives_the_id_back(name: str) -> None:
    case_id = case_id_of(path_name([name]))
    for form in FORMATS:
        path = output_path(Path("masks"), case_id, form)
        if form not in {"glb", "overlay", "svg"}:
            assert stem(path) == case_id
        assert len(os.fsencode(path.name)) <= 255 - len(".volseg-part-4194304-")


@given(st.lists(NAMES.filter(lambda name: "/" not in name), min_size=2, max_size=2))
def test_other_names_have_other_ids(names: list[str]) -> None:
    """Names that only a disk without case, or one that stores accents apart, takes for one are refused elsewhere."""
    one, other = (unicodedata.normalize("NFC", name) for name in names)
    assert (case_id_of(one) == case_id_of(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p1", "p1"),
        ("sub/p1", "sub_p1"),
        ("a.b/c-d_e", "a.b_c-d_e"),
        ("scan_0000", "scan_0000"),
        ("ct abdomen (2)", "ct abdomen (2)"),
        ("Jörg/頭部", "Jörg_頭部"),
        ("O'Brien", "O'Brien"),
        ("هدى", "هدى"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_what_is_safe_stays(name: str, expected: str) -> None:
    assert case_id_of(name) == expected


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("10:30", "10_30-"),
        ("a?*b", "a_b-"),
        ("C:\\x", "C_x-"),
        ("con", "_con-"),
        ("Aux.1", "_Aux.1-"),
        ("end.", "end-"),
        ("-rf", "_rf-"),
        ("a\u202egnp", "a_gnp-"),
        ("a\u200bb", "a_b-"),
        ("a\u3164", "a_-"),
        ("a\nb", "a_b-"),
        ("😀", "_-"),
        ("p1.seg", "p1_seg-"),
        ("", "case-"),
    ],
)
def test_what_is_not_safe_is_replaced_and_marked(name: str, begins: str) -> None:
    assert case_id_of(name).startswith(begins)
    assert len(case_id_of(name)) == len(begins) + 8


def test_long_paths_that_begin_alike_stay_apart() -> None:
    deep = "/".join(["1.3.6.1.4.1.14519.5.2.1.6279.6001"] * 9)
    ids = {case_id_of(f"{deep}/{name}") for name in ("a", "b")}
    assert len(ids) == 2
    assert {len(case_id) for case_id in ids} == {LONGEST_BYTES}
    assert len(case_id_of("é" * 150).encode()) <= LONGEST_BYTES


def test_an_id_does_not_depend_on_the_locale(tmp_path: Path) -> None:
    for name in ("Jörg", "李娜"):
        (tmp_path / name).mkdir()
    code = (
        "import sys; from pathlib import Path; from volseg.cases.case_ids import *\n"
        "for p in sorted(Path(sys.argv[1]).iterdir()): print(ascii(case_id_of(path_name([p.name]))))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path], env=os.environ | env, capture_output=True, check=True
        ).stdout.split()
        for env in ({"PYTHONUTF8": "1"}, plain)
    ]
    assert said[0] == said[1] == [b"'J\\xf6rg'", b"'\\u674e\\u5a1c'"]


# Folders

SHAPE = (4, 3, 2)


def grid(number: int) -> Geometry:
    """A grid by which a file can be known again."""
    affine = np.eye(4)
    affine[0, 3] = number
    return Geometry(SHAPE, affine)


def number_of(path: Path) -> int:
    return round(float(read_mask(FileSource(path)).geometry.affine[0, 3]))


def save(path: Path, number: int, *, mask: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full(SHAPE, 1, np.uint8)
    array[0] = 0
    if mask:
        write_mask(Mask(array, grid(number)), path)
    else:
        write_volume(Volume(array[np.newaxis].astype(np.float32), grid(number)), path)


def is_possible(name: str) -> bool:
    """Whether Linux takes a name, and volseg looks at it as at any other: a mask by its name makes a case folder."""
    return bool(name) and name[0] != "." and not set(name) & {"/", "\0"} and not names_a_reference(name)


PARTS = (st.text(max_size=8) | st.sampled_from(WORDS) | st.binary(max_size=6).map(os.fsdecode)).filter(is_possible)
TREES = st.lists(st.lists(PARTS, min_size=1, max_size=2).map(tuple), min_size=2, max_size=5, unique=True)


def plant(root: Path, names: list[tuple[str, ...]], *, mask: bool) -> None:
    for number, parts in enumerate(names):
        save(root.joinpath(*parts[:-1], f"{parts[-1]}.nii"), number, mask=mask)


def by_id(root: Path) -> dict[str, int]:
    """Case id -> the number of its image."""
    return {case.case_id: number_of(case.image.place) for case in find_inputs(root, ("image",)).cases}


@settings(max_examples=20)
@given(names=TREES)
def test_neighbours_change_no_name(names: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> None:
    together = tmp_path_factory.mktemp("together")
    plant(together, names, mask=False)
    found = by_id(together)
    ids = [case_id_of(path_name(parts)) for parts in names]
    keys = [same_on_any_disk(case_id) for case_id in ids]
    for number, (case_id, parts) in enumerate(zip(ids, names, strict=True)):
        alone = tmp_path_factory.mktemp("alone")
        save(alone.joinpath(*parts[:-1], f"{parts[-1]}.nii"), number, mask=False)
        mine = by_id(alone)
        if keys.count(keys[number]) > 1:
            assert case_id not in found
        else:
            assert mine == {case_id: number}
            assert found[case_id] == number


@settings(max_examples=20)
@given(names=TREES)
def test_every_mask_is_scored_against_its_own_reference(
    names: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Masks are called by ids; references by the names that people gave, unless it is that of a structure beside it."""
    assume(not any(lookup(parts[-1]) for parts in names))
    root = tmp_path_factory.mktemp("scored")
    plant(root / "references", names, mask=True)
    ids = [case_id_of(path_name(parts)) for parts in names]
    for number, case_id in enumerate(ids):
        if ids.count(case_id) == 1:
            save(output_path(root / "masks", case_id, "nifti"), number)
    if len(set(ids)) < len(ids):
        return
    assert set(masks_in(root / "masks")) == set(ids)
    pairs = pair_cases(root / "masks", root / "references", only_predicted=False).pairs
    assert {pair.case_id for pair in pairs} == set(ids)
    for pair in pairs:
        assert pair.prediction is not None
        assert number_of(pair.prediction.place) == number_of(pair.reference.place) == ids.index(pair.case_id)


@settings(max_examples=20)
@given(names=TREES, data=st.data())
def test_images_are_taught_with_their_own_labels(
    names: list[tuple[str, ...]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("taught")
    plant(root / "images", names, mask=False)
    plant(root / "labels", names, mask=True)
    for number in data.draw(st.sets(st.integers(0, len(names) - 1))):
        root.joinpath("labels", *names[number][:-1], f"{names[number][-1]}.nii").unlink()
    try:
        cases = find_dataset(root).cases
    except DataError as error:
        assert "holds no labelled case" in str(error)  # noqa: PT017  all were refused, or have no label
        return
    for case in cases:
        assert case.reference is not None
        assert number_of(case.image.place) == number_of(case.reference.place)


@pytest.mark.parametrize(
    "paths",
    [
        ("a/b_c.nii", "a_b/c.nii"),
        ("anna.nii", "Anna.nii"),
        ("Mu\u0308ller.nii", "Müller.nii"),
        ("straße.nii", "STRASSE.nii"),
        ("p.nii", "p.nrrd"),
    ],
)
def test_equal_names_are_refused_all_of_them(paths: tuple[str, str], tmp_path: Path) -> None:
    for number, path in enumerate((*paths, "other.nii")):
        save(tmp_path / path, number, mask=False)
    dataset = find_inputs(tmp_path, ("image",))
    assert [case.case_id for case in dataset.cases] == ["other"]
    assert {item.path for item in dataset.set_aside} == {tmp_path / path for path in paths}
    assert all("rename them" in item.reason for item in dataset.set_aside)


def test_equal_names_of_labels_teach_nobody(tmp_path: Path) -> None:
    for folder, names in (("images", ["a_b.nii", "c.nii"]), ("labels", ["a/b.nii", "a_b.nii", "c.nii"])):
        for number, name in enumerate(names):
            save(tmp_path / folder / name, number, mask=folder == "labels")
    dataset = find_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["c"]
    assert len(dataset.set_aside) == 3


# DICOM


def series(folder: Path, first: int, *, study: str, uid: str, slices: int = 5) -> None:
    """A series whose files lie beside others in one folder."""
    for path in write_series(make_volume(shape=(9, 8, slices), seed=first), folder.parent / "made"):
        edit(path, StudyInstanceUID=study, SeriesInstanceUID=uid, SeriesNumber=first)
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{first}-{path.name}")


def test_the_series_of_one_study_are_called_by_their_folder(tmp_path: Path) -> None:
    series(tmp_path / "in/flat", 1, study="1.2", uid="1.2.1")
    series(tmp_path / "in/flat", 2, study="1.2", uid="1.2.2", slices=9)
    (case,) = find_inputs(tmp_path / "in", ("image",)).cases
    assert case.case_id == "flat"
    assert case.image.series_uid == "1.2.2"  # type: ignore[union-attr]


def test_patients_in_one_folder_are_called_by_their_own_series(tmp_path: Path) -> None:
    series(tmp_path / "in/flat", 2, study="1.2", uid="1.2.7")
    series(tmp_path / "in/flat", 3, study="1.3", uid="1.3.7")
    before = find_inputs(tmp_path / "in", ("image",)).cases
    series(tmp_path / "in/flat", 1, study="1.1", uid="1.1.7")  # sorts before the others
    after = find_inputs(tmp_path / "in", ("image",)).cases
    names = [{case.image.series_uid: case.case_id for case in cases} for cases in (before, after)]  # type: ignore[union-attr]
    assert names[0].items() < names[1].items()
    assert set(names[1]) == {"1.1.7", "1.2.7", "1.3.7"}
    assert all(name.startswith("flat-") for name in names[1].values())


def test_cases_may_be_called_by_series_or_by_a_pseudonym(tmp_path: Path) -> None:
    series(tmp_path / "in/flat", 1, study="1.2", uid="1.2.1")
    save(tmp_path / "in/sub/p.nii", 0, mask=False)
    by_series = find_inputs(tmp_path / "in", ("image",), naming="series").cases
    by_hash = find_inputs(tmp_path / "in", ("image",), naming="hash").cases
    assert {case.case_id for case in by_series} == {"1.2.1", "sub_p"}
    assert {case.case_id for case in by_hash} == {pseudonym("1.2.1"), pseudonym("sub/p")}
