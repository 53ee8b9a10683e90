from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from volseg.cases import Dataset, find_dataset
from volseg.config import (
    Config,
    CtNormalization,
    DynUNet,
    NetworkConfig,
    NetworkName,
    PartialConfig,
    PartialData,
    VNet,
    ZScore,
    read_config,
)
from volseg.errors import ConfigError, DataError
from volseg.image.intensities import Intensities
from volseg.image.volume import Mask
from volseg.io import write_mask, write_volume
from volseg.model.networks import build_network, patch_divisor
from volseg.planning import (
    CPU,
    CasePrint,
    Fingerprint,
    Machine,
    Plan,
    check_patch,
    lateral_pairs,
    make_plan,
    plan_folder,
    take_fingerprint,
    with_gpu,
)
from volseg.planning.rules import by_width
from volseg.planning.topology import plan_patch
from volseg.planning.trials import FEWEST_VOXELS, fit_to_time, tell_time, voxels_in_time


def span(low: float, high: float) -> Intensities:
    return Intensities(low, low + (high - low) / 10, (low + high) / 2, high)


def fingerprint(
    shape: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    labels: tuple[str, ...] = ("a",),
    low: float = 0.0,
) -> Fingerprint:
    values = np.linspace(-100, 300, 401, dtype=np.float32)[np.newaxis]
    case = CasePrint(shape, spacing_mm, ("",), (span(low, 300.0),), values, {1: 5.0})
    return Fingerprint(("image",), {name: n for n, name in enumerate(labels, start=1)}, {}, (case,) * 3)


def test_the_fingerprint_is_what_was_written(dataset: Path) -> None:
    seen = take_fingerprint(find_dataset(dataset))
    image, mask = make_case(0)
    assert seen.labels == {"label_1": 1, "label_2": 2}
    assert len(seen.cases) == 6
    np.testing.assert_allclose(seen.spacings_mm[0], image.geometry.spacing_mm, rtol=1e-5)
    assert seen.cases[0].shape == image.geometry.shape
    expected_ml = (mask.array == 2).sum() * 1.0 * 1.1 * 2.0 / 1000
    assert seen.cases[0].label_ml[2] == pytest.approx(expected_ml, rel=1e-4)


def test_a_label_that_is_not_in_the_configuration_is_named(dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"case case_0: the reference holds label value 2, which data.labels"):
        take_fingerprint(find_dataset(dataset), PartialData(labels={"ball": 1}))


def test_empty_references_teach_nothing(tmp_path: Path) -> None:
    for seed in range(2):
        image, mask = make_case(seed)
        write_volume(image, tmp_path / "images" / f"{seed}.nii.gz")
        write_mask(Mask(mask.array * 0, mask.geometry), tmp_path / "labels" / f"{seed}.nii.gz")
    with pytest.raises(DataError, match="all references are empty"):
        take_fingerprint(find_dataset(tmp_path))


def test_a_dataset_of_unreadable_cases_is_an_error(tmp_path: Path, dataset: Path) -> None:
    broken = find_dataset(dataset)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="no case could be read"):
        take_fingerprint(find_dataset(tmp_path))
    assert isinstance(broken, Dataset)


def test_ct_is_known_by_its_air() -> None:
    ct = make_plan(fingerprint(low=-1000)).config.preprocessing.normalization[0]
    assert isinstance(ct, CtNormalization)
    assert (ct.low, ct.high) == (-98.0, 298.0)  # percentiles 0.5 and 99.5 of -100 .. 300
    assert ct.mean == pytest.approx(100, abs=0.01)
    assert isinstance(make_plan(fingerprint(low=0)).config.preprocessing.normalization[0], ZScore)


