"""A model knows what it was made for: planning finds it, and prediction refuses what lies clearly outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import STORAGE_ORDERS, TINY, MakeOnce
from numpy.typing import NDArray

import volseg
from volseg.cases import Case, Dataset, find_dataset
from volseg.config import Config, PartialConfig, merge, named_modality, read_config
from volseg.errors import ConfigError, DataError
from volseg.image import intensities
from volseg.image.geometry import Geometry
from volseg.image.intensities import Intensities
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, discover, read_volume, stated_modality, write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.model.checkpoint import save_model
from volseg.model.domain import ImageTraits, mismatches
from volseg.model.files import MODEL_FILE
from volseg.model.networks import build_network
from volseg.planning import make_plan, plan_folder, take_fingerprint

OLD = Path(__file__).parent / "data" / "version_0_1_0"
SHAPE = (24, 22, 18)
Array = NDArray[np.float32]
#: One patch a case, and nothing is tried out.
QUICK = {
    "preprocessing": {"spacing_mm": [4, 4, 4]},
    "inference": {"backend": "torch", "precision": "fp32", "mirror_axes": []},
}


def body(seed: int) -> tuple[Array, NDArray[np.uint8]]:
    """Hounsfield units of a body of muscle in a coat of fat, in air, with an organ; and the organ."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    distance = np.hypot((i - 11.5) / 10, (j - 10.5) / 9)
    organ = (i - 8) ** 2 + (j - 11) ** 2 + (k - 9) ** 2 < 20
    values = np.select([distance > 1, distance > 0.8, organ], [-1000, -100, 120], default=50)
    return (values + rng.normal(0, 12, SHAPE)).round().astype(np.float32), organ.astype(np.uint8)


def ct(seed: int) -> Array:
    return body(seed)[0]


def mr(seed: int) -> Array:
    """The same body in MR: no signal in air, much in fat, and nothing below 0."""
    values = np.interp(ct(seed), [-1000, -120, -60, 50, 120], [0, 900, 800, 300, 450])
    noise = np.random.default_rng(seed).normal(0, 9, (2, *SHAPE))
    return np.hypot(values + noise[0], noise[1]).round().astype(np.float32)


def grid(spacing_mm: float | tuple[float, float, float] = 2.0, shape: tuple[int, ...] = SHAPE) -> Geometry:
    return Geometry(shape, np.diag([*np.broadcast_to(spacing_mm, 3), 1.0]))  # type: ignore[arg-type]  # three axes


def volume(values: Array, spacing_mm: float | tuple[float, float, float] = 2.0) -> Volume:
    return Volume(values[np.newaxis].astype(np.float32), grid(spacing_mm, values.shape))


def write_case(folder: Path, name: str, values: Array, modality: str = "") -> None:
    """An image, as DICOM where its modality is to be stated, and its reference."""
    if modality:
        write_series(volume(values), folder / "images" / name, modality=modality)
    else:
        write_volume(volume(values), folder / "images" / f"{name}.nii.gz")
    write_mask(Mask(body(0)[1], grid()), folder / "labels" / f"{name}.nii.gz")


def model_of(data: Path, folder: Path) -> None:
    """A model that was planned for a data set and has learned nothing."""
    config = plan_folder(data, PartialConfig.of(merge(TINY, QUICK)))[1].config
    network = build_network(config.network, len(config.data.channels), config.data.outputs)
    folder.mkdir(parents=True)
    save_model(folder / MODEL_FILE, network, config, dice=0.0, epoch=0)


@pytest.fixture(scope="session")
def models(make_once: MakeOnce) -> Path:
    """Models of CT and MR, as NIfTI ("ct", "mr") and as DICOM ("ct_dicom", "mr_dicom")."""

    def make(folder: Path) -> None:
        for kind, paint in (("ct", ct), ("mr", mr)):
            for name, modality in ((kind, ""), (f"{kind}_dicom", kind.upper())):
                for seed in range(3):
                    write_case(folder / "data" / name, f"case_{seed}", paint(seed), modality)
                model_of(folder / "data" / name, folder / name)

    return make_once("models_of_ct_and_mr", make)


