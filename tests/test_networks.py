from __future__ import annotations

import copy

import pytest
import torch
from monai.networks import nets

from volseg.config import (
    AttentionUnet,
    DataConfig,
    DynUNet,
    LossConfig,
    NetworkConfig,
    PlainUNet,
    Region,
    ResidualEncoderUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
)
from volseg.model.label_encoding import decide, encode, label_values, unknown_outputs, winners
from volseg.model.networks import GuardedConv3d, build_network, choose_precision, patch_divisor
from volseg.training.losses import SegmentationLoss

NETWORKS = [
    UNet(channels=(8, 16, 32), strides=((2, 2, 2), (2, 2, 1))),
    VNet(),
    VNet(filters=4),
    DynUNet(filters=(8, 16, 16), strides=((2, 2, 1), (2, 2, 2))),
    PlainUNet(
        filters=(8, 12, 16),
        kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3)),
        strides=((2, 2, 1), (2, 2, 2)),
        blocks=(1, 2, 2),
        decoder_blocks=(1, 2),
    ),
    ResidualEncoderUNet(filters=(8, 12, 16), strides=((2, 2, 1), (2, 2, 2)), blocks=(1, 2, 3), decoder_blocks=(1, 1)),
    SegResNet(initial_filters=8, blocks_down=(1, 1)),
    AttentionUnet(channels=(8, 16)),
    SwinUNETR(feature_size=12),
]
LOSSES = ["dice_ce", "dice", "dice_focal", "tversky", "generalized_dice", "jaccard"]
LABELS = DataConfig(labels={"a": 1, "b": 4})
REGIONS = DataConfig(
    labels={"edema": 1, "core": 2},
    regions=(Region(name="whole", labels=(1, 2), value=1), Region(name="core", labels=(2,), value=2)),
)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_gives_logits_on_the_grid_of_its_input(config: NetworkConfig, channels: int) -> None:
    network = build_network(config, channels, outputs=3).eval()
    divisor = patch_divisor(config)
    # SwinUNETR normalises its deepest features, which must be more than one voxel
    size = tuple(2 * step if step >= 16 else 8 * step for step in divisor)
    with torch.no_grad():
        assert network(torch.rand(1, channels, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("filters", [4, 16])
@pytest.mark.parametrize("channels", range(1, 8))
def test_vnet_takes_any_number_of_channels(channels: int, filters: int) -> None:
    network = build_network(VNet(filters=filters), channels, outputs=2).eval()
    with torch.no_grad():
        assert network(torch.rand(1, channels, 16, 16, 16)).shape == (1, 2, 16, 16, 16)


@pytest.mark.parametrize("config", NETWORKS[:7], ids=lambda config: config.name)
def test_a_patch_that_is_not_divisible_does_not_fit(config: NetworkConfig) -> None:
    """The divisor is not larger than needed: half of it fails, so plans do not waste voxels."""
    network = build_network(config, 1, outputs=2).eval()
    axis = max(range(3), key=lambda n: patch_divisor(config)[n])
    size = [2 * step for step in patch_divisor(config)]
    size[axis] += patch_divisor(config)[axis] // 2
    with torch.no_grad(), pytest.raises(RuntimeError):
        network(torch.rand(1, 1, *size))


def test_a_vnet_of_the_papers_width_is_that_of_monai() -> None:
    torch.manual_seed(0)
    ours = build_network(VNet(), 1, outputs=2)
    torch.manual_seed(0)
    theirs = nets.VNet(3, 1, 2, dropout_prob_down=None, dropout_prob_up=(None, 0.0))
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    narrow = build_network(VNet(filters=8), 1, outputs=2)
    counts = [sum(parameter.numel() for parameter in each.parameters()) for each in (narrow, ours)]
    assert 3.9 < counts[1] / counts[0] < 4.1


def soil_memory() -> None:
    """Fill memory that is then freed with NaN, so that whatever reads undefined memory is found out."""
    del (_ := [torch.full((count,), float("nan")) for count in (10**5, 10**6, 10**7)])[:]


@pytest.mark.parametrize(
    ("kernel", "size"), [(5, (4, 6, 4)), (5, (2, 3, 2)), (3, (2, 2, 2)), (3, (4, 4, 4)), (5, (6, 6, 6))]
)
def test_bf16_weight_gradients_are_those_of_fp32(kernel: int, size: tuple[int, int, int]) -> None:
    """PyTorch's bf16 weight gradients are undefined where a feature map is narrower than the kernel."""
    torch.manual_seed(0)
    convolution = GuardedConv3d(64, 64, kernel, padding=kernel // 2)
    image, weights = torch.randn(2, 64, *size), torch.randn(2, 64, *size)
    (expected,) = torch.autograd.grad((convolution(image) * weights).sum(), convolution.weight)
    for _ in range(4):
        soil_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = convolution(image)
        (got,) = torch.autograd.grad((result.float() * weights).sum(), convolution.weight)
        assert (got - expected).norm() < 0.02 * expected.norm()


def test_every_convolution_of_a_network_is_guarded() -> None:
    network = build_network(VNet(), 3, outputs=2)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv3d)]
    assert convolutions
    assert all(type(module) is GuardedConv3d for module in convolutions)


def test_a_network_that_has_learned_something_can_be_copied() -> None:
    """MONAI's DynUNet keeps the answers of its coarser levels, which PyTorch refuses to copy."""
    network = build_network(DynUNet(strides=((2, 2, 2),) * 2, filters=(2, 4, 8), deep_supervision=1), 1, outputs=2)
    network(torch.zeros(1, 1, 8, 8, 16)).sum().backward()
    copied = copy.deepcopy(network).eval()
    image = torch.randn(1, 1, 8, 8, 16)
    assert torch.equal(copied(image), network.eval()(image))


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) is torch.float32
    assert choose_precision("bf16", cpu) is torch.bfloat16
    assert choose_precision("auto", cpu) in {torch.float32, torch.bfloat16}