def test_coarse_axes_are_not_halved_before_the_others_catch_up() -> None:
    network = make_plan(fingerprint((320, 320, 20), (0.5, 0.5, 5.0))).config.network
    assert isinstance(network, DynUNet)
    assert network.strides[:3] == ((2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert all(stride[2] == 1 or n > 2 for n, stride in enumerate(network.strides))


def test_anisotropic_data_keep_the_detail_of_fine_cases() -> None:
    cases = [
        CasePrint((256, 256, 20), (0.5, 0.5, z), ("",), (span(0.0, 2.0),), np.ones((1, 5), np.float32), {1: 1.0})
        for z in range(2, 13)
    ]
    plan = make_plan(Fingerprint(("image",), {"a": 1}, {}, tuple(cases)))
    assert plan.config.preprocessing.spacing_mm == (0.5, 0.5, 3.0)  # the 10th percentile of 2..12; the median is 7


#: What a reader would call sensible: data -> its shape and voxel size; how often each axis is halved in a patch of
#: 400,000 voxels, and how many levels have flat kernels along the last axis.
_TOPOLOGIES = {
    "a crop": ((35, 50, 36), (1.0, 1.0, 1.0), (3, 3, 3), 0),
    "a whole body in CT": ((512, 512, 600), (0.8, 0.8, 1.5), (4, 4, 3), 0),
    "a brain": ((182, 218, 182), (1.0, 1.0, 1.0), (4, 4, 4), 0),
    "a thin isotropic slab": ((216, 256, 9), (1.0, 1.0, 1.0), (5, 5, 1), 0),
    "twenty slices of a scanner": ((512, 512, 20), (0.8, 0.8, 1.0), (5, 5, 2), 0),
    "a heart in thick slices": ((220, 260, 10), (1.56, 1.56, 10.0), (5, 5, 1), 2),
    "a prostate": ((320, 320, 20), (0.6, 0.6, 3.6), (5, 5, 2), 2),
    "a single slice": ((256, 256, 1), (1.0, 1.0, 5.0), (5, 5, 0), 6),
    "a spine standing up": ((20, 20, 300), (1.0, 1.0, 1.0), (2, 2, 5), 0),
    "nothing to halve": ((6, 6, 6), (1.0, 1.0, 1.0), (0, 0, 0), 0),
}


@pytest.mark.parametrize("data", _TOPOLOGIES)
@pytest.mark.parametrize("network", ["dynunet", "plain_unet", "residual_encoder_unet"])
def test_depth_follows_each_axis_that_can_still_be_halved(data: str, network: NetworkName) -> None:
    shape, spacing_mm, halvings, flat = _TOPOLOGIES[data]
    patch, topology = plan_patch(np.array(shape, float), spacing_mm, network, 4e5, features=16)
    assert tuple(sum(stride[axis] == 2 for stride in topology["strides"]) for axis in range(3)) == halvings
    assert [kernel[2] for kernel in topology["kernels"]] == [1] * flat + [3] * (len(topology["kernels"]) - flat)
    assert all(kernel[:2] == (3, 3) for kernel in topology["kernels"])
    assert math.prod(patch) <= 4e5
    made = build_network(TypeAdapter(NetworkConfig).validate_python(topology), 1, 2)
    assert sum(parameter.numel() for parameter in made.parameters()) > 1000


@example((700, 183, 183), (1.5, 6.463, 0.3), "swin_unetr", 1.5)  # the longest side in mm cannot shrink any more
@given(
    shape=st.tuples(*[st.integers(1, 700)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.3, 8)] * 3),
    network=st.sampled_from(["unet", "vnet", "dynunet", "segresnet", "attention_unet", "swin_unetr"]),
    memory_gb=st.floats(1, 40),
)
def test_every_plan_fits_its_network_and_the_memory(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], network: str, memory_gb: float
) -> None:
    machine = Machine(16, 32, memory_gb, 1, 4)
    config = make_plan(fingerprint(shape, spacing_mm), network, machine).config  # type: ignore[arg-type]
    divisor = patch_divisor(config.network)
    assert all(size % step == 0 for size, step in zip(config.patches.size, divisor, strict=True))
    bytes_per_voxel = {"unet": 2500, "vnet": 5000, "dynunet": 5000, "segresnet": 4000, "attention_unet": 4000}
    needed = math.prod(config.patches.size) * 2 * bytes_per_voxel.get(network, 8000)
    assert needed <= memory_gb * 1e9 or math.prod(config.patches.size) <= 2 * math.prod(divisor)
    check_patch(config)
    assert config.training.batch_size >= 2