def config_of(models: Path, name: str) -> Config:
    return volseg.load(models / name).config


def found(values: Array, config: Config, modality: str = "", spacing_mm: float = 2.0) -> str:
    return "; ".join(mismatches(ImageTraits.of(volume(values, spacing_mm), [modality]), config))


# Planning


def test_the_modality_is_stated_or_recognised_and_travels_with_the_model(models: Path) -> None:
    found = {name: config_of(models, name).data.modalities for name in ("ct", "ct_dicom", "mr", "mr_dicom")}
    assert found == {"ct": ("CT",), "ct_dicom": ("CT",), "mr": ("unknown",), "mr_dicom": ("MR",)}
    domain = config_of(models, "ct").domain
    assert domain.spacings_mm == ((2.0, 2.0),) * 3
    assert domain.intensities[0].low[0] == pytest.approx(-1033, abs=5)  # air, 2.6 standard deviations below its mean
    assert domain.intensities[0].labelled == pytest.approx((90, 150), abs=8)


def test_a_channel_states_its_modality_by_its_name(tmp_path: Path) -> None:
    names = ["T1w", "t2", "flair", "CT", "ct_scan", "PET", "image", "noNorm", "pet_ct", "contrast"]
    assert [named_modality(name) for name in names] == ["MR", "MR", "MR", "CT", "CT", "PT", "", "", "", ""]
    for seed in range(2):
        write_volume(volume(mr(seed)), tmp_path / "imagesTr" / f"a{seed}_0000.nii.gz")
        write_mask(Mask(body(seed)[1], grid()), tmp_path / "labelsTr" / f"a{seed}.nii.gz")
    stated = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    plan = volseg.plan(tmp_path)
    assert plan.config.data.modality == ("MR",)
    assert "the name of the channel states it" in plan.reasons["data.modality"]


def test_a_name_that_the_values_contradict_is_refused(tmp_path: Path) -> None:
    for seed in range(2):
        write_volume(volume(ct(seed)), tmp_path / "imagesTr" / f"a{seed}_0000.nii.gz")
        write_mask(Mask(body(seed)[1], grid()), tmp_path / "labelsTr" / f"a{seed}.nii.gz")
    stated = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match="channel mri is named as MR, but its values are those of CT"):
        volseg.plan(tmp_path)
    assert volseg.plan(tmp_path, changes={"data.modality": "CT"}).config.preprocessing.normalization[0].method == "ct"


@pytest.mark.parametrize(
    ("usual", "message"),
    [
        (lambda seed: ct(seed).clip(-150, 250), "not all of one modality: 3 are CT, but not in .*: a3"),
        (mr, "is stated to be CT, but no case of it is in Hounsfield units"),
        (lambda seed: ct(seed) + 1024, "is stated to be CT, but no case of it is in Hounsfield units"),
    ],
    ids=["windowed", "mr", "no intercept"],
)
def test_a_channel_called_ct_must_be_in_hounsfield_units(
    usual: Callable[[int], Array], message: str, tmp_path: Path
) -> None:
    for seed in range(4):
        values = usual(seed) if seed < 3 else mr(seed)
        write_volume(volume(values), tmp_path / "imagesTr" / f"a{seed}_0000.nii.gz")
        write_mask(Mask(body(seed)[1], grid()), tmp_path / "labelsTr" / f"a{seed}.nii.gz")
    stated = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(stated))
    with pytest.raises(DataError, match=message) as caught:
        volseg.plan(tmp_path)
    assert "data.modality=" in caught.value.hint
    assert volseg.plan(tmp_path, changes={"data.modality": "CT"}).config.data.modality == ("CT",)


