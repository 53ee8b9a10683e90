from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TINY, train_folder
from monai.networks import nets

from volseg.config import (
    AttentionUnet,
    Config,
    DeepLab,
    DynUNet,
    EncoderConfig,
    EncoderUNet,
    NetworkConfig,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
    merge,
    validate,
)
from volseg.errors import CheckpointError, ConfigError
from volseg.model.checkpoint import load, load_model, save_model
from volseg.model.networks import build_network
from volseg.training.transfer import freeze_encoder, load_matching_weights

NETWORKS: list[NetworkConfig] = [
    UNet(channels=(8, 16, 32), strides=((2, 2, 2), (2, 2, 1))),
    VNet(),
    DynUNet(filters=(8, 16, 16), strides=((2, 2, 1), (2, 2, 2))),
    SegResNet(initial_filters=8, blocks_down=(1, 1)),
    AttentionUnet(channels=(8, 16, 32)),
    SwinUNETR(feature_size=12),
]


def config_of(network: NetworkConfig, labels: dict[str, int], channels: tuple[str, ...] = ("mr",)) -> Config:
    tree = {
        "data": {"channels": channels, "labels": labels},
        "preprocessing": {"spacing_mm": (1, 1, 1), "normalization": [{"method": "zscore"}] * len(channels)},
        "patches": {"size": (32, 32, 32)},
        "network": network.model_dump(),
    }
    return validate(tree, "a test")


def built(config: Config, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_network(config.network, len(config.data.channels), config.data.outputs)


def depends(config: Config, *, channels: int = 0, outputs: int = 0) -> set[str]:
    """Weights whose shape is another with more channels or outputs."""
    numbers = len(config.data.channels), config.data.outputs
    one = build_network(config.network, *numbers).state_dict()
    other = build_network(config.network, numbers[0] + channels, numbers[1] + outputs).state_dict()
    return {key for key in {*one, *other} if key not in one or key not in other or one[key].shape != other[key].shape}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.name)
