from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import resample_linear
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from scipy.ndimage import gaussian_filter
from torch import nn

from volseg.config import (
    AttentionUnet,
    CtNormalization,
    DataConfig,
    DynUNet,
    InferenceConfig,
    NetworkConfig,
    PlainUNet,
    Region,
    ResidualEncoderUNet,
    SegResNet,
    UNet,
    VNet,
    ZScore,
)
from volseg.errors import ConfigError, MemoryShortageError
from volseg.image.box import Box
from volseg.image.geometry import Geometry
from volseg.image.resampled import ResampledVolume, Resampling
from volseg.image.resampling import interpolate_axis
from volseg.inference.engine_trials import Trial, fastest_engine, remember, remembered, trial_key, try_engines
from volseg.inference.engines import Engine, allowed, averaged, is_shortage, split_on_oom, start
from volseg.inference.mirroring import Mirroring, mirrored
from volseg.inference.network_rewriting import PackedConv3d, PackedUpsampling3d, rewrite, rewrite_for_torch
from volseg.inference.restore import find_targets, restore
from volseg.inference.segmentation import Limits, Network, Work, segment
from volseg.inference.sliding import Course, Slab, slide, sliding_window
from volseg.inference.tissue import find_tissue
from volseg.inference.windows import SlidingWindow, importance, lay
from volseg.model.label_encoding import winners
from volseg.model.networks import build_network

Triple = tuple[int, int, int]
CPU = torch.device("cpu")
DATA = DataConfig(labels={"a": 1, "b": 2, "c": 7})
REGIONS = DataConfig(
    labels={"a": 1, "b": 2},
    regions=(
        Region(name="whole", labels=(1, 2), value=1),
        Region(name="core", labels=(2,), value=2),
        Region(name="rim", labels=(1,), value=3),
        Region(name="all", labels=(1, 2), value=4),
    ),
)
PATCH = (16, 24, 16)
LIMITS = Limits(batch_size=2, memory_gb=3.0)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Four outputs from one channel, and the place in a patch matters: zeros are padded at its border."""
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 4, 5, padding=2)]
    return nn.Sequential(*layers).eval().requires_grad_(requires_grad=False)


def network_input_of(
    shape: Triple, spacing_mm: tuple[float, ...], network_mm: tuple[float, ...], seed: int = 0
) -> ResampledVolume:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, *(max(1, size // 4) for size in shape))).astype(np.float32))
    array = nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0].numpy()
    new = Geometry(shape, np.diag([*spacing_mm, 1.0])).respaced(network_mm)  # type: ignore[arg-type]
    return ResampledVolume(array, Resampling(shape, spacing_mm, new.shape, network_mm))  # type: ignore[arg-type]


def whole(network: nn.Module, network_input: ResampledVolume, data: DataConfig) -> np.ndarray:
    """The same, straightforwardly: everything resampled, MONAI's windows, everything resampled back, decided."""
    image = torch.from_numpy(np.ascontiguousarray(network_input.array))
    way = network_input.resampling
    image = resample_linear(image, way.spacing_mm, way.new_shape, way.new_spacing_mm)
    logits = sliding_window_inference(image[None], PATCH, 1, network, overlap=0.5, mode="gaussian")[0]
    native = resample_linear(logits, way.new_spacing_mm, way.shape, way.spacing_mm)
    return winners(native.movedim(0, -1), data).numpy()


def segmented(
    network: nn.Module, network_input: ResampledVolume, data: DataConfig, memory_gb: float = 3.0
) -> np.ndarray:
    numbers = np.zeros(network_input.array.shape[1:], np.uint8)
    told = Network(network, torch.float32, SlidingWindow(PATCH), Mirroring(), 4, CPU)
    for box, part in segment(
        [told], [network_input], None, lambda logits: winners(logits, data), Limits(2, memory_gb), Work()
    ):
        numbers[box] = part
    return numbers