@pytest.mark.parametrize(
    ("odd", "modality", "usual", "usual_modality"),
    [
        (mr, "", ct, ""),
        (mr, "MR", ct, ""),
        (mr, "MR", ct, "CT"),
        (lambda seed: ct(seed) + 1024, "", ct, ""),  # without its rescale intercept
        (lambda seed: ct(seed) + 1024, "CT", ct, "CT"),
        (ct, "", mr, ""),
        (ct, "", mr, "MR"),
        (ct, "CT", mr, "MR"),
    ],
)
def test_a_data_set_of_several_modalities_is_refused_with_the_odd_ones(
    odd: Callable[[int], Array], modality: str, usual: Callable[[int], Array], usual_modality: str, tmp_path: Path
) -> None:
    for seed in range(7):
        write_case(tmp_path, f"case_{seed}", usual(seed), usual_modality)
    write_case(tmp_path, "stranger", odd(7), modality)
    with pytest.raises(DataError, match=r"(?m)not all of one modality: 7 are .*: stranger$") as caught:
        volseg.plan(tmp_path)
    assert "remove the exceptions" in caught.value.hint
    assert "data.modality=" in caught.value.hint


def test_what_is_stated_decides(tmp_path: Path, volseg_cli: Callable[..., tuple[int, str, str]]) -> None:
    for seed in range(3):
        write_case(tmp_path / "data", f"case_{seed}", ct(seed))
    write_case(tmp_path / "data", "stranger", mr(7))
    words = ("plan", tmp_path / "data", "--output", tmp_path / "plan.yaml")
    code, _, err = volseg_cli(*words)
    assert (code, "stranger" in err, "data.modality=CT" in err) == (2, True, True)
    methods = {}  # modality -> normalisation
    for modality in ("CT", "mri", "mixed"):
        words = ("plan", tmp_path / "data", "--output", tmp_path / f"{modality}.yaml")
        assert volseg_cli(*words, "--set", f"data.modality={modality}")[0] == 0
        config = read_config(tmp_path / f"{modality}.yaml")
        methods[config.data.modality] = config.preprocessing.normalization[0].method
    assert methods == {("CT",): "ct", ("MR",): "zscore", ("mixed",): "zscore"}
    assert found(mr(0), read_config(tmp_path / "mixed.yaml"), "PT") == ""  # several on purpose: nothing is compared


@pytest.mark.parametrize("modality", ["CTT", "magnetic", ["CT", "MR"], ""])
def test_a_modality_must_be_one_and_one_for_each_channel(modality: Any, tmp_path: Path) -> None:
    write_case(tmp_path, "case", ct(0))
    write_case(tmp_path, "other", ct(1))
    with pytest.raises(ConfigError, match="modality"):
        volseg.plan(tmp_path, changes={"data.modality": modality})


def test_parts_of_an_organ_do_not_make_a_data_set_mixed(tmp_path: Path) -> None:
    for seed in range(3):
        write_case(tmp_path, f"case_{seed}", ct(seed))
    part = np.random.default_rng(0).normal(60, 12, SHAPE).round().astype(np.float32)
    write_case(tmp_path, "liver_only", part)
    config = plan_folder(tmp_path, PartialConfig.of({}))[1].config
    assert config.data.modality == ("CT",)
    assert found(mr(0), config) == ""  # where a training case has no fat either, nothing can be said


def test_a_written_plan_explains_the_new_keys(models: Path) -> None:
    text = re.sub(r"\n *# ", " ", plan_folder(models / "data" / "ct", PartialConfig.of({}))[1].to_yaml())
    assert "Planned: image: no file states it, but there is air as in CT\n  modality: [CT]" in text
    spanned = "the range of the cases; predict refuses images clearly outside (--allow-mismatch overrides this)"
    assert f"Planned: {spanned}\ndomain:" in text


# What lies outside