@pytest.mark.parametrize(
    ("names", "pairs", "alone"),
    [
        (["kidney_left", "kidney_right", "liver"], [("kidney_left", "kidney_right")], []),
        (["LeftKidney", "RightKidney"], [("LeftKidney", "RightKidney")], []),
        (["Lung L", "Lung R"], [("Lung L", "Lung R")], []),
        (["rib_left_4", "rib_right_4", "rib_left_5"], [("rib_left_4", "rib_right_4")], ["rib_left_5"]),
        (["right ventricle", "left atrium"], [], ["right ventricle", "left atrium"]),
        (["liver", "cleft", "bright spot", "upright"], [], []),
    ],
)
def test_sides_are_found_in_names(names: list[str], pairs: list[tuple[str, str]], alone: list[str]) -> None:
    assert lateral_pairs(names) == (pairs, alone)


def test_no_plan_mirrors_a_patient_whose_labels_state_a_side() -> None:
    assert make_plan(fingerprint(labels=("lung_left",))).config.augmentation.flip_axes == ()
    sided = make_plan(fingerprint(labels=("lung_left", "lung_right"))).config.augmentation
    assert sided.flip_axes == ()
    assert sided.swap_labels == (("lung_left", "lung_right"),)
    assert make_plan(fingerprint(labels=("liver",))).config.augmentation.flip_axes == ("left-right",)


def test_a_written_plan_reads_back_and_explains_itself(dataset: Path, tmp_path: Path) -> None:
    _, plan = plan_folder(dataset, PartialConfig.of({"training": {"epochs": 7}}))
    (tmp_path / "config.yaml").write_text(text := plan.to_yaml())
    assert read_config(tmp_path / "config.yaml") == plan.config
    assert plan.config.training.epochs == 7
    joined = re.sub(r"\n\s*# ", " ", text)
    for key, reason in plan.reasons.items():
        assert re.search(rf"{re.escape(reason)}\n\s*{key.split('.')[-1]}:", joined), key


def test_a_given_spacing_is_planned_for_and_said_to_be_given(dataset: Path) -> None:
    _, plan = plan_folder(dataset, PartialConfig.of({"preprocessing": {"spacing_mm": [2, 2, 2]}}))
    assert plan.config.preprocessing.spacing_mm == (2.0, 2.0, 2.0)
    assert plan.reasons["preprocessing.spacing_mm"] == "given"
    assert max(plan.config.patches.size) <= 20  # the median volume has 10 x 10 x 16 voxels at 2 mm


def test_air_is_passed_over_only_where_no_label_is_as_dark() -> None:
    """A tenth of the labelled voxels of one case of three: cavities."""
    bright = np.full((1, 100), 80, np.float32)
    hollow = bright.copy()
    hollow[0, :10] = 1
    for values, expected in ((bright, 0.02), (hollow, None)):
        cases = [
            CasePrint((64, 64, 64), (1.0, 1.0, 1.0), ("MR",), (span(0.0, 100.0),), each, {1: 1.0})
            for each in (np.empty((1, 0), np.float32), bright, values)  # of the first nothing is labelled
        ]
        plan = make_plan(Fingerprint(("image",), {"a": 1}, {}, tuple(cases)))
        assert plan.config.inference.air == expected
        assert ("10%" in plan.reasons["inference.air"]) == (expected is None)


