"""Which device is chosen, and what is said where there is none of that name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import volseg
from volseg.errors import ConfigError
from volseg.model.devices import choose_device
from volseg.model.networks import choose_precision
from volseg.planning.machine import CPU, this_machine
from volseg.training.distributed import join_process_group


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """PyTorch as it answers where there are CUDA devices: hardware that this machine need not have."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize("asked", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_is_always_there(asked: str | torch.device, with_cuda: Callable[[int], None]) -> None:
    with_cuda(2)
    assert choose_device(asked) == torch.device("cpu")


@pytest.mark.parametrize("asked", [None, "auto"])
def test_where_nothing_is_asked_for_cuda_is_taken_if_it_is_there(
    asked: str | None, with_cuda: Callable[[int], None]
) -> None:
    with_cuda(0)
    assert choose_device(asked) == torch.device("cpu")
    with_cuda(2)
    assert choose_device(asked) == torch.device("cuda")


def test_one_of_several_devices_is_taken(with_cuda: Callable[[int], None]) -> None:
    with_cuda(2)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device(torch.device("cuda", 1)) == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (0, "cuda", "cuda: PyTorch finds no CUDA device on this machine"),
        (1, "cuda:1", "cuda:1: this machine has one CUDA device, cuda:0"),
        (4, "cuda:4", "cuda:4: this machine has 4 CUDA devices, cuda:0 to cuda:3"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    count: int, asked: str, said: str, with_cuda: Callable[[int], None]
) -> None:
    with_cuda(count)
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(said)}$") as refusal:
        choose_device(asked)
    assert refusal.value.hint


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this PyTorch has CUDA")
def test_a_cpu_build_says_that_it_is_one() -> None:
    with pytest.raises(ConfigError, match=r"^cuda:0: this is a CPU build of PyTorch \(2\."):
        choose_device("cuda:0")


@pytest.mark.skipif(sys.platform == "darwin", reason="there may be one here")
def test_a_gpu_of_apple_needs_an_apple() -> None:
    with pytest.raises(ConfigError, match=r"^mps needs macOS on an Apple processor"):
        choose_device("mps")


@pytest.mark.parametrize("asked", ["", "gpu", "0", "cuda:", "cuda:x", "cuda:-1", "CUDA", "meta", "cpu:1"])
def test_what_is_no_device_is_refused_by_name(asked: str) -> None:
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(asked)}: volseg does not support this device$") as refusal:
        choose_device(asked)
    assert refusal.value.hint == "use cpu, cuda, cuda:N, mps or auto"


def test_a_gpu_of_apple_multiplies_float32() -> None:
    assert choose_precision("auto", torch.device("mps")) is torch.float32


def test_the_plan_is_made_for_the_device_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, with_cuda: Callable[[int], None]
) -> None:
    """Each device is asked about its own memory; who asks for the CPU gets its plan, whatever else there is."""
    with_cuda(2)
    sizes = {"cuda": 4e9, "cuda:1": 10e9}

    class Properties:
        def __init__(self, device: torch.device) -> None:
            self.total_memory = sizes[str(device)]

    monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8e9)
    assert this_machine(torch.device("cpu")).features == CPU.features
    memory = [this_machine(torch.device(name)).memory_gb for name in ("cuda", "cuda:1", "mps")]
    assert memory == pytest.approx([0.7 * 4, 0.7 * 10, 0.7 * 8])


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "mps"])
def test_several_processes_share_no_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(
        ConfigError, match=f"(?m)^{device}: several processes train on CPUs, or on one CUDA device each$"
    ):
        join_process_group(torch.device(device)).__enter__()


def test_every_process_needs_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, with_cuda: Callable[[int], None]
) -> None:
    with_cuda(2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"^cuda:2: this machine has 2 CUDA devices"):
        join_process_group(torch.device("cuda")).__enter__()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there may be one here")
def test_every_verb_that_computes_refuses_a_device_that_is_not_there(
    dataset: Path, trained_run: Path, tmp_path: Path, volseg_cli: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "out"
    for words in (
        ["plan", dataset, "--output", out],
        ["train", dataset, "--output", out],
        ["predict", dataset, "--model", trained_run, "--output", out],
        ["demo", "--output", out],
    ):
        code, _, err = volseg_cli(*words, "--device", "cuda:7")
        assert (code, err.splitlines()[0][:15]) == (2, "error: cuda:7: "), err
    assert not out.exists()


def test_the_library_takes_the_device_of_a_tensor(trained_run: Path) -> None:
    model = volseg.load(trained_run, device=torch.zeros(1).device)
    assert next(model.network.parameters()).device == torch.device("cpu")