@pytest.mark.parametrize(
    ("model", "values", "modality", "reason"),
    [
        ("ct", mr(5), "", "not Hounsfield units"),
        ("ct", mr(5) * 1000, "", "not Hounsfield units"),
        ("ct", mr(5) / mr(5).max(), "", "not Hounsfield units"),
        ("ct", mr(5) / 5, "", "not Hounsfield units"),  # as 8 bits hold it
        ("ct", mr(5), "MR", "it is MR, the training cases were CT"),
        ("ct", ct(5), "PT", "it is PT, the training cases were CT"),
        ("ct", ct(5) + 1024, "", "lacks its rescale intercept"),
        ("ct_dicom", ct(5) + 1024, "CT", "lacks its rescale intercept"),
        ("ct", np.clip((ct(5) + 160) / 400, 0, 1) * 255, "", "not Hounsfield units"),  # a window of 8 bits
        ("ct", ct(5) + 3000, "CT", "not Hounsfield units"),
        ("mr", ct(5), "", "those of CT"),
        ("mr", ct(5), "CT", "those of CT"),
        ("mr", ct(5)[2:22, 3:19, 2:16].clip(-150), "CT", "those of CT"),  # without air, but stated
        ("mr_dicom", ct(5), "", "those of CT"),
        ("mr_dicom", np.where(ct(5) < -900, -3024, ct(5)), "", "those of CT"),
        ("mr_dicom", mr(5), "CT", "it is CT, the training cases were MR"),
    ],
)
def test_another_kind_of_image_is_named(model: str, values: Array, modality: str, reason: str, models: Path) -> None:
    assert reason in found(values.astype(np.float32), config_of(models, model), modality)


VARIANTS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda values: values,
    "without air": lambda values: values[4:20, 4:18, 2:16],
    "in an organ": lambda values: values[8:15, 7:14, 4:14],
    "one slice": lambda values: values[:, :, 8:9],
    "not finite": lambda values: np.where(np.indices(SHAPE).sum(axis=0) % 3, values, np.nan),
    "infinite outside": lambda values: np.where(values < -500, -np.inf, values),
    "noise": lambda values: values + np.random.default_rng(0).normal(0, 40, values.shape),
    "contrast": lambda values: np.where(values > 90, values + 400, values),
    "metal": lambda values: np.where(np.indices(SHAPE).sum(axis=0) == 30, 20_000, values),
}
OF_CT = {
    "padded with -2000": lambda values: np.where(values < -900, -2000, values),
    "padded with -3024": lambda values: np.where(values < -900, -3024, values),
    "padded with -32768": lambda values: np.where(values < -900, -32768, values),
    "clipped at -200": lambda values: np.maximum(values, -200),
}
OF_MR = {
    "times 1000": lambda values: values * 1000,
    "0 to 1": lambda values: values / values.max(),
    "z-scores": lambda values: (values - values.mean()) / values.std(),
    "8 bits": lambda values: (values / values.max() * 255).round(),
    "inverted": lambda values: values.max() - values,
    "without skull": lambda values: np.where(values > 600, 0, values),
}


@pytest.mark.parametrize("modality", ["", "CT"])
@pytest.mark.parametrize("variant", {**VARIANTS, **OF_CT})
def test_ct_of_all_sorts_is_taken_by_a_model_of_ct(variant: str, modality: str, models: Path) -> None:
    values = {**VARIANTS, **OF_CT}[variant](ct(5)).astype(np.float32)
    for model in ("ct", "ct_dicom"):
        assert found(values, config_of(models, model), modality) == ""


@pytest.mark.parametrize("modality", ["", "MR"])
@pytest.mark.parametrize("variant", {**VARIANTS, **OF_MR})
def test_mr_of_all_sorts_is_taken_by_a_model_of_mr(variant: str, modality: str, models: Path) -> None:
    values = {**VARIANTS, **OF_MR}[variant](mr(5)).astype(np.float32)
    for model in ("mr", "mr_dicom"):
        assert found(values, config_of(models, model), modality) == ""


@pytest.mark.parametrize(
    ("spacing_mm", "is_outside"),
    [(0.25, False), (0.7, False), (5.0, False), (10.0, False), (15.0, True), (0.002, True), (2000.0, True)],
)
def test_voxels_far_from_those_of_training_are_named(spacing_mm: float, is_outside: bool, models: Path) -> None:
    for kind, values in (("ct", ct(5)), ("mr_dicom", mr(5))):
        remark = found(values, config_of(models, kind), spacing_mm=spacing_mm)
        assert remark.startswith(f"its voxels are {spacing_mm:.3g} mm left-right, ") == is_outside
        assert bool(remark) == is_outside
    thick = ImageTraits.of(volume(ct(5), (2.0, 2.0, 30.0)))
    assert mismatches(thick, config_of(models, "ct")) == [
        "its voxels are 30 mm inferior-superior, those of the training cases were 2 mm"
    ]


