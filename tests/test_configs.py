from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from volseg.cases import Dataset
from volseg.config import Config, PartialConfig, read_overrides
from volseg.model.label_encoding import encode, label_values, winners
from volseg.model.networks import build_network, patch_divisor
from volseg.planning import lateral_pairs, plan_folder

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
CHANNELS = {"hippocampus": ("image",), "abdomen_ct": ("image",), "brain_tumour": ("flair", "t1w", "t1gd", "t2w")}
CHANNELS["nuclei"] = ("red", "green", "blue")
OUTPUTS = {"hippocampus": 3, "abdomen_ct": 14, "brain_tumour": 3, "nuclei": 2}
NETWORKS = ("unet", "vnet")


def write(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 2.0, 1.0])), path)


def labelled(count: int, seed: int) -> NDArray[np.uint8]:
    """(12, 14, 10) with every label from 1 to `count` in it."""
    labels = np.random.default_rng(seed).integers(0, count + 1, (12, 14, 10)).astype(np.uint8)
    labels.ravel()[: count + 1] = range(count + 1)
    return labels


def equal_names(root: Path, count: int, intensity: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
    for case in range(2):
        labels = labelled(count, case)
        write(root / "images" / f"case_{case}.nii.gz", intensity(labels))
        write(root / "labels" / f"case_{case}.nii.gz", labels)


def write_hippocampus(root: Path) -> None:
    equal_names(root, 2, lambda labels: 100.0 * labels.astype(np.float32))


def write_abdomen(root: Path) -> None:
    equal_names(root, 13, lambda labels: np.where(labels > 0, 20.0 * labels, -1000.0).astype(np.float32))


def write_decathlon(root: Path, channels: Sequence[str], labels: Sequence[str]) -> None:
    pairs = [{"image": f"imagesTr/b{case}.nii.gz", "label": f"labelsTr/b{case}.nii.gz"} for case in range(2)]
    for case, pair in enumerate(pairs):
        reference = labelled(len(labels), case)
        image = np.stack([reference + np.float32(channel) for channel in range(len(channels))], axis=-1)
        write(root / pair["image"], image if len(channels) > 1 else image[..., 0])
        write(root / pair["label"], reference)
    description = {
        "modality": {str(index): name for index, name in enumerate(channels)},
        "labels": {str(value): name for value, name in enumerate(["background", *labels])},
        "training": pairs,
    }
    (root / "dataset.json").write_text(json.dumps(description))


def write_brain(root: Path) -> None:
    write_decathlon(root, ("FLAIR", "T1w", "t1gd", "T2w"), ("edema", "non-enhancing tumor", "enhancing tumour"))


def write_nuclei(root: Path) -> None:
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        for folder in ("images", "masks"):
            (root / case / folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)).save(root / case / "images" / f"{case}.png")
        for nucleus in range(3):
            mask = np.zeros((80, 96), np.uint8)
            mask[20 * nucleus : 20 * nucleus + 12, 30:50] = 255
            Image.fromarray(mask).save(root / case / "masks" / f"{rng.integers(2**32):x}.png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    writers = {"hippocampus": write_hippocampus, "abdomen_ct": write_abdomen, "brain_tumour": write_brain}
    writers["nuclei"] = write_nuclei
    for name, writer in writers.items():
        (root / name).mkdir()
        writer(root / name)
    return {name: root / name for name in writers}


@pytest.fixture(scope="module")
def resolved(folders: dict[str, Path]) -> dict[str, tuple[Dataset, Config]]:
    """Every config laid over the plan of a data set of its kind."""
    found = {}
    for path in CONFIGS:
        found[path.stem] = resolve(folders[topic(path)], path)
    return found


def resolve(data: Path, config: Path) -> tuple[Dataset, Config]:
    """What `volseg train` makes of a data set and a config, but for what it times."""
    dataset, plan = plan_folder(data, PartialConfig.of(read_overrides(config)))
    return dataset, plan.config


def topic(path: Path) -> str:
    return path.stem.partition("_")[2]


def test_both_networks_have_a_config_for_every_kind_of_data() -> None:
    assert {path.stem for path in CONFIGS} == {f"{network}_{topic}" for network in NETWORKS for topic in OUTPUTS}


each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@each_config
def test_header_says_which_command_uses_the_file(path: Path) -> None:
    header = path.read_text().split("\n")[:3]
    assert all(line.startswith("# ") for line in header)
    assert f"--config configs/{path.name}" in header[1]


@each_config
def test_no_key_is_given_twice(path: Path) -> None:
    # YAML keeps the last of two equal keys without a word.
    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            for _, value in node.value:
                check(value)

    check(yaml.compose(path.read_text()))


@each_config
def test_config_keeps_the_channels_of_the_data_set(path: Path, resolved: dict[str, tuple[Dataset, Config]]) -> None:
    dataset, config = resolved[path.stem]
    assert "channels" not in read_overrides(path)["data"]
    assert config.data.channels == dataset.channels == CHANNELS[topic(path)]
    assert len(dataset.cases) == 2


@each_config
def test_what_the_file_says_is_what_is_used(path: Path, resolved: dict[str, tuple[Dataset, Config]]) -> None:
    _, config = resolved[path.stem]
    said = read_overrides(path)
    used = config.model_dump(mode="json", exclude_unset=True)
    for section, values in said.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            assert used[section][key] == value, f"{section}.{key}"
    assert config.network.name == path.stem.partition("_")[0]


@each_config
def test_network_maps_a_patch_to_one_logit_per_output(path: Path, resolved: dict[str, tuple[Dataset, Config]]) -> None:
    _, config = resolved[path.stem]
    channels, size = len(config.data.channels), config.patches.size
    assert all(side % step == 0 for side, step in zip(size, patch_divisor(config.network), strict=True))
    with torch.device("meta"):  # shapes alone: nothing is allocated or computed
        logits = build_network(config.network, channels, config.data.outputs)(torch.empty(1, channels, *size))
    assert logits.shape == (1, OUTPUTS[topic(path)], *size)


@each_config
def test_exactly_the_sided_labels_change_places_in_a_flip(
    path: Path, resolved: dict[str, tuple[Dataset, Config]]
) -> None:
    _, config = resolved[path.stem]
    pairs, alone = lateral_pairs(list(config.data.labels))
    assert set(config.augmentation.swap_labels) == set(pairs)
    assert not alone
    if topic(path) != "nuclei":  # pictures have no sides
        assert ("left-right" in config.augmentation.flip_axes) == (not pairs)
    assert len(pairs) == (2 if topic(path) == "abdomen_ct" else 0)


@each_config
def test_every_rule_names_its_own_label(path: Path, resolved: dict[str, tuple[Dataset, Config]]) -> None:
    _, config = resolved[path.stem]
    named = [rule.label for rule in config.postprocess]
    assert len(named) == len(set(named))
    if topic(path) == "abdomen_ct":
        assert set(named) == set(config.data.labels)


@pytest.mark.parametrize("topic", OUTPUTS)
def test_the_networks_differ_in_nothing_but_what_the_network_needs(topic: str) -> None:
    one, other = (read_overrides(CONFIGS[0].parent / f"{network}_{topic}.yaml") for network in NETWORKS)
    for tree in (one, other):
        for section in ("network", "patches", "training"):
            tree.pop(section, None)
    assert one == other


@pytest.mark.parametrize("network", NETWORKS)
def test_painted_brain_regions_are_the_labels_again(network: str, resolved: dict[str, tuple[Dataset, Config]]) -> None:
    _, config = resolved[f"{network}_brain_tumour"]
    reference = torch.arange(4).reshape(1, 1, 4, 1, 1)
    numbers = winners(encode(reference, config.data)[0].float().movedim(0, -1), config.data)
    assert label_values(config.data)[numbers].ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("network", NETWORKS)
def test_hippocampus_configs_take_the_decathlon_folder_too(network: str, tmp_path: Path) -> None:
    write_decathlon(tmp_path, ("MRI",), ("Anterior", "Posterior"))
    dataset, config = resolve(tmp_path, CONFIGS[0].parent / f"{network}_hippocampus.yaml")
    assert config.data.channels == dataset.channels == ("mri",)
    assert config.data.labels == {"anterior": 1, "posterior": 2}