def _logits(reference: torch.Tensor, data: DataConfig, strength: float) -> torch.Tensor:
    return (encode(reference, data).float() * 2 - 1) * strength


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("data", [LABELS, REGIONS], ids=["labels", "regions"])
def test_losses_fall_as_the_answer_gets_better(name: str, data: DataConfig) -> None:
    values = torch.tensor([0, *data.labels.values()])
    reference = values[torch.randint(3, (2, 1, 6, 6, 6), generator=torch.Generator().manual_seed(0))]
    loss = SegmentationLoss(LossConfig(name=name), data)  # type: ignore[arg-type]
    wrong, unsure, right = (loss(_logits(reference, data, strength), reference).item() for strength in (-8.0, 0.0, 8.0))
    assert right < unsure < wrong
    assert right < 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_losses_teach(name: str) -> None:
    reference = torch.zeros(1, 1, 4, 4, 4)
    reference[..., :2] = 4
    logits = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    SegmentationLoss(LossConfig(name=name), LABELS)(logits, reference).backward()  # type: ignore[arg-type]
    assert logits.grad is not None
    # more of label "b" where it is, less where it is not
    assert (logits.grad[:, 2, ..., :2] < 0).all()
    assert (logits.grad[:, 2, ..., 2:] > 0).all()


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("regions", [(), (Region(name="both", labels=(1, 2), value=1),)])
def test_ignored_voxels_are_as_if_they_were_not_there(name: str, batch: bool, regions: tuple[Region, ...]) -> None:
    plain = DataConfig(labels={"a": 1, "b": 2}, regions=regions)
    sparse = DataConfig(labels={"a": 1, "b": 2, "ignore": 7}, regions=regions)
    logits = torch.randn(2, plain.outputs, 6, 4, 4, requires_grad=True)
    reference = torch.randint(0, 3, (2, 1, 6, 4, 4))
    config = LossConfig(name=name, batch=batch)  # type: ignore[arg-type]
    expected = SegmentationLoss(config, plain)(logits[:, :, :4], reference[:, :, :4])
    (wanted,) = torch.autograd.grad(expected, logits)
    reference[:, :, 4:] = 7
    loss = SegmentationLoss(config, sparse)(logits, reference)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted)
    assert not gradient[:, :, 4:].any()


def _with_unknown(data: DataConfig, *names: str) -> torch.Tensor:
    """One patch whose reference was drawn for some labels only."""
    return torch.tensor([unknown_outputs(names, data)])


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_that_nobody_looked_for_may_be_anywhere_in_the_background(name: str) -> None:
    data = DataConfig(labels={"a": 1, "b": 2, "ignore": 7})
    reference = torch.zeros(1, 1, 6, 4, 4)
    reference[..., :2, :, :] = 1
    reference[..., 5, :, :] = 7
    found = torch.where((reference == 0) & (torch.arange(4) < 2), 2.0, reference)  # "b" in half of the background
    loss = SegmentationLoss(LossConfig(name=name), data)  # type: ignore[arg-type]
    unknown = _with_unknown(data, "a")
    right, more, wrong = (
        loss(_logits(each, data, 8.0), reference, unknown).item()
        for each in (reference, found, reference[:, :, [3] * 6])
    )
    assert right == pytest.approx(more, abs=1e-5)
    assert right < 0.1 < wrong
    assert loss(_logits(found, data, 8.0), reference).item() > right + 0.1
    torch.testing.assert_close(
        loss(_logits(found, data, 8.0), reference, _with_unknown(data, "a", "b")),
        loss(_logits(found, data, 8.0), reference),
    )