GRIDS = [
    ((40, 50, 60), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ((40, 50, 60), (1.0, 1.0, 2.0), (1.3, 0.8, 1.5)),
    ((5, 30, 70), (1.0, 1.0, 1.0), (1.0, 2.0, 0.7)),
    ((60, 40, 9), (0.7, 0.7, 14.0), (1.5, 1.5, 1.5)),
    ((1, 1, 9), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ((30, 31, 1), (1.0, 1.0, 5.0), (1.0, 1.0, 1.0)),
    ((3, 4, 5), (1.0, 1.0, 1.0), (0.4, 0.4, 0.4)),
    ((7, 7, 7), (9.0, 9.0, 9.0), (0.7, 0.9, 0.7)),
]


@pytest.mark.parametrize(("shape", "spacing_mm", "network_mm"), GRIDS)
@pytest.mark.parametrize("data", [DATA, REGIONS])
def test_slabs_give_the_labels_of_the_whole_volume(
    network: nn.Module, shape: Triple, spacing_mm: tuple[float, ...], network_mm: tuple[float, ...], data: DataConfig
) -> None:
    network_input = network_input_of(shape, spacing_mm, network_mm)
    np.testing.assert_array_equal(segmented(network, network_input, data), whole(network, network_input, data))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("strips", [1, 2, 5])
def test_neither_the_course_of_windows_nor_the_strips_change_a_label(
    network: nn.Module, axis: int, strips: int
) -> None:
    network_input = network_input_of((33, 47, 40), (1.0, 1.2, 2.0), (1.3, 0.8, 1.5))
    windows = lay(network_input.shape, SlidingWindow(PATCH))
    numbers = np.full(network_input.array.shape[1:], 99, np.uint8)
    for target in find_targets(network_input.resampling.positions_back, windows.covered, (axis + 1) % 3, strips):
        slabs = slide(network, 4, network_input, windows, Course(axis, target.source, 3, torch.float32, CPU))
        for box, part in restore(slabs, target, axis, lambda logits: winners(logits, DATA)):
            assert (numbers[box] == 99).all()  # no voxel is decided twice
            numbers[box] = part
    np.testing.assert_array_equal(numbers, whole(network, network_input, DATA))


def test_little_memory_changes_no_label(network: nn.Module) -> None:
    network_input = network_input_of((60, 90, 70), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(
        segmented(network, network_input, DATA, 0.001), segmented(network, network_input, DATA)
    )


@pytest.mark.parametrize("outputs", [2, 60, 120])
def test_few_and_many_labels(outputs: int) -> None:
    torch.manual_seed(2)
    network = nn.Conv3d(1, outputs, 3, padding=1).eval().requires_grad_(requires_grad=False)
    data = DataConfig(labels={f"label_{n}": n for n in range(1, outputs)})
    network_input = network_input_of((30, 40, 26), (1.0, 1.0, 2.0), (1.4, 1.4, 1.4))
    told = Network(network, torch.float32, SlidingWindow(PATCH), Mirroring(), outputs, CPU)
    numbers = np.zeros((30, 40, 26), np.uint8)
    for box, part in segment([told], [network_input], None, lambda each: winners(each, data), Limits(1, 1.0), Work()):
        numbers[box] = part
    # Axes are interpolated in another order: among many labels a voxel or two lie where logits tie within rounding.
    assert (numbers != whole(network, network_input, data)).mean() < 1e-4


def test_one_region_alone() -> None:
    data = DataConfig(labels={"a": 1}, regions=(Region(name="whole", labels=(1,), value=1),))
    network = nn.Conv3d(1, 1, 3, padding=1).eval().requires_grad_(requires_grad=False)
    network_input = network_input_of((30, 40, 26), (1.0, 1.0, 2.0), (1.4, 1.4, 1.4))
    told = Network(network, torch.float32, SlidingWindow(PATCH), Mirroring(), 1, CPU)
    numbers = np.zeros((30, 40, 26), np.uint8)
    for box, part in segment([told], [network_input], None, lambda each: winners(each, data), LIMITS, Work()):
        numbers[box] = part
    np.testing.assert_array_equal(numbers, whole(network, network_input, data))
    assert numbers.any()


def test_labels_of_noise_are_the_same_too(network: nn.Module) -> None:
    """Where nearly every voxel lies between labels, all are interpolated in rows."""
    rng = np.random.default_rng(3)
    array = rng.normal(size=(1, 30, 30, 30)).astype(np.float32)
    network_input = ResampledVolume(array, Resampling((30, 30, 30), (1.0, 1.0, 1.0), (20, 20, 20), (1.5, 1.5, 1.5)))
    np.testing.assert_array_equal(segmented(network, network_input, DATA), whole(network, network_input, DATA))


def test_networks_of_other_voxel_sizes_are_averaged_on_the_grid_of_the_volume(network: nn.Module) -> None:
    inputs = [network_input_of((40, 44, 36), (1.0, 1.0, 1.5), mm) for mm in ((1.0, 1.0, 1.5), (1.4, 1.2, 1.0))]
    logits = []
    for network_input in inputs:
        way = network_input.resampling
        image = resample_linear(
            torch.from_numpy(network_input.array), way.spacing_mm, way.new_shape, way.new_spacing_mm
        )
        answer = sliding_window_inference(image[None], PATCH, 1, network, overlap=0.5, mode="gaussian")[0]
        logits.append(resample_linear(answer, way.new_spacing_mm, way.shape, way.spacing_mm))
    wanted = winners((sum(logits) / 2).movedim(0, -1), DATA).numpy()  # type: ignore[union-attr]
    both = [Network(network, torch.float32, SlidingWindow(PATCH), Mirroring(), 4, CPU)] * 2
    numbers = np.full((40, 44, 36), 99, np.uint8)
    for box, part in segment(both, inputs, None, lambda each: winners(each, DATA), LIMITS, Work()):
        numbers[box] = part
    np.testing.assert_array_equal(numbers, wanted)


@pytest.mark.parametrize("shape", [(9, 20, 33), (3, 5, 7), (1, 30, 2)])
@pytest.mark.parametrize("axes", [(), (0, 2)])
def test_sliding_window_equals_the_whole_volume(shape: Triple, axes: tuple[int, ...]) -> None:
    """The answer at a voxel depends on that voxel alone, so that tiling and mirroring cannot change it."""
    image = torch.rand(1, *shape)
    windows = lay(shape, SlidingWindow((8, 8, 8)))
    double = torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1, 1)
    run, turns = Mirroring(axes).applied(lambda patches: patches * double, windows)
    logits = sliding_window(run, 2, image, windows, turns)
    torch.testing.assert_close(logits, torch.cat([2 * image, -image]), rtol=1e-5, atol=1e-5)


def test_even_steps_are_those_of_nnunet() -> None:
    """Its own example: 110 voxels, windows of 64, half of them shared: 0, 23, 46."""
    windows = lay((110, 64, 30), SlidingWindow((64, 64, 64), steps="even"))
    assert windows.starts == ((0, 23, 46), (0,), (-17,))
    assert lay((110, 64, 30), SlidingWindow((64, 64, 64))).starts == ((0, 32, 46), (0,), (-17,))


@given(st.integers(1, 300), st.integers(1, 64), st.sampled_from([0.0, 0.25, 0.5, 0.8]))
def test_even_steps_cover_a_volume(size: int, side: int, overlap: float) -> None:
    (starts, _, _) = lay((size, 1, 1), SlidingWindow((side, 1, 1), overlap, "even")).starts
    assert starts[-1] == max(size - side, -((side - size) // 2))
    assert all(0 < step <= max(1, side * (1 - overlap) + 1) for step in np.diff(starts))


@pytest.mark.parametrize("patch", [(8, 12, 7), (48, 40, 16), (1, 9, 3)], ids=str)
def test_the_cut_gaussian_is_that_of_nnunet(patch: Triple) -> None:
    impulse = np.zeros(patch)
    impulse[tuple(side // 2 for side in patch)] = 1
    wanted = gaussian_filter(impulse, [side / 8 for side in patch], 0, mode="constant", cval=0)
    wanted = (wanted / wanted.max() * 10).astype(np.float16)
    wanted[wanted == 0] = wanted[wanted > 0].min()
    np.testing.assert_allclose(importance(patch, "cut_gaussian").numpy(), wanted, rtol=1e-3)


@pytest.mark.parametrize("rules", [{"grid": "extent", "interpolation": "cubic"}, {"coarse": "nearest"}], ids=str)
def test_labels_come_back_by_the_same_rules(network: nn.Module, rules: dict[str, Any]) -> None:
    """Everything at once, straightforwardly, and in slabs."""
    seen = network_input_of((30, 41, 26), (1.0, 1.0, 4.0), (1.4, 0.9, 2.6))
    way = Resampling.towards(Geometry((30, 41, 26), np.diag([1.0, 1.0, 4.0, 1.0])), (1.4, 0.9, 2.6), **rules)
    volume = ResampledVolume(seen.array, way)
    image = volume.read(Box.whole(volume.shape))
    windows = lay(volume.shape, SlidingWindow(PATCH, steps="even", weights="cut_gaussian"))
    logits = sliding_window(network, 4, image, windows)
    for axis, positions in enumerate(way.positions_back):
        logits = interpolate_axis(logits, axis + 1, positions)
    told = Network(
        network, torch.float32, SlidingWindow(PATCH, steps="even", weights="cut_gaussian"), Mirroring(), 4, CPU
    )
    numbers = np.zeros((30, 41, 26), np.uint8)
    for box, part in segment([told], [volume], None, lambda each: winners(each, DATA), Limits(1, 0.01), Work()):
        numbers[box] = part
    assert (numbers != winners(logits.movedim(0, -1), DATA).numpy()).mean() < 1e-3
    assert (way.nearest_back == (2,)) == (rules.get("coarse") == "nearest")


def test_mirroring_averages_over_all_combinations() -> None:
    """A network that knows left from right gives the mean of both views."""

    def sided(patches: torch.Tensor) -> torch.Tensor:
        return patches + torch.arange(patches.shape[2], dtype=torch.float32).reshape(1, 1, -1, 1, 1)

    assert (mirrored(sided, [(), (0,)])(torch.zeros(1, 1, 8, 8, 8)) == 3.5).all()


def test_views_are_a_volume_and_its_mirror_images_along_all_subsets_of_the_axes() -> None:
    assert Mirroring().views == [()]
    assert sorted(Mirroring((0, 1, 2)).views) == [
        (), (0,), (0, 1), (0, 1, 2), (0, 2), (1,), (1, 2), (2,),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "overlap", "axes", "expected"),
    [
        ((8, 8, 8), 0.5, (0,), 2),  # one window sees both views
        ((9, 8, 8), 0.5, (0,), 1),
        ((8, 8, 30), 0.5, (0,), 1),
        ((8, 8, 30), 0.25, (0,), 2),  # half of the voxels would be seen in one view only
        ((9, 8, 8), 0.5, (0, 1), 4),  # two windows, four views
        ((9, 9, 9), 0.5, (0, 1), 1),
        ((9, 9, 9), 0.0, (), 1),
    ],
)
def test_windows_that_share_halves_take_turns(
    shape: Triple, overlap: float, axes: tuple[int, ...], expected: int
) -> None:
    assert Mirroring(axes).passes(lay(shape, SlidingWindow((8, 8, 8), overlap))) == expected
    assert Mirroring(axes, in_turns=False).passes(lay(shape, SlidingWindow((8, 8, 8), overlap))) == 2 ** len(axes)


def test_windows_in_turns_average_over_the_views() -> None:
    """A network that adds where in the window a voxel lies: both views of two windows that share all but one voxel."""
    rise = torch.arange(8.0).reshape(1, 1, -1, 1, 1)
    windows = lay((9, 8, 8), SlidingWindow((8, 8, 8)))
    run, turns = Mirroring((0,)).applied(lambda patches: patches + rise, windows)
    logits = sliding_window(run, 1, torch.zeros(1, 9, 8, 8), windows, turns)[0, :, 4, 4]
    shares = importance((8, 8, 8))[:, 4, 4]
    first, second = shares, shares  # of the windows at 0 and at 1; the second is seen mirrored
    wanted = [
        (float(first[n]) * n if n < 8 else 0.0) + (float(second[n - 1]) * (8 - n) if n > 0 else 0.0) for n in range(9)
    ]
    weights = [(float(first[n]) if n < 8 else 0.0) + (float(second[n - 1]) if n > 0 else 0.0) for n in range(9)]
    torch.testing.assert_close(logits, torch.tensor(wanted) / torch.tensor(weights), rtol=1e-5, atol=1e-6)


def test_networks_of_one_kind_are_averaged() -> None:
    run = averaged([lambda patches: patches, lambda patches: 3 * patches])
    assert (run(torch.ones(1, 1, 2, 2, 2)) == 2).all()


sides = st.integers(1, 60)


@given(shape=st.tuples(sides, sides, sides), patch=st.tuples(*[st.integers(1, 24)] * 3), overlap=st.floats(0, 0.9))
def test_windows_cover_every_voxel_and_stay_within(shape: Triple, patch: Triple, overlap: float) -> None:
    windows = lay(shape, SlidingWindow(patch, overlap))
    for axis in range(3):
        starts, side, size = windows.starts[axis], patch[axis], shape[axis]
        assert list(starts) == sorted(set(starts))
        if size <= side:
            assert len(starts) == 1
            assert starts[0] <= 0
            assert starts[0] + side >= size
            continue
        assert starts[0] == 0
        assert starts[-1] + side == size
        step = max(1, int(side * (1 - overlap)))
        assert max(np.diff(starts), default=0) <= step
        assert len(starts) == -(-(size - side) // step) + 1  # no fewer would do


@given(data=st.data(), shape=st.tuples(sides, sides, sides), patch=st.tuples(*[st.integers(1, 24)] * 3))
def test_windows_over_a_box_cover_it(data: st.DataObject, shape: Triple, patch: Triple) -> None:
    box = []
    for size in shape:
        begin = data.draw(st.integers(0, size - 1))
        box.append(slice(begin, data.draw(st.integers(begin + 1, size))))
    windows = lay(shape, SlidingWindow(patch), Box(*box))
    for wanted, covered, starts, side, size in zip(box, windows.covered, windows.starts, patch, shape, strict=True):
        assert covered.start <= wanted.start
        assert covered.stop >= wanted.stop
        assert size <= side or (starts[0] >= 0 and starts[-1] + side <= size)


def body() -> np.ndarray:
    """A block of soft tissue in air, in CT numbers."""
    rng = np.random.default_rng(0)
    array = rng.normal(-1000, 5, (1, 60, 70, 80)).astype(np.float32)
    array[0, 20:41, 30:50, 10:30] = 50
    return array


CT = CtNormalization(low=-100, high=200, mean=50, std=60)


@pytest.mark.parametrize("normalization", [CT, ZScore()])
def test_tissue_is_found_and_air_is_not(normalization: CtNormalization | ZScore) -> None:
    tissue = find_tissue(body(), [normalization], 0.02)
    assert tissue.box((60, 70, 80)) == (slice(16, 48), slice(24, 56), slice(4, 36))  # blocks, and those that touch them
    assert tissue.within(Box.whole((30, 40, 20)), (60, 70, 80))
    assert not tissue.within(Box(slice(50, 60), slice(0, 70), slice(0, 80)), (60, 70, 80))
    assert tissue.box((30, 35, 40)) == (slice(8, 24), slice(12, 28), slice(2, 18))


def test_tissue_does_not_depend_on_the_storage_order() -> None:
    array = body()
    stored = np.asfortranarray(array[:, ::-1])[:, ::-1]
    one, other = (find_tissue(each, [CT], 0.02).blocks for each in (array, stored))
    np.testing.assert_array_equal(one, other)


def test_one_channel_with_tissue_is_enough() -> None:
    both = np.concatenate([body(), np.full((1, 60, 70, 80), -1000, np.float32)])
    tissue = find_tissue(both, [CT, CT], 0.02)
    np.testing.assert_array_equal(tissue.blocks, find_tissue(body(), [CT], 0.02).blocks)


def test_nothing_is_computed_for_air_and_tissue_keeps_its_labels(network: nn.Module) -> None:
    array = body()
    tissue = find_tissue(array, [CT], 0.02)
    network_input = ResampledVolume.as_it_is(np.clip((array + 100) / 300, 0, 1))
    seen: list[int] = []

    def counting(patches: torch.Tensor) -> torch.Tensor:
        seen.append(len(patches))
        return network(patches)

    told = Network(counting, torch.float32, SlidingWindow(PATCH), Mirroring(), 4, CPU)
    numbers, work = np.zeros((60, 70, 80), np.uint8), Work()
    for box, part in segment([told], [network_input], tissue, lambda each: winners(each, DATA), LIMITS, work):
        numbers[box] = part
    everything = lay((60, 70, 80), SlidingWindow(PATCH))
    assert sum(seen) == work.done == work.windows < everything.count / 4
    # a voxel in tissue is seen by all windows that would see it, laid over the box that was looked at
    box = tissue.box((60, 70, 80))
    assert box is not None
    covered = lay((60, 70, 80), SlidingWindow(PATCH), box).covered
    alone = ResampledVolume.as_it_is(np.ascontiguousarray(network_input.array[:, *covered]))
    np.testing.assert_array_equal(numbers[covered][4:-4, 4:-4, 4:-4], whole(network, alone, DATA)[4:-4, 4:-4, 4:-4])


def test_a_volume_of_air_is_background(network: nn.Module) -> None:
    array = np.full((1, 30, 30, 30), -1000, np.float32)
    array[0, 0, 0, 0] = -999
    network_input = ResampledVolume.as_it_is(array)
    told = Network(network, torch.float32, SlidingWindow(PATCH), Mirroring(), 4, CPU)
    tissue = find_tissue(array, [CT], 0.02)
    assert not list(segment([told], [network_input], tissue, lambda each: winners(each, DATA), LIMITS, Work()))


NETWORKS: list[NetworkConfig] = [
    UNet(channels=(8, 16, 32), strides=((2, 2, 2), (2, 2, 2))),
    UNet(channels=(8, 16), strides=((2, 2, 1),), residual_units=0),
    VNet(),
    DynUNet(filters=(8, 16, 32), strides=((2, 2, 2), (2, 2, 1))),
    PlainUNet(
        filters=(8, 16), kernels=((3, 3, 1), (3, 3, 3)), strides=((2, 2, 1),), blocks=(2, 1), decoder_blocks=(2,)
    ),
    ResidualEncoderUNet(filters=(8, 16, 32), strides=((2, 2, 2),) * 2, blocks=(1, 2, 2), decoder_blocks=(1, 1)),
    SegResNet(initial_filters=8),
    AttentionUnet(channels=(8, 16, 32)),
]


def trained(config: NetworkConfig, channels: int, outputs: int) -> nn.Module:
    """A network whose normalisations have statistics and weights of their own."""
    torch.manual_seed(1)
    made = build_network(config, channels, outputs)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        if isinstance(module, nn.InstanceNorm3d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0, 0.5)
    return made.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 4), (2, 2), (1, 20)])
def test_rewritten_networks_give_the_same_logits(config: NetworkConfig, channels: int, outputs: int) -> None:
    before = trained(config, channels, outputs)
    weights = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    patches = torch.randn(2, channels, 16, 32, 32)
    wanted = before(patches)
    everyone = rewrite(before, channels, (16, 32, 32))
    torch.testing.assert_close(everyone(patches), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rewrite_for_torch(everyone)(patches), wanted, rtol=1e-4, atol=1e-4)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, weights[name])  # the network itself is not touched


@pytest.mark.parametrize(("kernel", "outputs", "phases"), [(3, 4, 4), (5, 4, 4), ((3, 1, 5), 2, 8), (7, 1, 2)])
def test_a_packed_convolution_is_the_convolution(kernel: int, outputs: int, phases: int) -> None:
    plain = nn.Conv3d(3, outputs, kernel, padding="same").double()
    plain.padding = tuple((size - 1) // 2 for size in plain.kernel_size)
    image = torch.randn(2, 3, 5, 6, 16, dtype=torch.float64)
    torch.testing.assert_close(PackedConv3d(plain, phases)(image), plain(image))


@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_upsampling_is_the_transposed_convolution(bias: bool) -> None:
    plain = nn.ConvTranspose3d(5, 3, 3, stride=2, padding=1, output_padding=1, bias=bias).double()
    features = torch.randn(2, 5, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(PackedUpsampling3d(plain)(features), plain(features))


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
@pytest.mark.parametrize("engine", [Engine("torch", "bf16"), Engine("openvino", "fp32")], ids=str)
def test_engines_agree_with_the_network(engine: Engine, config: NetworkConfig) -> None:
    if engine.library == "openvino":
        pytest.importorskip("openvino")
    before = trained(config, 1, 4)
    patches = torch.randn(2, 1, 16, 16, 32)
    wanted = before(patches)
    got = start(engine, before, 1, (16, 16, 32), CPU)(patches).float()
    tolerance = 1e-4 if engine.precision == "fp32" else 0.03
    assert (got - wanted).abs().mean() < tolerance * wanted.std()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_of_networks_can_be_averaged(precision: Literal["fp32", "bf16"]) -> None:
    networks = [trained(NETWORKS[0], 1, 4) for _ in range(2)]
    patches = torch.randn(1, 1, 16, 16, 16)
    runs = [start(Engine("torch", precision), network, 1, (16, 16, 16), CPU) for network in networks]
    both = averaged(runs)(patches)
    torch.testing.assert_close(both, (runs[0](patches).float() + runs[1](patches).float()) / 2)
    flipped = runs[0](patches.flip(2)).float().flip(2)
    twice = mirrored(runs[0], [(), (0,)])(patches)
    torch.testing.assert_close(twice, (runs[0](patches).float() + flipped) / 2)


DROPPED_ELSEWHERE = """
import os, signal, threading
import torch
from volseg.inference.engines import Engine, start

runs = [start(Engine("openvino", "fp32"), torch.nn.Tanh(), 1, (8, 8, 8), torch.device("cpu"))]
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
thread = threading.Thread(target=runs.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.slow
def test_signals_survive_a_network_that_another_thread_drops() -> None:
    """OpenVINO's plugin takes the signal stack away with it that it gave to the thread that loaded it."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", DROPPED_ELSEWHERE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes: list[int] = []

    def narrow(patches: torch.Tensor) -> torch.Tensor:
        sizes.append(len(patches))
        if len(patches) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return 2 * patches

    patches = torch.arange(5.0).reshape(5, 1, 1, 1, 1)
    assert torch.equal(split_on_oom(narrow)(patches), 2 * patches)
    assert sizes == [5, 3, 2, 1, 2]


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_what_libraries_of_a_gpu_say_of_its_memory_is_understood(words: str) -> None:
    assert is_shortage(RuntimeError(words))


COMPILES = """
import torch
from volseg.errors import ConfigError
from volseg.inference.engines import Engine, start

class Network(torch.nn.Module):
    def forward(self, image):
        return torch.tanh(image) + 1

try:
    start(Engine("compile", "fp32"), Network(), 1, (8, 8, 8), torch.device("cpu"))
except ConfigError as error:
    print(error, "|", error.hint)
"""


@pytest.mark.slow
def test_a_machine_without_a_compiler_runs_another_engine(tmp_path: Path) -> None:
    """PyTorch notices with the first patch; while engines are tried out, that must not end the case."""
    environment = {"PATH": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", COMPILES]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PyTorch cannot compile this network: ")
    assert done.stdout.endswith("| set inference.backend=torch\n")


def test_a_patch_that_does_not_fit_fails_its_case_alone() -> None:
    def full(patches: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryShortageError, match=r"a patch of 4 x 5 x 6 voxels does not fit"):
        split_on_oom(full)(torch.zeros(1, 1, 4, 5, 6))


def test_an_error_that_is_no_shortage_stays_what_it_is() -> None:
    def broken(patches: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        split_on_oom(broken)(torch.zeros(2, 1, 4, 5, 6))


FP32, BF16, OTHER = Engine("torch", "fp32"), Engine("torch", "bf16"), Engine("openvino", "bf16")


def test_an_engine_that_changes_labels_is_measured_and_refused() -> None:
    """One voxel in 500 changes: too many."""
    patch = torch.zeros(1, 2, 10, 10, 10)
    patch[0, 1, :5] = 1

    def begin(engine: Engine) -> object:
        if engine is OTHER:
            raise ConfigError("cannot run this network")
        changed = patch.clone()
        changed[0, :, 9, 9, 8:] = torch.tensor([0.0, 1.0])[:, None]
        return lambda patches: changed if engine is BF16 else patch

    trials = try_engines([FP32, BF16, OTHER], begin, [patch], lambda logits: logits.argmax(dim=0))  # type: ignore[arg-type]
    assert [(trial.engine, trial.changed) for trial in trials] == [(FP32, 0.0), (BF16, 0.002)]
    assert fastest_engine(trials) == FP32


def test_the_fastest_engine_that_keeps_labels_is_chosen() -> None:
    assert fastest_engine([Trial(FP32, 4, 0), Trial(BF16, 2, 0.0005), Trial(OTHER, 1, 0.002)]) == BF16
    assert fastest_engine([Trial(FP32, 4, 0), Trial(BF16, 2, 0.0005), Trial(OTHER, 1.95, 0.0)]) == BF16
    assert fastest_engine([Trial(FP32, 4, 0), Trial(BF16, 2, 0.0005), Trial(OTHER, 1.5, 0.0)]) == OTHER


def test_a_choice_is_remembered_for_this_model_and_machine(tmp_path: object) -> None:
    engines = [FP32, BF16]
    key = trial_key("model", engines, CPU)
    assert remembered(key, engines, tmp_path) is None  # type: ignore[arg-type]
    remember(key, BF16, tmp_path)  # type: ignore[arg-type]
    assert remembered(key, engines, tmp_path) == BF16  # type: ignore[arg-type]
    assert remembered(key, [FP32], tmp_path) is None  # type: ignore[arg-type]
    assert trial_key("other", engines, CPU) != key
    (tmp_path / f"{key}.json").write_text("half a fi")  # type: ignore[operator]
    assert remembered(key, engines, tmp_path) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("backend", "precision", "expected"),
    [
        ("auto", "auto", [FP32, BF16, OTHER]),
        ("auto", "bf16", [BF16, OTHER]),
        ("torch", "auto", [FP32, BF16]),
        ("openvino", "bf16", [OTHER]),
        ("openvino", "fp32", [Engine("openvino", "fp32")]),
        ("compile", "auto", [Engine("compile", "fp32")]),
        ("auto", "fp16", [Engine("torch", "fp16")]),
    ],
)
def test_the_configuration_narrows_the_choice(backend: str, precision: str, expected: list[Engine]) -> None:
    config = InferenceConfig(backend=backend, precision=precision)  # type: ignore[arg-type]
    assert allowed(config, [FP32, BF16, OTHER]) == expected


def test_a_slab_without_windows_is_background() -> None:
    """Sums and weights are 0 there, and 0 is nobody's largest logit."""
    target = find_targets([np.arange(4.0)] * 3, Box.whole((4, 4, 4)), 1, 1)[0]
    slab = Slab(Box.whole((4, 4, 4)), torch.zeros(4, 4, 4, 3), torch.zeros(4, 4, 4))
    ((_, numbers),) = restore([slab], target, 0, lambda each: winners(each, DataConfig(labels={"a": 1, "b": 2})))
    assert not numbers.any()
