"""Flat pictures through the whole of volseg: planned, learned from, segmented, judged and exported as volumes are."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import volseg
from volseg.cases import find_dataset, find_inputs
from volseg.cases.phantoms import write_dataset
from volseg.config import DataConfig, EncoderConfig, PartialConfig, PartialData, read_config
from volseg.errors import DataError
from volseg.io import read_shown, write_mask, write_volume
from volseg.model.encoders import build_encoder
from volseg.planning.folder import plan_folder
from volseg.prediction.predictor import Predictor
from volseg.prediction.streamed import StreamedInput
from volseg.training.agreement import Agreement
from volseg.training.validation import Validator
from volseg.transforms import IMAGE, REFERENCE, build_augmentation

SIZE = (48, 64)  # rows, columns


def disc(rng: np.random.Generator) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    y, x, radius = rng.uniform(16, 32), rng.uniform(20, 44), rng.uniform(6, 12)
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < radius**2)


def stored_in(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def pictures(root: Path, count: int = 6, *, colored: bool = True, roi: bool = False) -> Path:
    """Bright discs on noise, in the blue channel alone where pictures are coloured."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels", *(["roi"] if roi else [])):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        drawn = disc(rng)
        picture = rng.normal(90, 12, (*SIZE, 3))
        picture[..., 2] += 90 * drawn
        picture = picture.clip(0, 255).astype(np.uint8)
        Image.fromarray(picture if colored else picture[..., 2]).save(root / "images" / f"p{number}.png")
        Image.fromarray((drawn * 255).astype(np.uint8)).save(root / "labels" / f"p{number}.png")
        if roi:
            field = np.zeros(SIZE, bool)
            field[:, : SIZE[1] // 2] = True
            Image.fromarray(field).save(root / "roi" / f"p{number}.png")
    return root


SMALL: dict[str, Any] = {
    "data.labels": {"disc": 1},
    "patches.size": [1, 32, 32],
    "training.steps_per_epoch": 15,
    "training.batch_size": 4,
    "training.precision": "fp32",
    "training.workers": 0,
    "inference.backend": "torch",
    "inference.precision": "fp32",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "dynunet": {
        "name": "dynunet",
        "filters": [8, 16, 32],
        "strides": [[1, 2, 2]] * 2,
        "kernels": [[1, 3, 3]] * 3,
        "deep_supervision": 0,
    },
    "unet": {"name": "unet", "dimensions": 2, "channels": [8, 16], "strides": [[1, 2, 2]]},
    "vnet": {"name": "vnet", "filters": 4},
    "fcn": {"name": "fcn", "encoder": {"name": "vgg16_bn", "width": 0.15}, "features": 32},
    "deeplabv3plus": {"name": "deeplabv3plus", "encoder": {"name": "resnet18", "width": 0.25}, "features": 32},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("flat") / "data")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("flat") / "run"
    changes = {**SMALL, **{f"network.{key}": value for key, value in NETWORKS["dynunet"].items()}}
    found = volseg.train(data, output, changes=changes, epochs=6)
    assert found.validation.mean > 0.8
    return output


@pytest.fixture(scope="module")
def masks(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("flat") / "masks"
    volseg.load(run).predict_folder(data / "images", output, probabilities=True, report=True)
    return output


# Planning


def test_a_plan_for_pictures_is_flat_and_in_pixels(data: Path) -> None:
    _, plan = plan_folder(data, PartialConfig.of({"data": {"labels": {"disc": 1}}}))
    config = plan.config
    assert config.data.channels == ("red", "green", "blue")
    assert config.data.unit == "px"
    assert config.preprocessing.axes == "SPL"
    assert config.preprocessing.spacing_mm == (None, None, None)
    assert config.patches.size[0] == 1
    assert all(kernel[0] == 1 for kernel in config.network.kernels)  # type: ignore[union-attr]
    assert all(stride[0] == 1 for stride in config.network.strides)  # type: ignore[union-attr]
    assert config.augmentation.flip_axes == ("j", "k")


@pytest.mark.parametrize("network", ["unet", "vnet", "segresnet", "swin_unetr", "fcn", "deeplabv3plus", "encoder_unet"])
def test_networks_of_pictures_see_planes(network: str, data: Path) -> None:
    given = PartialConfig.of({"data": {"labels": {"disc": 1}}, "network": {"name": network}})
    config = plan_folder(data, given)[1].config
    assert config.network.dimensions == 2  # type: ignore[union-attr]
    assert config.patches.size[0] == 1


def test_pictures_with_and_without_millimetres_do_not_mix(data: Path, tmp_path: Path) -> None:
    root = pictures(tmp_path, 2)
    manifest = tmp_path / "list.csv"
    volume = volseg.Volume(
        np.random.default_rng(0).random((1, 8, 8, 1), np.float32), volseg.Geometry((8, 8, 1), np.eye(4))
    )
    write_volume(volume, tmp_path / "v.nii.gz")
    write_mask(volseg.Mask(np.ones((8, 8, 1), np.uint8), volume.geometry), tmp_path / "m.nii.gz")
    Image.fromarray(stored_in(root / "images" / "p1.png")[..., 0]).save(tmp_path / "g.png")
    manifest.write_text(f"case_id,image,reference\na,v.nii.gz,m.nii.gz\nb,g.png,{root}/labels/p1.png\n")
    with pytest.raises(DataError, match="1 of 2 cases are pictures in pixels, b for one"):
        volseg.plan(manifest)


# Augmentation


def test_flat_patches_are_changed_in_their_plane_alone() -> None:
    changes = {"affine_probability": 1, "elastic_probability": 1, "shear": 0.2, "flip_axes": ["j", "k"]}
    config = PartialConfig.of({"augmentation": {**changes, "noise_probability": 0}}).augmentation
    chain = build_augmentation(config, {}, (1, 32, 40), "SPL")
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((3, 1, 32, 40)).astype(np.float32))
    reference = (image[:1] > 0.5).float()
    chain.set_random_state(seed=0)
    sample = chain({IMAGE: image.clone(), REFERENCE: reference.clone()})
    assert sample[IMAGE].shape == (3, 1, 32, 40)
    assert sample[REFERENCE].shape == (1, 1, 32, 40)
    assert set(np.unique(sample[REFERENCE])) <= {0.0, 1.0}
    assert not torch.equal(torch.as_tensor(sample[IMAGE]), image)


def test_image_and_reference_of_a_plane_move_together() -> None:
    config = PartialConfig.of(
        {
            "augmentation": {
                "affine_probability": 1,
                "shear": 0.2,
                "flip_axes": ["j", "k"],
                **{f"{name}_probability": 0 for name in ("noise", "blur", "brightness", "contrast", "gamma")},
                "low_resolution_probability": 0,
            }
        }
    ).augmentation
    chain = build_augmentation(config, {}, (1, 64, 64), "SPL")
    rows, columns = np.mgrid[:64, :64]
    drawn = ((rows - 20) ** 2 + (columns - 40) ** 2 < 100)[None, None]
    for seed in range(8):
        chain.set_random_state(seed=seed)
        both = torch.from_numpy(drawn.astype(np.float32))
        sample = chain({IMAGE: both.clone(), REFERENCE: both.clone()})
        agree = (torch.as_tensor(sample[IMAGE]) > 0.5) == (torch.as_tensor(sample[REFERENCE]) > 0.5)
        assert agree.float().mean() > 0.985


def test_slices_of_a_stack_move_alike() -> None:
    changes = {"affine_probability": 1, "elastic_probability": 1, "shear": 0.2, "flip_axes": ["j", "k"]}
    still = {
        f"{name}_probability": 0 for name in ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
    }
    config = PartialConfig.of({"augmentation": {**changes, **still}}).augmentation
    chain = build_augmentation(config, {}, (4, 32, 40), "SPL", planes=True)
    plane = torch.rand(2, 1, 32, 40)
    chain.set_random_state(seed=0)
    sample = chain(
        {IMAGE: plane.expand(-1, 4, -1, -1).clone(), REFERENCE: (plane[:1] > 0.5).float().repeat(1, 4, 1, 1)}
    )
    moved = torch.as_tensor(sample[IMAGE])
    assert moved.shape == (2, 4, 32, 40)
    assert torch.equal(moved, moved[:, :1].expand(-1, 4, -1, -1))
    assert not torch.equal(moved[:, :1], plane)


@pytest.mark.parametrize("shape", [(1, 64, 64), (24, 24, 24)])
def test_what_is_moved_into_a_patch_is_unknown_where_anything_is(shape: tuple[int, int, int]) -> None:
    changes = {"affine_probability": 1, "elastic_probability": 1, "blur_probability": 0}
    config = PartialConfig.of({"augmentation": changes}).augmentation
    for outside in (0, 2, 65535):
        chain = build_augmentation(config, {}, shape, "SPL", outside=outside)
        for seed in range(4):
            chain.set_random_state(seed=seed)
            moved = chain({IMAGE: torch.rand(1, *shape), REFERENCE: torch.full((1, *shape), float(outside))})
            assert set(torch.as_tensor(moved[REFERENCE]).unique().tolist()) == {outside}


def test_what_is_unknown_has_a_value_of_its_own() -> None:
    for labels, value in (({"a": 1}, 2), ({"a": 65535}, 1), ({"a": 1, "b": 3}, 2), ({"a": 1, "ignore": 9}, 9)):
        assert DataConfig(labels=labels, roi="roi").ignored_value == value
    assert DataConfig(labels={"a": 1}).ignored_value is None


def test_augmented_patches_are_shown_however_they_are_changed(data: Path, tmp_path: Path) -> None:
    """What MONAI keeps beside the pixels of planes does not fit the slices of volumes."""
    changes = {"data.labels.disc": 1, "augmentation.blur_probability": 1, "augmentation.affine_probability": 1}
    assert volseg.show(data, tmp_path / "data.html", changes=changes).is_file()


# Training and after it


def test_masks_of_pictures_are_pictures_of_their_size(data: Path, masks: Path) -> None:
    for image in sorted((data / "images").iterdir()):
        with Image.open(image) as picture, Image.open(masks / image.name) as mask:
            assert mask.mode == "P"
            assert mask.size == picture.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
    rows = pd.read_csv(masks / "cases.csv").set_index("case_id")
    for name, row in rows.iterrows():
        assert row["disc_px2"] == np.count_nonzero(stored_in(masks / f"{name}.png"))


def test_a_batch_of_pictures_is_reviewed_in_pixels(run: Path, masks: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(masks / "review.csv").set_index("case_id")
    assert {"predicted_px2", "usual_px2"} <= set(rows.columns)
    assert not [name for name in rows.columns if name.endswith("_ml")]
    for name, row in rows.iterrows():
        assert row["predicted_px2"] == np.count_nonzero(stored_in(masks / f"{name}.png"))
    assert 50 < rows["usual_px2"].median() < SIZE[0] * SIZE[1]
    assert not rows["reason"].astype(str).str.contains("cut off|ml").any()
    volseg.card(run, tmp_path / "card")
    card = (tmp_path / "card" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "median px2" in card
    assert "pixel by pixel" in card
    assert " ml" not in card
    assert " mm" not in card


def test_pictures_are_judged_in_pixels(data: Path, masks: Path, tmp_path: Path) -> None:
    found = volseg.evaluate(masks, data / "labels", tmp_path / "scores", probabilities=True, report=True, images=data)
    assert not found.failures
    assert found.metrics["dice"].mean() > 0.7
    columns = set(found.metrics)
    assert {"hd_px", "hd95_px", "assd_px", "reference_px2", "area_difference_px2", "auroc"} <= columns
    assert not [name for name in map(str, columns) if name.endswith(("_mm", "_ml")) or "volume" in name]
    row = found.metrics.set_index("case_id").loc["p0"]
    assert row["reference_px2"] == np.count_nonzero(stored_in(data / "labels" / "p0.png"))
    assert row["reference_px2"] == row["tp"] + row["fn"]
    again = volseg.compare(tmp_path / "scores", tmp_path / "scores", tmp_path / "comparison")
    assert "hd95_px" in set(again.table["metric"])
    assert " px" in (tmp_path / "scores" / "report.html").read_text()


def test_distances_of_pictures_are_counted_by_hand() -> None:
    one, other = (np.zeros((20, 30), bool) for _ in range(2))
    one[5:10, 5:10] = True
    other[5:10, 8:13] = True  # three pixels further
    found = volseg.evaluate(one.astype(np.uint8), other.astype(np.uint8), spacing_mm=(1, 1, 1)).metrics.iloc[0]
    assert found["hd_mm"] == 3
    soft = np.where(one, 0.7, 0.2)
    assert volseg.evaluate(soft, other, spacing_mm=(1, 1, 1), threshold=0.5).metrics.iloc[0]["dice"] == found["dice"]


def test_soft_masks_are_decided_by_a_threshold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("soft", "references"):
        (tmp_path / folder).mkdir()
    expected = {}
    for number in range(5):
        soft = rng.random(SIZE)
        wanted = disc(rng)
        in_bytes = (soft * 255).round().astype(np.uint8)
        if number % 2:
            Image.fromarray(soft.astype(np.float32)).save(tmp_path / "soft" / f"c{number}.tif")
        else:
            Image.fromarray(in_bytes).save(tmp_path / "soft" / f"c{number}.png")
        Image.fromarray((wanted * 255).astype(np.uint8)).save(tmp_path / "references" / f"c{number}.png")
        made = (soft.astype(np.float32) if number % 2 else in_bytes / 255) > 0.4
        expected[f"c{number}"] = 2 * (made & wanted).sum() / (made.sum() + wanted.sum())
    found = volseg.evaluate(tmp_path / "soft", tmp_path / "references", threshold=0.4).metrics.set_index("case_id")
    for name, dice in expected.items():
        assert found.loc[name, "dice"] == pytest.approx(dice, abs=1e-12)
    with pytest.raises(DataError, match="images, not masks"):
        volseg.evaluate(tmp_path / "soft", tmp_path / "references")


def test_predictions_in_memory_are_those_on_disk(data: Path, run: Path, masks: Path, tmp_path: Path) -> None:
    model = volseg.load(run)
    found = model.predict(data / "images" / "p0.png")
    stored = stored_in(masks / "p0.png")
    assert np.array_equal(found.mask.array[..., 0].T, stored)
    found.save(tmp_path / "a.png")
    assert np.array_equal(stored_in(tmp_path / "a.png"), stored)
    for suffix in (".geojson", ".coco.json", ".svg", ".overlay.png"):
        found.save(tmp_path / f"a{suffix}")
    assert stored_in(tmp_path / "a.overlay.png").shape == (*SIZE, 3)
    assert json.loads((tmp_path / "a.geojson").read_text())["features"][0]["properties"]["name"] == "disc"


def test_every_epoch_says_how_well_patches_agree(run: Path) -> None:
    history = pd.read_csv(run / "history.csv")
    shares = ["train_accuracy", "train_dice", "train_iou", "dice", "iou", "accuracy"]
    assert history[shares].iloc[-1].between(0.5, 1).all()
    assert np.allclose(history["train_iou"], history["train_dice"] / (2 - history["train_dice"]))  # of one label


def test_agreement_is_counted_by_hand() -> None:
    data = DataConfig(labels={"a": 1, "b": 2, "ignore": 9})
    reference = torch.tensor([0, 1, 1, 2, 2, 9]).reshape(1, 1, 1, 1, 6)
    answers = torch.tensor([0, 1, 2, 2, 0, 1])
    logits = torch.nn.functional.one_hot(answers, 3).float().T.reshape(1, 3, 1, 1, 6)
    all_known = torch.zeros(1, 3, dtype=torch.bool)
    one = Agreement.of(logits, reference, all_known, data)
    columns = (one + one).columns
    assert columns["train_accuracy"] == pytest.approx(3 / 5)
    assert columns["train_dice"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert columns["train_iou"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_what_nobody_annotated_is_not_counted_against_an_answer() -> None:
    """As in the loss, an answer that nobody looked for is background in labels; regions are left out by themselves."""
    answers = torch.tensor([0, 1, 2, 2])
    drawn = torch.tensor([0, 1, 0, 1]).reshape(1, 1, 1, 1, 4)
    unknown = torch.tensor([[False, False, True]])
    logits = torch.nn.functional.one_hot(answers, 3).float().T.reshape(1, 3, 1, 1, 4)
    columns = Agreement.of(logits, drawn, unknown, DataConfig(labels={"a": 1, "b": 2})).columns
    assert columns == {
        "train_accuracy": pytest.approx(3 / 4),
        "train_dice": pytest.approx(2 / 3),
        "train_iou": pytest.approx(1 / 2),
    }
    regions = [{"name": "a", "labels": [1], "value": 1}, {"name": "b", "labels": [2], "value": 2}]
    data = DataConfig.model_validate({"labels": {"a": 1, "b": 2}, "regions": regions})
    own = torch.tensor([[-1.0, 1, -1, -1], [1, 1, 1, 1]]).reshape(1, 2, 1, 1, 4)
    assert Agreement.of(own, drawn, unknown[:, 1:], data).columns == columns


def test_accuracy_of_validation_leaves_out_what_nobody_annotated(run: Path) -> None:
    config = read_config(run / "config.yaml")
    config = config.model_copy(update={"data": DataConfig(labels={"a": 1, "b": 2})})
    case = SimpleNamespace(reference=np.array([0, 1, 0, 1], np.uint8).reshape(1, 1, 4), unknown=(False, False, True))
    prediction = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool).reshape(2, 1, 1, 4)
    validator = Validator(config, torch.float32)
    assert validator._accuracy(prediction, case) == pytest.approx(3 / 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("colored", [True, False])
def test_a_large_picture_is_segmented_part_by_part_as_it_is_whole(run: Path, tmp_path: Path, *, colored: bool) -> None:
    rng = np.random.default_rng(3)
    drawn = np.tile(disc(rng), (4, 3))
    picture = rng.normal(90, 12, (*drawn.shape, 3))
    picture[..., 2] += 90 * drawn
    stored = picture.clip(0, 255).astype(np.uint8) if colored else picture[..., 2].clip(0, 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, tile=(48, 32), photometric="rgb" if colored else "minisblack")
    model = volseg.load(run)
    whole = model.predict(tmp_path / "a.tif").mask
    assert model.config.inference.air is None
    parts = volseg.load(run, changes={"inference.memory_gb": 1e-4})
    prepared = Predictor(parts.networks).prepare(find_inputs(tmp_path / "a.tif", model.channels).cases[0])
    assert isinstance(prepared.inputs[0], StreamedInput)
    part_by_part = parts.predict(tmp_path / "a.tif").mask
    assert whole.array.any()
    assert (whole.array != part_by_part.array).mean() < 1e-3  # rounding of the mean and the deviation


# Fields of view


def test_outside_of_fields_of_view_nothing_is_learned_segmented_or_scored(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", roi=True)
    rules = PartialData(roi="roi")
    dataset = find_dataset(data, rules)
    assert all(case.region for case in dataset.cases)
    changes = {**SMALL, "data.roi": "roi", **{f"network.{key}": value for key, value in NETWORKS["dynunet"].items()}}
    run = volseg.train(data, tmp_path / "run", changes=changes, epochs=2)
    assert run.config.data.ignored_value == 2
    model = volseg.load(run.folder)
    model.predict_folder(data / "images", tmp_path / "masks")
    half = SIZE[1] // 2
    for path in (data / "images").iterdir():
        assert not stored_in(tmp_path / "masks" / path.name)[:, half:].any()
    (data / "roi" / "p0.png").unlink()
    assert [item.reason for item in find_dataset(data, rules).set_aside] == [
        "an image without a field of view: no p0 in roi/"
    ]
    with pytest.raises(DataError, match="no folder fov of fields of view"):
        find_dataset(data, PartialData(roi="fov"))


# All networks, by the same commands


@pytest.mark.slow
@pytest.mark.parametrize("flat", [True, False], ids=["2d", "3d"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "dynunet"])
def test_each_network_trains_resumes_predicts_and_converts(name: str, tmp_path: Path, *, flat: bool) -> None:
    changes = {**SMALL, **{f"network.{key}": value for key, value in NETWORKS[name].items()}}
    if flat:
        data = pictures(tmp_path / "data")
        changes["patches.size"] = [1, 64, 64]
    else:
        data = tmp_path / "data"
        write_dataset(data, 4)
        changes |= {"patches.size": [64, 64, 32], "network.dimensions": 3, "training.steps_per_epoch": 2}
        del changes["data.labels"]
        if name == "unet":
            changes["network.strides"] = [[2, 2, 2]]

    def interrupt(row: Any) -> None:
        assert row["epoch"] == 1
        raise volseg.Cancelled

    with pytest.raises(volseg.Cancelled):
        volseg.train(data, tmp_path / "run", changes=changes, epochs=2, on_epoch_done=interrupt)
    run = volseg.train(data, tmp_path / "run", changes=changes, epochs=2, resume=True)
    assert pd.read_csv(tmp_path / "run" / "history.csv")["epoch"].tolist() == [1, 2]
    batch = volseg.load(run.folder).predict_folder(data / "images", tmp_path / "masks")
    assert batch.count("segmented") == len(batch)
    volseg.convert(run.folder, tmp_path / "onnx", to="onnx")
    session = onnxruntime.InferenceSession(str(next((tmp_path / "onnx").rglob("*.onnx"))))
    image = np.random.default_rng(0).random((1, run.config.data.inputs, *run.config.window), np.float32)
    (answers,) = session.run(None, {session.get_inputs()[0].name: image})
    network = volseg.load(run.folder).networks[0].network.eval()
    with torch.no_grad():
        assert np.allclose(answers, network(torch.from_numpy(image)).numpy(), atol=1e-3)


@pytest.mark.real_data
def test_real_pictures_are_found_and_read(real_data: Path) -> None:
    fundus = find_dataset(real_data / "chase_db1", PartialData(roi="roi"))
    assert (len(fundus.cases), fundus.channels) == (20, ("red", "green", "blue"))
    nuclei = find_dataset(real_data / "dsb2018", PartialData(values="objects"))
    assert len(nuclei.cases) == 265
    shown = read_shown(fundus.cases[0].image)
    assert shown.geometry.shape == (999, 960, 1)


def test_a_data_set_is_shown_on_one_page(data: Path, tmp_path: Path) -> None:
    page = volseg.show(data, tmp_path / "data.html", changes={"data.labels.disc": 1})
    text = page.read_text()
    assert "6 cases" in text
    assert text.count("<figure>") == 6 + 3 * 6  # each case, then patches of three of them
    assert "p0: 64x48 pixels" in text
    assert "in 6 of 6 cases" in text
    assert "http" not in text.replace("http://www.w3.org", "").split("</script>")[-1]
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(volseg.OutputExistsError):
        volseg.show(data, tmp_path / "mine.html", changes={"data.labels.disc": 1})


# docs/pictures.md

DOCUMENT = Path(__file__).parents[1] / "docs" / "pictures.md"
#: Of training, so that a command takes seconds.
BRIEF = "--set training.steps_per_epoch=1 --set training.workers=0 --set training.folds=2 --set inference.backend=torch"


def documented_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("volseg ")]


@pytest.mark.slow
def test_every_command_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volseg: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("vessels", "xrays", "slides"):
        pictures(tmp_path / "data" / name, 4)
    for path in (tmp_path / "data" / "slides").rglob("*.png"):
        with Image.open(path) as picture:
            picture.save(path, dpi=(254, 254))
    write_dataset(tmp_path / "data" / "abdomen", 4)
    drive = pictures(tmp_path / "DRIVE" / "training", 4, roi=True)
    for folder, called, named in (
        ("images", "images", "{}_training.tif"),
        ("labels", "1st_manual", "{}_manual1.gif"),
        ("roi", "mask", "{}_training_mask.gif"),
    ):
        (drive / called).mkdir(exist_ok=True)
        for path in sorted((drive / folder).iterdir()):
            with Image.open(path) as picture:
                picture.save(drive / called / named.format(path.stem))
            path.unlink()
    (tmp_path / "photographs").symlink_to(tmp_path / "data" / "vessels" / "images")
    (tmp_path / "patients").symlink_to(tmp_path / "data" / "abdomen" / "images")
    torch.save(build_encoder(EncoderConfig(name="resnet18"), 3, 2).state_dict(), tmp_path / "resnet18.pth")
    commands = documented_commands()
    assert len(commands) >= 8
    for command in commands:
        words = shlex.split(re.sub(r"--minutes \d+", f"--epochs 1 {BRIEF}", command))[1:]
        if words[0] == "train" and "data.labels.vessel=1" not in words and "data/abdomen" not in words:
            words += ["--set", "data.labels.vessel=1"]
        if words[0] == "train" and "--epochs" not in words:
            words += shlex.split(f"--epochs 1 {BRIEF}")
        code, out, err = volseg(*words)
        assert code == 0, (command, out, err)