def test_all_weights_are_taken_but_those_of_other_labels(
    network: NetworkConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = config_of(network, {"liver": 1, "spleen": 2})
    first = built(earlier, 0)
    save_model(tmp_path / "model.pt", first, earlier, dice=0.5, epoch=1)
    for labels in ({"liver": 1, "spleen": 2}, {"left": 1, "right": 2}, {"liver": 1}):
        config = config_of(network, labels)
        second = built(config, 1)
        random = {key: value.clone() for key, value in second.state_dict().items()}
        with caplog.at_level(logging.WARNING):
            load_matching_weights(second, config, tmp_path / "model.pt")
        head = depends(config, outputs=1) if tuple(labels) != ("liver", "spleen") else set()
        for key, value in second.state_dict().items():
            assert torch.equal(value, random[key] if key in head else first.state_dict()[key])
        assert all(key.rpartition(".")[0] in caplog.messages[-1] for key in head & set(random))
    assert caplog.messages[0].endswith("initialised at random: none")


def test_other_channels_get_new_first_layers(tmp_path: Path) -> None:
    earlier = config_of(NETWORKS[0], {"liver": 1}, ("t1", "t2"))
    first = built(earlier, 0)
    save_model(tmp_path / "model.pt", first, earlier, dice=0.5, epoch=1)
    for channels in (("t1", "t2"), ("t2", "flair"), ("t1",)):
        config = config_of(NETWORKS[0], {"liver": 1}, channels)
        second = built(config, 1)
        load_matching_weights(second, config, tmp_path / "model.pt")
        taken = {
            key
            for key, value in second.state_dict().items()
            if value.shape == first.state_dict()[key].shape and torch.equal(value, first.state_dict()[key])
        }
        stem = set() if channels == ("t1", "t2") else depends(config, channels=1)
        weights = {key for key, value in second.state_dict().items() if value.ndim > 1}
        assert weights - taken == stem & weights


def test_a_layer_that_is_new_is_not_frozen() -> None:
    config = config_of(NETWORKS[0], {"liver": 1})
    network = built(config, 0)
    stem = depends(config, channels=1)
    assert stem
    freeze_encoder(network, NETWORKS[0].name, set(network.state_dict()) - stem)
    learning = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert stem & dict(network.named_parameters()).keys() <= learning
    with pytest.raises(ConfigError, match="none are given"):
        validate({**config.model_dump(mode="json"), "training": {"freeze_encoder": True}}, "a test")
    with pytest.raises(CheckpointError, match="none can be frozen"):
        freeze_encoder(network, NETWORKS[0].name, set())


@pytest.mark.parametrize(
    "network",
    [
        VNet(design="paper", filters=4),
        VNet(design="paper", filters=4, dimensions=2, neighbors=1),
        UNet(dimensions=2, neighbors=1, strides=((1, 2, 2),) * 3),
        EncoderUNet(encoder=EncoderConfig(width=0.25), dimensions=2, neighbors=1),
        DeepLab(encoder=EncoderConfig(width=0.25)),
    ],
    ids=lambda each: f"{each.name}-{each.dimensions}d-{each.neighbors}",
)
def test_what_wraps_a_network_hides_no_encoder(network: NetworkConfig) -> None:
    model = build_network(network, 1, 2)
    freeze_encoder(model, network.name, model.state_dict())
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    learning = {key for key, _ in model.named_parameters()} - frozen
    wider = build_network(network, 2, 2).state_dict()
    first = {key for key, weight in model.named_parameters() if weight.shape != wider[key].shape}
    assert first & frozen
    assert len(frozen) >= len(learning) / 2
    assert list(dict(model.named_parameters()))[-1] in learning


@pytest.mark.parametrize("network", NETWORKS, ids=lambda each: each.name)
def test_a_frozen_encoder_is_what_sees_the_image_and_not_what_answers(network: NetworkConfig) -> None:
    config = config_of(network, {"liver": 1, "spleen": 2})
    model = built(config, 0)
    freeze_encoder(model, network.name, model.state_dict())
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    learning = dict(model.named_parameters()).keys() - frozen
    assert depends(config, channels=1) & {*frozen, *learning} <= frozen | depends(config, outputs=1)
    assert depends(config, outputs=1) & {*frozen, *learning} <= learning
    if not isinstance(network, SwinUNETR):  # whose skip connections from the image are encoders, too
        count = sum(dict(model.named_parameters())[key].numel() for key in frozen)
        assert 0.2 < count / sum(parameter.numel() for parameter in model.parameters()) < 0.9


@pytest.mark.parametrize("key", [None, "state_dict", "model", "distributed"])
def test_weights_of_a_monai_bundle_are_taken(tmp_path: Path, key: str | None) -> None:
    torch.manual_seed(0)
    theirs = nets.SegResNet(3, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,))
    weights = theirs.state_dict()
    if key == "distributed":  # with the state of its optimizer in front
        weights = {f"module.{name}": value for name, value in weights.items()}
    content = {"optimizer": {"state": {}, "param_groups": []}, key: weights}
    torch.save(weights if key is None else content, tmp_path / "bundle.pt")
    config = config_of(NETWORKS[3], {"liver": 1, "spleen": 2})
    ours = built(config, 1)
    load_matching_weights(ours, config, tmp_path / "bundle.pt")
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(ours.eval()(image), theirs.eval()(image))


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    config = config_of(NETWORKS[0], {"liver": 1})
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"no weights of .* fit network unet"):
        load_matching_weights(built(config, 0), config, tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_matching_weights(built(config, 0), config, tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="there is no model at"):
        load_matching_weights(built(config, 0), config, tmp_path / "nothing")


def test_a_run_goes_on_from_another_with_its_network_and_voxel_size(
    dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    tree = {key: value for key, value in TINY.items() if key != "network"}
    start = {"training": {"start_from": str(trained_run), "freeze_encoder": True, "epochs": 2, "steps_per_epoch": 3}}
    run = train_folder(dataset, tmp_path / "run", merge(tree, start))
    earlier = load_model(trained_run, torch.device("cpu"))
    assert run.config.network == earlier.config.network
    assert run.config.preprocessing.spacing_mm == earlier.config.preprocessing.spacing_mm
    assert run.config.training.learning_rate == pytest.approx(0.3 * earlier.config.training.learning_rate)
    assert pd.read_csv(tmp_path / "run" / "history.csv")["loss"].iloc[0] < 0.8  # an untrained network begins above 1
    before, after = earlier.network.state_dict(), load(tmp_path / "run" / "last.pt")["network"]
    assert torch.equal(after["model.0.conv.unit0.conv.weight"], before["model.0.conv.unit0.conv.weight"])
    assert not torch.equal(after["model.2.0.conv.weight"], before["model.2.0.conv.weight"])