def test_each_channel_is_compared_with_its_own(tmp_path: Path) -> None:
    for seed in range(3):
        for name, values, modality in (("ct", ct(seed), "CT"), ("mr", mr(seed), "MR")):
            write_series(volume(values), tmp_path / f"case_{seed}" / name, modality=modality)
        write_mask(Mask(body(seed)[1], grid()), tmp_path / f"case_{seed}" / "label.nii.gz")
    config = plan_folder(tmp_path, PartialConfig.of({}))[1].config
    assert dict(zip(config.data.channels, config.data.modalities, strict=True)) == {"ct": "CT", "mr": "MR"}
    both = {"ct": ct(5), "mr": mr(5)}
    for order, expected in ((("ct", "mr"), 0), (("mr", "ct"), 2)):
        swapped = Volume(np.stack([both[name] for name in order]), grid())
        named = mismatches(ImageTraits.of(swapped, [name.upper() for name in order]), config)
        assert len(named) == expected
        assert not named or [remark.partition(":")[0] for remark in named] == list(config.data.channels)


def test_what_is_found_does_not_depend_on_the_storage_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intensities, "_SAMPLES", 500)  # so that not every voxel is looked at
    whole = volume(ct(0), (1.0, 2.0, 3.0))
    seen = set()
    for order in STORAGE_ORDERS:
        geometry = whole.geometry.reordered(order)
        traits = ImageTraits.of(Volume(np.ascontiguousarray(order.apply(whole.array)), geometry))
        seen.add((traits.intensities, traits.spacing_mm))
    assert len(seen) == 1


def test_a_model_that_does_not_know_takes_everything() -> None:
    config = volseg.load(OLD / "run").config
    assert config.data.modalities == ("unknown",)
    for values, modality in ((ct(0), "CT"), (mr(0), "MR"), (ct(0) * 1e6, "")):
        assert found(values, config, modality, spacing_mm=500.0) == ""


# Prediction


def test_a_mismatch_fails_alone_or_is_allowed_with_a_warning(
    models: Path, tmp_path: Path, volseg_cli: Callable[..., tuple[int, str, str]]
) -> None:
    write_volume(volume(ct(5)), tmp_path / "in" / "right.nii.gz")
    write_volume(volume(mr(5)), tmp_path / "in" / "by_values.nii.gz")
    write_series(volume(mr(6)), tmp_path / "in" / "by_tag", modality="MR")
    words = ("predict", tmp_path / "in", "--model", models / "ct", "--output", tmp_path / "out")

    def rows() -> pd.DataFrame:
        table = pd.read_csv(tmp_path / "out" / "cases.csv", keep_default_na=False)
        return table.set_index("case_id")[["status", "reason", "key"]]

    code, out, _ = volseg_cli(*words)
    assert (code, "1 segmented, 0 skipped, 2 failed" in out) == (3, True)
    table = rows()
    assert table.loc["right", "reason"] == ""
    assert "the model was not made for this kind of image: it is MR" in table.loc["by_tag", "reason"]
    assert "not Hounsfield units" in table.loc["by_values", "reason"]
    assert all("--allow-mismatch" in table.loc[name, "reason"] for name in ("by_tag", "by_values"))
    assert not (tmp_path / "out" / "by_tag.nii.gz").exists()

    code, _, err = volseg_cli(*words, "--allow-mismatch")
    assert code == 0
    assert "warning: by_tag: segmented in spite of a mismatch" in err
    first = rows()
    assert set(first["status"]) == {"segmented"}
    assert "in spite of a mismatch" in first.loc["by_values", "reason"]
    assert first.loc["right", "reason"] == ""

    assert volseg_cli(*words, "--allow-mismatch")[0] == 0  # it is up to date, and the warning stays
    pd.testing.assert_frame_equal(rows(), first)

    assert volseg_cli(*words)[0] == 3  # what was allowed once is not allowed for ever
    assert list(rows().loc[["by_tag", "by_values", "right"], "status"]) == ["failed", "failed", "segmented"]


