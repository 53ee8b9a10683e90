"""What only a GPU can show; each test skips, and says so, where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import predict

from volseg.cases import find_dataset
from volseg.config import Config, PartialConfig, validate
from volseg.errors import MemoryShortageError
from volseg.inference import sliding
from volseg.inference.engines import split_on_oom
from volseg.inference.sliding import Slab
from volseg.model.checkpoint import load_model, reconfigured
from volseg.training.distributed import SINGLE_PROCESS
from volseg.training.preparation import prepare_cases
from volseg.training.sampling import Patches
from volseg.training.schedule import Clock
from volseg.training.state import start
from volseg.training.step import TrainingStep
from volseg.training.validation import Validator

pytestmark = pytest.mark.gpu

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def config() -> Config:
    tree = {
        "data": {"labels": {"label_1": 1, "label_2": 2}},
        "preprocessing": {"spacing_mm": (1.0, 1.1, 2.0), "normalization": [{"method": "zscore"}]},
        "patches": {"size": (16, 16, 16)},
        "network": {"name": "dynunet", "strides": [[2, 2, 2]] * 2, "filters": [8, 16, 32], "deep_supervision": 1},
        "training": {"epochs": 1, "steps_per_epoch": 30, "batch_size": 2, "warmup_steps": 2, "learning_rate": 0.01},
    }
    return validate(tree, "the test")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_network_learns_in_every_precision(config: Config, dataset: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    cases, _ = prepare_cases(find_dataset(dataset).cases, config, tmp_path)
    patches = Patches([*cases.values()], config, slice(0, config.training.batch_size))
    state = start(config, GPU, dtype, Clock(config.training))
    step = TrainingStep(state, config, dtype, SINGLE_PROCESS)
    state.network.train()
    results = [step(patches.batch(number)) for number in range(30)]
    losses = [result.loss for result in results if result.is_finite]  # fp16 begins with a scale that is too large
    assert len(losses) > 20
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert all(parameter.device.type == GPU.type for parameter in state.eval_network.parameters())


def test_the_mask_is_that_of_the_cpu(trained_run: Path, dataset: Path) -> None:
    exact = PartialConfig.of({"inference": {"precision": "fp32", "backend": "torch"}})
    case = find_dataset(dataset).cases[0]
    masks = [predict(case, [reconfigured(load_model(trained_run, device), exact)]).array for device in (GPU, CPU)]
    assert masks[1].any()
    assert (masks[0] != masks[1]).mean() < 1e-3


@pytest.fixture
def little_memory() -> Iterator[int]:
    """Bytes of the GPU that this process may take."""
    allowed = 1 << 30
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    yield allowed
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_on_a_gpu_is_halved(little_memory: int) -> None:
    sizes: list[int] = []

    def hungry(patches: torch.Tensor) -> torch.Tensor:
        sizes.append(len(patches))
        torch.empty(len(patches) * little_memory // 3, dtype=torch.uint8, device=GPU)
        return 2 * patches

    patches = torch.arange(5.0).reshape(5, 1, 1, 1, 1)
    assert torch.equal(split_on_oom(hungry)(patches), 2 * patches)
    assert sizes == [5, 3, 2, 1, 2]


def test_a_patch_that_does_not_fit_on_a_gpu_fails_its_case_alone(little_memory: int) -> None:
    def starved(patches: torch.Tensor) -> torch.Tensor:
        return torch.empty(2 * little_memory, dtype=torch.uint8, device=GPU)

    with pytest.raises(MemoryShortageError, match="does not fit"):
        split_on_oom(starved)(torch.zeros(1, 1, 4, 5, 6))


def test_validation_adds_up_where_the_network_runs(
    config: Config, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, _ = prepare_cases(find_dataset(dataset).cases[:2], config, tmp_path)
    network = start(config, CPU, torch.float32, Clock(config.training)).network
    devices: set[str] = set()
    slide = sliding.slide

    def watched(*arguments: Any) -> Iterator[Slab]:
        for slab in slide(*arguments):
            devices.add(slab.sums.device.type)
            yield slab

    monkeypatch.setattr(sliding, "slide", watched)
    validator = Validator(config, torch.float32)
    on_cpu = validator.validate(network, [*cases.values()]).dice
    assert devices == {CPU.type}
    devices.clear()
    on_gpu = validator.validate(network.to(GPU), [*cases.values()]).dice
    assert devices == {GPU.type}
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.01)


MEMBER = """
import torch
from torch import distributed
from volseg.training.distributed import join_process_group

with join_process_group(torch.device("cuda")) as group:
    ones = torch.ones(1, device="cuda")
    distributed.all_reduce(ones)
    print(distributed.get_backend(), group.world_size, ones.item())
"""


def test_a_group_of_one_talks_through_nccl(tmp_path: Path) -> None:
    (tmp_path / "member.py").write_text(MEMBER)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", tmp_path / "member.py"]
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)
    assert done.stdout.split() == ["nccl", "1", "1.0"], done.stderr
