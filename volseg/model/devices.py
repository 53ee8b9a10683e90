"""Devices: choose where a network runs, and name what its speed depends on."""

from __future__ import annotations

import re

import torch

from volseg.errors import ConfigError

_CPU_HINT = "leave it out, or use cpu"


def choose_device(asked: str | torch.device | None = None) -> torch.device:
    """Choose the device of a network.

    Args:
        asked: "cpu", "cuda", one of several such as "cuda:1", or "mps" (GPUs of Apple); "auto" or None selects a CUDA
            device if there is one, else the CPU.

    Returns:
        A device of this machine.

    Raises:
        ConfigError: If the device does not exist; lists those that do.
    """
    name = "auto" if asked is None else str(asked)
    found = re.fullmatch(r"(auto)|(cpu)(?::0)?|(cuda)(?::(\d+))?|(mps)(?::0)?", name)
    if found is None:
        raise ConfigError(f"{name}: volseg does not support this device", hint="use cpu, cuda, cuda:N, mps or auto")
    automatic, cpu, cuda, number, _ = found.groups()
    if cpu or (automatic and not torch.cuda.is_available()):
        return torch.device("cpu")
    if automatic:
        return torch.device("cuda")
    if cuda:
        _check_cuda(name, int(number or 0))
        return torch.device(name)
    _check_mps()
    return torch.device("mps")


def _check_cuda(name: str, number: int) -> None:
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]  # PyTorch has no types here
        raise ConfigError(
            f"{name}: this is a CPU build of PyTorch ({torch.__version__})",
            hint=f"install a build with CUDA (pytorch.org tells how), or {_CPU_HINT}",
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"{name}: PyTorch finds no CUDA device on this machine",
            hint=f"check whether nvidia-smi lists one and, in a container, whether it can be accessed; or {_CPU_HINT}",
        )
    count = torch.cuda.device_count()
    if number >= count:
        there = "one CUDA device, cuda:0" if count == 1 else f"{count} CUDA devices, cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"{name}: this machine has {there}", hint="use one that exists")


def _check_mps() -> None:
    if not torch.backends.mps.is_built():
        raise ConfigError(
            "mps needs macOS on an Apple processor, and PyTorch's build for it; this is another one "
            f"({torch.__version__})",
            hint="use cuda if there is one, or cpu",
        )
    if not torch.backends.mps.is_available():
        raise ConfigError("mps: PyTorch finds no GPU of Apple on this machine", hint=f"update macOS, or {_CPU_HINT}")


def device_kind(device: torch.device) -> tuple[str, str]:
    """Describe a device as far as rounding depends on it: its type, with the GPU or the instruction set of the CPU."""
    if device.type == "cuda":
        return device.type, torch.cuda.get_device_name(device)
    return device.type, torch.backends.cpu.get_cpu_capability()


def compute_resources(device: torch.device) -> tuple[str | int, ...]:
    """Describe a device as far as speed depends on it: a GPU, or threads and instruction set of a CPU."""
    if device.type == "cuda":
        return str(device), torch.cuda.get_device_name(device)
    return str(device), torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
