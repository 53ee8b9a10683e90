from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from volseg.config import UNet, validate
from volseg.model.checkpoint import TrainedNetwork, load_model, save_model
from volseg.model.identity import fingerprint as fingerprint_of
from volseg.model.networks import build_network

CONFIG = UNet(channels=(2, 4), strides=((2, 2, 2),))


def make(config: UNet = CONFIG) -> nn.Module:
    torch.manual_seed(0)
    return build_network(config, 1, 2).eval()


def fingerprint(network: nn.Module, config: UNet) -> str:
    return fingerprint_of(network.state_dict(), config)


def nudged(network: nn.Module) -> nn.Module:
    weight = next(network.parameters())
    with torch.no_grad():
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    return network


def test_the_same_weights_are_the_same_network_wherever_they_lie() -> None:
    expected = fingerprint(make(), CONFIG)
    assert len(expected) == 64
    assert fingerprint(make(), CONFIG) == expected
    assert fingerprint(make().to(memory_format=torch.channels_last_3d), CONFIG) == expected  # type: ignore[call-overload]


@pytest.mark.parametrize("change", [nudged, nn.Module.double, nn.Module.bfloat16, nn.Sequential])
def test_any_other_weight_type_or_name_is_another_network(change: Callable[[nn.Module], nn.Module]) -> None:
    assert fingerprint(change(make()), CONFIG) != fingerprint(make(), CONFIG)


def test_the_same_weights_put_together_in_another_way_are_another_network() -> None:
    other = CONFIG.model_copy(update={"dropout": 0.5})
    assert fingerprint(make(), other) != fingerprint(make(), CONFIG)


def test_a_loaded_model_has_the_fingerprint_of_what_was_saved(tmp_path: Path) -> None:
    sections = {
        "data": {"labels": {"a": 1}},
        "preprocessing": {"spacing_mm": [1, 1, 1], "normalization": [{"method": "zscore"}]},
        "patches": {"size": [8, 8, 8]},
    }
    config = validate({**sections, "network": CONFIG.model_dump()}, "test")
    network = make(config.network)
    save_model(tmp_path / "one.pt", network, config, dice=0.5, epoch=1)
    save_model(tmp_path / "two.pt", network, config, dice=0.6, epoch=2)
    one, two = (load_model(tmp_path / name, torch.device("cpu")) for name in ("one.pt", "two.pt"))
    assert one.fingerprint == two.fingerprint == TrainedNetwork.of(network, config).fingerprint