def test_a_channel_is_ct_only_if_its_own_files_say_so() -> None:
    values = np.ones((2, 5), np.float32) * np.array([[40.0], [3.0]], np.float32) + np.arange(5, dtype=np.float32)
    case = CasePrint(
        (64, 64, 64), (1.0, 1.0, 1.0), ("CT", "PT"), (span(-900.0, 50.0), span(0.0, 5.0)), values, {1: 1.0}
    )
    plan = make_plan(Fingerprint(("ct_scan", "pet"), {"a": 1}, {}, (case,)))
    assert [entry.method for entry in plan.config.preprocessing.normalization] == ["ct", "zscore"]


def test_cases_are_segmented_mirrored_as_they_were_trained() -> None:
    for plan in (make_plan(fingerprint(shape)) for shape in ((60, 60, 60), (500, 500, 500))):
        assert plan.config.inference.mirror_axes == plan.config.augmentation.flip_axes == ("left-right",)
    sided = make_plan(fingerprint((60, 60, 60), labels=("lung_left", "lung_right")))
    assert sided.config.inference.mirror_axes == ()


def test_a_gpu_gets_a_larger_network_and_its_cores_make_patches() -> None:
    body = fingerprint((320, 260, 120), (1.5, 1.5, 2.0))
    on_cpu, on_gpu = (make_plan(body, machine=machine).config for machine in (CPU, with_gpu(24.0, cores=12)))
    assert isinstance(on_cpu.network, DynUNet)
    assert isinstance(on_gpu.network, DynUNet)
    assert (on_cpu.network.filters[0], on_gpu.network.filters[0]) == (16, 32)
    assert math.prod(on_gpu.patches.size) > 2 * math.prod(on_cpu.patches.size)
    assert (on_cpu.training.workers, on_gpu.training.workers) == (1, 8)
    assert with_gpu(8.0, cores=2) == Machine(32, 32, pytest.approx(5.6), 1, 4, (("memory_format", "contiguous"),))


def timed(config: Config) -> float:
    """Seconds of a step on a machine that takes 0.4 s with 16 features, and 3.5 times as long with twice as many."""
    assert isinstance(config.network, DynUNet | VNet)
    filters = config.network.filters
    return 0.4 * 3.5 ** math.log2((filters if isinstance(filters, int) else filters[0]) / 16)


def fitted(
    seen: Fingerprint,
    minutes: float,
    network: NetworkName = "dynunet",
    timer: Callable[[Config], float] = timed,
    alternatives: Sequence[tuple[str, str]] = (),
) -> Plan:
    """The plan for a time limit on a CPU."""
    plan = make_plan(seen, network)
    return fit_to_time(plan, by_width(plan.config, CPU), alternatives, timer, minutes)


def test_a_network_is_wider_where_time_and_memory_allow_it() -> None:
    small, body = fingerprint((35, 50, 36)), fingerprint((320, 260, 120), (1.5, 1.5, 2.0))
    plans = [make_plan(small), *(fitted(small, minutes) for minutes in (5.0, 30.0, 40.0))]
    assert [plan.config.network.filters[0] for plan in plans] == [16, 16, 16, 32]  # type: ignore[union-attr]
    assert len({plan.config.patches.size for plan in plans}) == 1
    assert "5 min allow about 600 steps of 0.4 s here;" in plans[1].reasons["network"]
    assert "with 32 they would be 1029, too few" in plans[2].reasons["network.filters"]
    assert "40 min allow about 1371 steps of 1.4 s here" in plans[3].reasons["network"]
    # Twice the features in the largest patches that fit would take twice the memory.
    assert fitted(body, 6000.0).config.network.filters[0] == 16  # type: ignore[union-attr]
    assert fitted(small, 6000.0, "unet", lambda _: 1.0).config.network == make_plan(small, "unet").config.network