def test_python_refuses_and_allows_alike(models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(volume(ct(5)), tmp_path / "ct", modality="CT")
    for name in ("mr", "mr_dicom"):
        model = volseg.load(models / name)
        for image in (tmp_path / "ct", {"image": tmp_path / "ct"}, volume(ct(5))):
            with pytest.raises(DataError, match="was not made for this kind of image") as caught:
                model.predict(image)
            assert "allow_mismatch=True" in caught.value.hint
            caplog.clear()
            prediction = model.predict(image, allow_mismatch=True)
            assert len(prediction.mismatches) == 1
            assert "in spite of a mismatch" in caplog.text
        assert model.predict(volume(mr(5))).mismatches == ()
    batch = volseg.load(models / "mr").predict_folder(
        tmp_path / "ct", tmp_path / "out", allow_mismatch=True, report=True
    )
    assert [case.status for case in batch.values()] == ["segmented"]
    review = pd.read_csv(tmp_path / "out" / "review.csv")
    assert review.loc[0, "status"] == "check"
    assert "in spite of a mismatch" in str(review.loc[0, "reason"])


def test_models_that_know_different_things_can_be_averaged(models: Path) -> None:
    model = volseg.load([models / "mr", models / "mr_dicom"])
    assert model.predict(volume(mr(5))).mismatches == ()
    with pytest.raises(DataError, match="those of CT"):
        model.predict(volume(ct(5)))


# Real images


@pytest.mark.real_data
def test_real_images_are_taken_by_models_of_their_kind_alone(real_data: Path) -> None:
    abdomen = real_data / "abdomen"
    pairs = {
        "whole": ("ct_3mm/example_ct.nii.gz", "ct_3mm/example_seg_fast_force_split.nii.gz"),
        "short": ("ct_3mm_30slices/example_ct_sm.nii.gz", "ct_3mm_30slices/example_seg.nii.gz"),
    }
    cases = [
        Case(name, {"image": FileSource(abdomen / image)}, FileSource(abdomen / reference))
        for name, (image, reference) in pairs.items()
    ]
    of_ct = make_plan(take_fingerprint(Dataset("abdomen", tuple(cases), ("image",)))).config
    of_mr = make_plan(take_fingerprint(find_dataset(real_data / "chaos_t2"))).config
    hippocampus = find_dataset(real_data / "hippocampus")
    of_crops = make_plan(take_fingerprint(replace(hippocampus, cases=hippocampus.cases[::10]))).config
    assert (of_ct.data.modality, of_mr.data.modality) == (("CT",), ("unknown",))

    def taken(path: Path, config: Config) -> bool:
        (source,) = discover(path).sources
        return not mismatches(ImageTraits.of(read_volume(source), [stated_modality(source)]), config)

    for path in (
        abdomen / "ct_3mm" / "example_ct.nii.gz",
        real_data / "nnunet_models" / "inputs" / "ct.nii.gz",
        real_data / "dicom" / "dicomdir_study" / "98892001" / "CT5N",
        real_data / "dicom" / "transfer_syntaxes_wg04" / "REF" / "CT2_UNC",
    ):
        assert [taken(path, config) for config in (of_ct, of_mr, of_crops)] == [True, False, False], path
    crops = sorted((real_data / "hippocampus" / "images").iterdir())
    for path in crops[::8]:
        assert [taken(path, config) for config in (of_ct, of_crops)] == [False, True], path
    for path in sorted((real_data / "chaos_t2" / "images").iterdir())[::4]:
        assert [taken(path, config) for config in (of_ct, of_mr)] == [False, True], path
    for head in (real_data / "nrrd" / "brain1_image.nrrd", real_data / "spine" / "t2" / "t2.nii.gz"):
        assert not taken(head, of_ct)


def test_percentiles_of_the_few_finite_voxels_are_found() -> None:
    values = np.full((3, 4, 5), np.nan, np.float32)
    values[1, 1, 1] = 7.0
    assert Intensities.of(values) == Intensities(7.0, 7.0, 7.0, 7.0)
