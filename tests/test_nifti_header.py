"""NIfTI headers that state twice where their voxels lie."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from conftest import rotation
from hypothesis import given, settings
from hypothesis import strategies as st

import volseg
from volseg.cases import find_dataset, find_inputs
from volseg.cli.options import changes_of
from volseg.config import AS_STATED, DicomRules, FileRules, GeometryChoice, PartialConfig, ReadingRules
from volseg.errors import ConfigError, DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask
from volseg.io import FileSource, discover, header_remark, read_mask, read_volume, single_source, write_mask
from volseg.io.in_memory import volume_of
from volseg.io.nifti import write_probabilities
from volseg.io.source import digest

SHAPE = (7, 6, 5)
CHOICES: tuple[GeometryChoice, ...] = ("sform", "qform", "pixdim")


def affine_of(
    direction: np.ndarray | None = None,
    spacing_mm: tuple[float, ...] = (1.2, 1.2, 3.0),
    origin_mm: tuple[float, ...] = (-20.0, 30.0, 40.0),
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if direction is None else direction) * spacing_mm
    affine[:3, 3] = origin_mm
    return affine


PLAIN = affine_of(rotation(2, 20) @ rotation(0, 5))


def save(
    path: Path,
    sform: np.ndarray = PLAIN,
    qform: np.ndarray = PLAIN,
    codes: tuple[int, int] = (1, 1),
    *,
    shape: tuple[int, ...] = SHAPE,
    pixdim: dict[int, float] | None = None,
    kind: type = nib.Nifti1Image,
    **fields: object,
) -> FileSource:
    """An image with both transforms; single fields are written as they are given, whatever nibabel thinks of them."""
    array = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    image = kind(array, None)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1], strip_shears=True)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    header = image.header_class.from_fileobj(BytesIO(content), check=False)  # nibabel would mend it
    for axis, size in (pixdim or {}).items():
        header["pixdim"][axis] = size
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + content[len(header.binaryblock) :]
    path.write_bytes(gzip.compress(content) if packed else content)
    return FileSource(path)


def with_choice(source: FileSource, choice: GeometryChoice | None) -> FileSource:
    return FileSource(source.path, rules=FileRules(geometry=choice))


def refused(source: FileSource) -> GeometryError:
    with pytest.raises(GeometryError) as caught:
        read_volume(source)
    assert str(source.path) in str(caught.value)
    assert caught.value.hint
    return caught.value


def moved(affine: np.ndarray, *offset_mm: float) -> np.ndarray:
    other = affine.copy()
    other[:3, 3] += offset_mm
    return other


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = rotation(2, degrees)
    return turn @ affine


# Headers that say one thing


@settings(max_examples=150)
@given(st.data())
def test_rounding_is_no_contradiction(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    # Near half a turn a quaternion in float32 is at its worst: the angle is known to 0.0007 only.
    angles = st.one_of(st.floats(-180, 180), st.sampled_from([0, 90, 180, 179.99, -179.97]))
    direction = rotation(0, data.draw(angles)) @ rotation(1, data.draw(angles)) @ rotation(2, data.draw(angles))
    flip = np.diag([1, 1, data.draw(st.sampled_from([1, -1]))])
    spacing = data.draw(st.tuples(*[st.floats(0.2, 10)] * 3))
    affine = affine_of(direction @ flip, spacing, data.draw(st.tuples(*[st.floats(-1500, 1500)] * 3)))
    shape = data.draw(st.sampled_from([SHAPE, (200, 1, 1), (2, 120, 3)]))
    kind = data.draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
    source = save(tmp_path_factory.mktemp("rounding") / "a.nii", affine, affine, shape=shape, kind=kind)
    assert header_remark(source) == ""
    expected = read_volume(source).geometry
    assert expected.distance_mm(Geometry(shape, affine)) < 1e-2
    np.testing.assert_array_equal(expected.affine, nib.load(source.path).header.get_sform())
    for choice in CHOICES:
        assert header_remark(with_choice(source, choice)) == ""
    assert np.array_equal(read_volume(with_choice(source, "pixdim")).geometry.affine, expected.affine)


@pytest.mark.parametrize(
    ("codes", "fields"),
    [
        ((1, 0), {"quatern_b": 0.5, "quatern_c": 0.5, "qoffset_x": 99}),  # a qform that is not set says nothing
        ((0, 1), {"srow_x": (9, 9, 9, 9)}),  # nor does such an sform
        ((2, 0), {"quatern_b": np.nan}),
        ((1, 1), {"xyzt_units": 0}),
        ((1, 1), {"xyzt_units": 2 | 8}),
        ((1, 1), {"pixdim": {4: 0.0}}),
        ((1, 1), {"pixdim": {4: -3.0, 5: np.nan}}),
        ((1, 1), {"pixdim": {0: 0.0}}),  # qfac of 0 is 1
    ],
)
def test_what_is_not_set_contradicts_nothing(codes: tuple[int, int], fields: dict[str, object], tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii", codes=codes, **fields)  # type: ignore[arg-type]
    assert header_remark(source) == ""
    assert read_volume(source).geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5, 1), (7, 6, 1)])
def test_axes_that_a_file_has_not_have_no_size(shape: tuple[int, ...], tmp_path: Path) -> None:
    for size in (1.0, 0.0) if len(shape) == 2 else (3.0,):
        source = save(tmp_path / "a.nii", shape=shape, pixdim={3: size})
        assert header_remark(source) == ""
    assert read_volume(source).geometry.spacing_mm == pytest.approx((1.2, 1.2, 3.0), rel=1e-6)
    thick = save(tmp_path / "b.nii", shape=(7, 6, 1), pixdim={3: 1.0})  # here it is the thickness of the slice
    assert "1.2 x 1.2 x 3 mm by the sform, but 1.2 x 1.2 x 1 mm by pixdim" in str(refused(thick))


def test_a_header_and_its_voxels_apart(tmp_path: Path) -> None:
    source = save(tmp_path / "a.hdr", kind=nib.Nifti1Pair, pixdim={1: 2.4})
    assert "1.2 x 1.2 x 3 mm by the sform, but 2.4 x 1.2 x 3 mm" in str(refused(source))
    assert read_volume(with_choice(source, "sform")).geometry.spacing_mm[0] == pytest.approx(1.2)


# Voxel sizes


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 0), (2, 0), (4, 1), (1, 1)])
def test_other_sizes_are_refused_with_both_and_the_ways_out(codes: tuple[int, int], kind: type, tmp_path: Path) -> None:
    sform, qform = np.diag([-1.0, -1, 1, 1]), np.diag([-1.5, -1.5, 10, 1])
    source = save(tmp_path / "a.nii.gz", sform, qform, codes, pixdim={1: 1.5, 2: 1.5, 3: 10}, kind=kind)
    error = refused(source)
    assert "its voxels are 1 x 1 x 1 mm by the sform, but 1.5 x 1.5 x 10 mm by pixdim" in str(error)
    ways = "sform or qform or pixdim" if codes[1] else "sform or pixdim"
    assert error.hint.endswith(f"--geometry or data.geometry: {ways}")
    by_sform, by_pixdim = (read_volume(with_choice(source, way)).geometry for way in ("sform", "pixdim"))
    assert by_sform.spacing_mm == (1, 1, 1)
    assert by_pixdim.spacing_mm == pytest.approx((1.5, 1.5, 10))
    assert by_pixdim.axis_codes == by_sform.axis_codes == "LPS"
    np.testing.assert_array_equal(by_pixdim.world((0, 0, 0)), by_sform.world((0, 0, 0)))  # the first voxel stays
    if codes[1]:
        assert read_volume(with_choice(source, "qform")).geometry.distance_mm(by_pixdim) < 1e-4
    else:
        refused(with_choice(source, "qform"))  # is not set, so it decides nothing


@pytest.mark.parametrize(("change", "same"), [(3e-7, True), (5e-5, True), (1.5e-4, False), (-0.01, False)])
def test_how_much_sizes_may_differ(change: float, same: bool, tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii", codes=(1, 0), pixdim={3: 3 * (1 + change)})
    if same:
        assert header_remark(source) == ""
    else:
        assert "by pixdim" in str(refused(source))


@pytest.mark.parametrize("size", [0.0, -3.0, np.nan, np.inf])
def test_sizes_that_are_none_leave_the_sform_alone(size: float, tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii", codes=(1, 0), pixdim={3: size})
    assert read_volume(source).geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4
    assert "its voxel sizes are" in header_remark(source)
    alone = save(tmp_path / "b.nii", codes=(0, 1), pixdim={3: size})
    assert "its voxel sizes are" in str(refused(alone))


def test_a_negative_size_is_still_a_size(tmp_path: Path) -> None:
    error = refused(save(tmp_path / "a.nii", codes=(1, 0), pixdim={3: -10.0}))
    assert "1.2 x 1.2 x 10 mm by pixdim" in str(error)


# Transforms


@pytest.mark.parametrize(
    ("qform", "distance", "sides"),
    [
        (moved(PLAIN, 15, 0, 0), "15 mm apart", ""),
        (moved(PLAIN, 0, 0, 0.1), "0.1 mm apart", ""),  # a twelfth of a voxel
        (np.diag([-1.0, 1, 1, 1]) @ PLAIN, "mm apart", "(RAS and LAS)"),
        (turned(PLAIN, 3), "mm apart", ""),
        (turned(PLAIN, 180), "mm apart", "(RAS and LPS)"),
    ],
)
def test_two_places_in_one_space_are_refused(qform: np.ndarray, distance: str, sides: str, tmp_path: Path) -> None:
    for code, space in ((1, "scanner"), (4, "MNI")):
        source = save(tmp_path / "a.nii.gz", PLAIN, qform, (code, code))
        error = refused(source)
        assert f"both set for the same space ({space}), but lie up to" in str(error)
        assert distance in str(error)
        assert sides in str(error)
        assert error.hint.endswith("sform or qform")
        for way, affine in (("sform", PLAIN), ("qform", qform)):
            chosen = with_choice(source, way)  # type: ignore[arg-type]
            assert read_volume(chosen).geometry.distance_mm(Geometry(SHAPE, affine)) < 1e-4
            assert "as chosen" in header_remark(chosen)
        refused(with_choice(source, "pixdim"))  # sizes are not what they differ in


def test_a_twentieth_of_a_voxel_is_the_same_place(tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii", PLAIN, moved(PLAIN, 0, 0.05, 0))
    assert header_remark(source) == ""


@pytest.mark.parametrize("codes", [(4, 1), (1, 2), (2, 1), (5, 1)])
def test_two_places_in_two_spaces_are_told(
    codes: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = save(tmp_path / "a.nii.gz", PLAIN, moved(turned(PLAIN, 8), 3, 0, 0), codes)
    assert read_volume(source).geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4
    assert "disagree: they lie up to" in caplog.text
    assert "; the sform is used" in caplog.text
    (item,) = volseg.inspect(source.path)
    assert item.status == "odd"
    assert "sform (" in item.remark
    assert "qform (" in item.remark


@pytest.mark.parametrize("codes", [(1, 1), (2, 1)])
@pytest.mark.parametrize("angle", [0.2, 5, 20])
@pytest.mark.parametrize("upright", [False, True])
def test_a_shear_is_not_held_against_a_qform(
    codes: tuple[int, int], angle: float, upright: bool, tmp_path: Path
) -> None:
    sheared = PLAIN.copy()
    tilt = rotation(0, angle) @ (PLAIN[:3, 2] / 3)  # slices are stacked along a tilted axis
    sheared[:3, 2] = tilt * (3 / np.cos(np.deg2rad(angle)) if upright else 3)
    source = save(tmp_path / "a.nii.gz", sheared, PLAIN, codes)
    assert read_volume(source).geometry.distance_mm(Geometry(SHAPE, sheared)) < 1e-4
    assert ("as the sform is sheared" in header_remark(source)) is (angle > 1)
    refused(save(tmp_path / "b.nii.gz", sheared, moved(PLAIN, 2, 0, 0), (1, 1)))
    refused(save(tmp_path / "c.nii.gz", sheared, turned(PLAIN, 25), (1, 1)))


# Broken ones


def test_an_sform_of_zeros_gives_way_to_a_good_qform(tmp_path: Path) -> None:
    zeros = {f"srow_{axis}": (0, 0, 0, 0) for axis in "xyz"}
    source = save(tmp_path / "a.nii.gz", **zeros)  # type: ignore[arg-type]
    error = refused(source)
    assert "its sform is set, but" in str(error)
    assert error.hint.endswith(": qform")
    assert read_volume(with_choice(source, "qform")).geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4
    alone = save(tmp_path / "b.nii.gz", codes=(1, 0), **zeros)  # type: ignore[arg-type]
    assert refused(alone).hint == "set sform or qform from the source of the image"


@pytest.mark.parametrize("fields", [{"quatern_b": 2.0}, {"quatern_c": np.nan}, {"pixdim": {0: -2.0}}])
def test_a_broken_qform_gives_way_to_a_good_sform(fields: dict[str, object], tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii", **fields)  # type: ignore[arg-type]
    assert refused(source).hint.endswith(": sform")
    assert read_volume(with_choice(source, "sform")).geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4
    other = save(tmp_path / "b.nii", codes=(2, 1), **fields)  # type: ignore[arg-type]
    assert "its qform is not a rotation" in header_remark(other)
    alone = save(tmp_path / "c.nii", codes=(0, 1), **fields)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"c\.nii"):
        read_volume(alone)


# Masks


def itk_place(path: Path) -> np.ndarray | None:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    return np.array([*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()])


SHEARED = PLAIN.copy()
SHEARED[:3, 2] += 0.1 * SHEARED[:3, 1]
IMAGES: dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int], dict[int, float], GeometryChoice | None]] = {
    "plain": (PLAIN, PLAIN, (1, 1), {}, None),
    "MNI": (turned(PLAIN, 8), PLAIN, (4, 1), {}, None),
    "first alone": (PLAIN, PLAIN, (0, 1), {}, None),
    "second alone": (PLAIN, PLAIN, (2, 0), {}, None),
    "sheared": (SHEARED, PLAIN, (1, 1), {}, None),
    "sheared, no qform": (SHEARED, PLAIN, (1, 0), {}, None),
    "moved, by the sform": (PLAIN, moved(PLAIN, 9, 0, 0), (1, 1), {}, "sform"),
    "moved, by the qform": (PLAIN, moved(PLAIN, 9, 0, 0), (1, 1), {}, "qform"),
    "sizes, by the sform": (PLAIN, PLAIN, (1, 0), {3: 10.0}, "sform"),
    "sizes, by pixdim": (PLAIN, PLAIN, (1, 0), {3: 10.0}, "pixdim"),
    "no size": (PLAIN, PLAIN, (1, 0), {3: 0.0}, None),
    "mirrored": (PLAIN @ np.diag([1, 1, -1, 1]), PLAIN @ np.diag([1, 1, -1, 1]), (2, 2), {}, None),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_lies_on_its_image_in_every_reader(name: str, kind: type, tmp_path: Path) -> None:
    sform, qform, codes, pixdim, choice = IMAGES[name]
    source = with_choice(save(tmp_path / "a.nii.gz", sform, qform, codes, pixdim=pixdim, kind=kind), choice)
    geometry = read_volume(source).geometry
    mask = Mask(np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8), geometry)
    path = tmp_path / "mask.nii.gz"
    write_mask(mask, path, source)
    again = read_mask(FileSource(path, rules=FileRules(geometry=choice)))
    assert again.geometry.distance_mm(geometry) < 1e-4
    assert np.array_equal(again.array, mask.array)
    one, other = nib.load(source.path), nib.load(path)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    for get in ("get_sform", "get_qform"):
        (affine, code), (its_affine, its_code) = (getattr(each.header, get)(coded=True) for each in (one, other))
        assert code == its_code
        assert (affine is None) == (its_affine is None)
        if affine is not None:
            np.testing.assert_allclose(affine, its_affine, atol=1e-5)
    assert other.header.get_intent()[0] == "label"
    if kind is nib.Nifti1Image and (expected := itk_place(source.path)) is not None:  # ITK reads no NIfTI-2
        np.testing.assert_allclose(itk_place(path), expected, atol=1e-5)
    write_probabilities(np.zeros((*SHAPE, 2), np.uint8), geometry, tmp_path / "likely.nii.gz", source)
    np.testing.assert_array_equal(nib.load(tmp_path / "likely.nii.gz").affine, other.affine)


@pytest.mark.parametrize(
    ("affine", "codes", "told"),
    [(SHEARED, None, True), (SHEARED, (1, 0), True), (SHEARED, (1, 1), False), (PLAIN, None, False)],
    ids=["sheared", "as its image is", "sheared beside a qform", "at right angles"],
)
def test_a_mask_that_viewers_do_not_open_is_told(
    affine: np.ndarray, codes: tuple[int, int] | None, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    geometry = Geometry(SHAPE, affine)
    source = save(tmp_path / "a.nii.gz", affine, PLAIN, codes) if codes else None
    path = tmp_path / "mask.nii.gz"
    mask = Mask(np.ones(SHAPE, np.uint8), geometry)
    with caplog.at_level("WARNING", logger="volseg"):
        write_mask(mask, path, source)
        write_mask(mask, tmp_path / "mask.nrrd", source)
    said = [record.getMessage() for record in caplog.records if "sheared grid" in record.getMessage()]
    assert len(said) == told
    assert all(str(path) in text and "--format nrrd" in text for text in said)
    assert (itk_place(path) is None) is told
    assert itk_place(tmp_path / "mask.nrrd") is not None
    assert read_mask(FileSource(tmp_path / "mask.nrrd")).geometry.distance_mm(geometry) < 1e-4


def test_only_the_header_of_its_own_image_is_copied(tmp_path: Path) -> None:
    source = save(tmp_path / "a.nii.gz", codes=(4, 4))
    elsewhere = Mask(np.ones(SHAPE, np.uint8), Geometry(SHAPE, moved(PLAIN, 1, 0, 0)))
    write_mask(elsewhere, tmp_path / "mask.nii.gz", source)
    assert nib.load(tmp_path / "mask.nii.gz").header["sform_code"] == 1
    assert read_mask(FileSource(tmp_path / "mask.nii.gz")).geometry.distance_mm(elsewhere.geometry) < 1e-4
    own = Mask(np.ones(SHAPE, np.uint8), read_volume(source).geometry)
    write_mask(own, tmp_path / "own.nii.gz", source)
    assert nib.load(tmp_path / "own.nii.gz").header["sform_code"] == 4
    write_mask(own, tmp_path / "own.nii.gz", FileSource(tmp_path / "own.nii.gz"))  # replaces what it would copy
    assert nib.load(tmp_path / "own.nii.gz").header["sform_code"] == 1


# How a choice gets there


def test_a_choice_reaches_what_is_found(tmp_path: Path) -> None:
    rules = DicomRules(geometry="pixdim")
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "p1.nii.gz", codes=(1, 0), pixdim={3: 9.0})
    image = tmp_path / "images" / "p1.nii.gz"
    (source,) = discover(image, rules=ReadingRules(geometry="pixdim")).sources
    assert source == FileSource(image, rules=FileRules(geometry="pixdim"))
    assert single_source(image, rules=rules) == source
    assert single_source(image) == FileSource(image)
    (case,) = find_dataset(tmp_path, rules).cases
    assert (case.images["image"], case.reference) == (
        source,
        FileSource(tmp_path / "labels/p1.nii.gz", rules=FileRules(geometry="pixdim")),
    )
    assert find_inputs(image.parent, ("image",), rules).cases[0].images["image"] == source
    assert digest([source], "") != digest([FileSource(image)], "")
    assert AS_STATED.geometry is None


def test_a_choice_is_an_argument_of_what_reads_files(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            save(tmp_path / folder / f"p{number}.nii.gz", codes=(1, 0), pixdim={3: 9.0})
    labels = tmp_path / "labels"
    assert [item.status for item in volseg.inspect(labels)] == ["unusable"] * 3
    chosen = volseg.inspect(labels, changes={"data.geometry": "pixdim"})
    assert [item.spacing_mm[2] for item in chosen if item.spacing_mm] == [9, 9, 9]
    for read in (lambda: volseg.evaluate(labels, labels), lambda: volseg.plan(tmp_path)):
        with pytest.raises(DataError, match=r"the first: .*1.2 x 1.2 x 3 mm by the sform, but .* by pixdim") as caught:
            read()
        assert caught.value.hint.endswith("--geometry or data.geometry: sform or pixdim")
    for choice, voxel_mm3 in (("sform", 1.2 * 1.2 * 3), ("pixdim", 1.2 * 1.2 * 9)):
        table = volseg.evaluate(labels, labels, geometry=choice).metrics  # type: ignore[arg-type]
        expected = np.count_nonzero(nib.load(labels / "p0.nii.gz").get_fdata() == 1) * voxel_mm3 / 1000
        assert table["reference_ml"][0] == pytest.approx(expected, rel=1e-5)
    plan = volseg.plan(tmp_path, changes={"data.geometry": "pixdim"})
    assert plan.config.data.geometry == "pixdim"
    assert plan.config.preprocessing.spacing_mm[2] > 3
    exported = volseg.export(
        labels / "p0.nii.gz", tmp_path / "images" / "p0.nii.gz", tmp_path / "m.nii.gz", geometry="pixdim"
    )
    assert exported.mask.geometry.spacing_mm[2] == 9
    with pytest.raises(ConfigError, match=r"data.geometry: there is no 'affine'"):
        volseg.evaluate(labels, labels, geometry="affine")  # type: ignore[arg-type]


def test_an_image_in_memory_is_held_to_the_same(tmp_path: Path) -> None:
    good, bad = (save(tmp_path / f"{n}.nii", codes=(1, 0), pixdim={3: size}) for n, size in enumerate((3.0, 9.0)))
    read = volume_of(nib.load(good.path))
    assert read.geometry.distance_mm(Geometry(SHAPE, PLAIN)) < 1e-4
    assert volume_of(nib.Nifti1Image(read.array[0], PLAIN)).geometry.shape == SHAPE
    with pytest.raises(GeometryError, match="the nibabel image contradicts itself") as caught:
        volume_of(nib.load(bad.path))
    assert "affine" in caught.value.hint
    assert volume_of((read.array, PLAIN)).geometry.distance_mm(read.geometry) < 1e-4


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sform_1mm_pixdim_10mm", "1 x 1 x 1 mm by the sform, but 1.5625 x 1.5625 x 10 mm by pixdim"),
        ("sform_1mm_pixdim_10mm_label", "1 x 1 x 1 mm by the sform, but 1.5625 x 1.5625 x 10 mm by pixdim"),
        ("sform_and_qform_disagree", "sform (aligned) and qform (scanner) disagree: they lie up to 16.4 mm apart"),
        ("sform_of_zeros", "its sform is set, but"),
        ("metres", "states its positions in metres"),
    ],
)
def test_contradictions_are_named(name: str, said: str, real_data: Path) -> None:
    (item,) = volseg.inspect(real_data / "nifti_contradictions" / f"{name}.nii.gz")
    assert said in item.remark
    assert item.status == ("odd" if "disagree" in name else "unusable")


def test_the_option_is_a_key_of_the_configuration() -> None:
    assert changes_of(None, "pixdim") == {"data": {"geometry": "pixdim"}}
    keys = changes_of(["data.allow_gaps=true", "data.geometry=sform"], "qform")
    assert PartialConfig.stated(None, keys).data == PartialConfig.stated(None, {"data.geometry": "qform"}, True).data
    assert changes_of(["training.epochs=3"]) == {"training": {"epochs": 3}}