def test_background_and_a_label_nobody_looked_for_count_as_one_class() -> None:
    """Cross-entropy of labels a and b, drawn for a alone, is that of a against what is not a, by its formula."""
    data = DataConfig(labels={"a": 1, "b": 2})
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    loss = SegmentationLoss(LossConfig(name="dice_ce"), data)
    dice = SegmentationLoss(LossConfig(name="dice"), data)
    reference = torch.zeros(1, 1, 2, 2, 2)
    unknown = _with_unknown(data, "a")
    rest = 1 - torch.softmax(logits, dim=1)[:, 1]
    value = loss(logits, reference, unknown) - dice(logits, reference, unknown)
    torch.testing.assert_close(value, -rest.log().mean())


@pytest.mark.parametrize("name", LOSSES)
def test_a_region_with_a_part_that_nobody_looked_for_teaches_nothing(name: str) -> None:
    regions = (Region(name="all", labels=(1, 2), value=1), Region(name="core", labels=(2,), value=2))
    data = DataConfig(labels={"shell": 1, "core": 2}, regions=regions)
    logits = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    reference = torch.randint(0, 2, (1, 1, 4, 4, 4)) * 2
    loss = SegmentationLoss(LossConfig(name=name), data)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss(logits, reference, _with_unknown(data, "core")), logits)
    assert not gradient[:, 0].any()
    assert gradient[:, 1].all()
    assert torch.isfinite(gradient).all()


def test_coarser_levels_count_half_as_much_each() -> None:
    loss = SegmentationLoss(LossConfig(), LABELS)
    levels = torch.randn(2, 3, 3, 8, 8, 8)
    reference = torch.tensor([0, 1, 4])[torch.randint(3, (2, 1, 8, 8, 8))]
    each = [loss(level, reference) for level in levels.unbind(1)]
    torch.testing.assert_close(loss(levels, reference), (4 * each[0] + 2 * each[1] + each[2]) / 7)


def test_deep_supervision_answers_on_every_level_while_training_only() -> None:
    config = DynUNet(filters=(8, 8, 8, 8), strides=((2, 2, 2),) * 3, deep_supervision=2)
    network = build_network(config, 1, outputs=3)
    image = torch.randn(2, 1, 16, 16, 16)
    assert network.train()(image).shape == (2, 3, 3, 16, 16, 16)
    torch.testing.assert_close(network(image)[:, 0], network.eval()(image))
    with pytest.raises(ValueError, match="3 strides leave 2 levels"):
        DynUNet(filters=(8, 8, 8, 8), strides=((2, 2, 2),) * 3, deep_supervision=3)


def test_dice_loss_equals_its_formula() -> None:
    """1 - (2 * overlap) / (sum of both), one label, probabilities 1/3 everywhere, a quarter of the voxels labelled."""
    data = DataConfig(labels={"a": 1, "b": 2})
    reference = torch.zeros(1, 1, 4, 4, 4)
    reference[..., 0] = 1
    loss = SegmentationLoss(LossConfig(name="dice"), data)(torch.zeros(1, 3, 4, 4, 4), reference)
    dice_a = 2 * (16 / 3) / (64 / 3 + 16)
    dice_b = 0.0
    assert loss.item() == pytest.approx(1 - (dice_a + dice_b) / 2, abs=1e-4)


def test_encode_and_decide_are_inverse() -> None:
    reference = torch.tensor([0, 1, 4, 4, 0]).reshape(1, 1, 5, 1, 1)
    logits = _logits(reference, LABELS, 5.0)[0]
    assert label_values(LABELS)[winners(logits.movedim(0, -1), LABELS)].ravel().tolist() == [0, 1, 4, 4, 0]
    assert decide(logits, LABELS).int().flatten(1).tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]


def test_regions_overlap_and_the_last_one_shows() -> None:
    reference = torch.tensor([0, 1, 2]).reshape(1, 1, 3, 1, 1)
    assert encode(reference, REGIONS).int().flatten(2).tolist() == [[[0, 1, 1], [0, 0, 1]]]
    logits = _logits(reference, REGIONS, 5.0)[0]
    assert decide(logits, REGIONS).int().flatten(1).tolist() == [[0, 1, 1], [0, 0, 1]]
    assert label_values(REGIONS)[winners(logits.movedim(0, -1), REGIONS)].ravel().tolist() == [0, 1, 2]