def test_patches_are_smaller_where_there_is_time_for_few_steps() -> None:
    body = fingerprint((320, 260, 120), (1.5, 1.5, 2.0))
    small, usual = make_plan(body, most_voxels=FEWEST_VOXELS), make_plan(body)

    def timer(config: Config) -> float:
        return math.prod(config.patches.size) / 1e5

    voxels = {minutes: voxels_in_time(small.config, timer, minutes) for minutes in (1.0, 30.0, 600.0)}
    assert voxels == {1.0: FEWEST_VOXELS, 30.0: pytest.approx(0.8 * 1800 / 500 * 1e5), 600.0: pytest.approx(5.76e6)}
    patches = [make_plan(body, most_voxels=most).config.patches.size for most in voxels.values()]
    sizes = [math.prod(patch) for patch in patches]
    assert 0.5 * FEWEST_VOXELS < sizes[0] <= FEWEST_VOXELS < sizes[1] <= voxels[30.0] < sizes[2]
    assert patches[2] == usual.config.patches.size
    assert "there is time for enough steps of 1e+05 voxels" in small.reasons["patches.size"]
    assert "4 GB allow 4e+05 voxels" in usual.reasons["patches.size"]


def test_many_labels_leave_room_for_smaller_patches() -> None:
    """Of 105 outputs, probabilities and gradients take as much memory as the features do."""
    few, many = (
        make_plan(fingerprint((320, 260, 120), (1.5, 1.5, 2.0), labels=tuple(f"part {n}" for n in range(count)))).config
        for count in (3, 104)
    )
    ratio = math.prod(few.patches.size) / math.prod(many.patches.size)
    assert 1.7 < ratio < 3


def test_a_slow_processor_gets_a_narrower_vnet() -> None:
    small = fingerprint((35, 50, 36))
    widths = []
    for factor in (1, 3, 100):
        plan = fitted(small, 10.0, "vnet", lambda config, factor=factor: factor * timed(config))
        assert isinstance(plan.config.network, VNet)
        widths.append(plan.config.network.filters)
    assert widths == [16, 8, 4]
    assert "as in the paper" in make_plan(small, "vnet").reasons["network.filters"]


def test_a_step_is_computed_in_the_way_that_is_fastest() -> None:
    def timer(config: Config) -> float:
        training = config.training
        return (
            timed(config)
            * {"auto": 1.0, "channels_last": 0.5}[training.memory_format]
            * (1.02 if training.precision == "auto" else 1.0)
        )

    ways = (("memory_format", "channels_last"), ("precision", "fp32"))
    plan = fitted(fingerprint((35, 50, 36)), 20.0, timer=timer, alternatives=ways)
    assert (plan.config.training.memory_format, plan.config.training.precision) == ("channels_last", "auto")
    assert plan.config.network.filters[0] == 32  # type: ignore[union-attr]  # which is timed in that way, too
    assert plan.reasons["training.memory_format"] == (
        "a step takes 0.41 s here; with channels_last instead of auto, 0.2 s"
    )


def test_trials_keep_to_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five minutes nine seconds: two trials of four seconds, and no third."""
    now, tried = [0.0], []
    monkeypatch.setattr("volseg.planning.trials.time.monotonic", lambda: now[0])

    def timer(config: Config) -> float:
        now[0] += 4.0
        tried.append(config.training.memory_format)
        return 1.0

    ways = (("memory_format", "channels_last"), ("precision", "fp32"))
    fitted(fingerprint((35, 50, 36)), 5.0, timer=timer, alternatives=ways)
    assert tried == ["auto", "channels_last"]


def test_time_that_teaches_nothing_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    fitted(fingerprint((35, 50, 36)), 1.0, timer=lambda _: 2.0)
    assert "1 min allow about 24 steps of 2 s here, too few to learn from: allow 8.3 min or more" in caplog.text
    caplog.clear()
    fitted(fingerprint((35, 50, 36)), 5.0, timer=lambda _: 2.0)
    assert not caplog.text


def test_a_run_without_a_limit_is_as_long_as_its_data_need() -> None:
    steps = {
        count: make_plan(replace(seen, cases=seen.cases * count)).config.training.default_steps
        for count, seen in ((1, fingerprint((35, 50, 36))), (100, fingerprint((35, 50, 36))))
    }
    assert steps[1] == 2000
    assert steps[100] == pytest.approx(40 * 300 * (35 * 50 * 36) / (32 * 48 * 32) / 2, abs=50)
    told = tell_time(make_plan(fingerprint((35, 50, 36))), 2000, timed)
    assert told.outlook == "2000 steps of 0.4 s take some 17 min here"


def test_a_width_that_is_out_of_reach_is_not_tried() -> None:
    tried = []

    def timer(config: Config) -> float:
        tried.append(config.network.filters[0])  # type: ignore[union-attr]
        return 10.0

    fitted(fingerprint((35, 50, 36)), 5.0, timer=timer)
    assert tried == [16]


def test_folds_share_the_time_that_a_plan_is_made_for(dataset: Path) -> None:
    seen = []
    for dealt in ({"fold": 0}, {"fold": "all", "folds": 3}, {"fold": "all", "holdout": 0.3}):
        given = PartialConfig.of({"training": {"minutes": 40.0, **dealt}})
        plan = plan_folder(dataset, given, timer=timed)[1]
        assert isinstance(plan.config.network, DynUNet)
        seen.append(plan.config.network.filters[0])
    assert seen == [32, 16, 32]
    with pytest.raises(ConfigError, match=r"training\.minutes"):
        PartialConfig.of({"training": {"minutes": "soon"}})


def test_steps_are_timed_as_they_will_be_taken(dataset: Path) -> None:
    sizes = []

    def timer(config: Config) -> float:
        sizes.append((config.patches.size, config.training.batch_size))
        return 1.0

    decided = {"patches": {"size": [16, 16, 16]}, "training": {"minutes": 1.0, "batch_size": 3}}
    plan_folder(dataset, PartialConfig.of(decided), timer=timer)
    assert set(sizes) == {((16, 16, 16), 3)}
    sizes.clear()
    plan_folder(dataset, PartialConfig.of({**decided, "training": {"epochs": 2}}), timer=timer)
    assert not sizes  # nobody asks how long it takes


def test_different_data_get_different_plans() -> None:
    """Small MR of two channels, a body in CT, and thick oblique slices."""
    values = np.ones((2, 5), np.float32)
    brain = CasePrint((48, 56, 40), (1.0, 1.0, 1.0), ("", ""), (span(0.0, 2.0),) * 2, values, {1: 1.0})
    brains = make_plan(Fingerprint(("t1", "t2"), {"core": 1}, {}, (brain,))).config
    kidneys = ("kidney_left", "kidney_right")
    bodies = make_plan(fingerprint((320, 260, 120), (1.5, 1.5, 2.0), labels=kidneys, low=-1000)).config
    cords = make_plan(fingerprint((384, 384, 16), (0.5, 0.5, 7.5))).config
    methods = [[entry.method for entry in plan.preprocessing.normalization] for plan in (brains, bodies, cords)]
    assert methods == [["zscore", "zscore"], ["ct"], ["zscore"]]
    for plan in (brains, bodies):
        assert isinstance(plan.network, DynUNet)
        assert plan.network.strides[:3] == ((2, 2, 2),) * 3
    assert isinstance(cords.network, DynUNet)
    assert cords.network.strides[:3] == ((2, 2, 1),) * 3
    assert 12 <= cords.patches.size[2] <= 16
    assert len({plan.patches.size for plan in (brains, bodies, cords)}) == 3
    assert bodies.augmentation.flip_axes == ()  # kidneys have sides
    assert brains.augmentation.flip_axes == ("left-right",)


@pytest.mark.real_data
def test_the_hippocampus_gets_a_sensible_plan(real_data: Path) -> None:
    config = make_plan(take_fingerprint(find_dataset(real_data / "hippocampus"))).config
    assert config.preprocessing.spacing_mm == (1.0, 1.0, 1.0)
    assert config.patches.size == (32, 48, 32)
    assert isinstance(config.preprocessing.normalization[0], ZScore)
