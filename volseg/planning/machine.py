"""Resources of the machine that training may use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from volseg.memory import total_gb
from volseg.model.networks import choose_precision
from volseg.parallel import allowed_threads

#: Usable share of a GPU's memory; the rest is for libraries and other programs.
_SHARE_OF_GPU = 0.7
#: Usable share of a small machine's or container's memory; the rest is for PyTorch, cases and other programs.
_SHARE_OF_MEMORY = 0.5
#: Patches that need more memory than this make a step longer and the network hardly better.
_MOST_GPU_GB = 12.0
_MOST_GPU_PATCHES = 4
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Machine:
    """The resources a plan is made for.

    Attributes:
        features: Of the planned U-Net at full resolution.
        most_features: If there is time for them.
        memory_gb: Memory that a training step may use.
        workers: Threads that make patches beside the network.
        most_patches: In a step.
        alternatives: Keys of `training` and values that may be faster than their defaults.
    """

    features: int
    most_features: int
    memory_gb: float
    workers: int
    most_patches: int
    alternatives: tuple[tuple[str, str], ...] = ()

    def features_that_fit(self, voxels: int, voxel_bytes: float) -> list[int]:
        """Return the default features, and twice as many if their activations fit into memory, too.

        Args:
            voxels: Of all patches of a step.
            voxel_bytes: Memory per voxel with the default features.
        """
        fits = 2 * voxel_bytes * voxels <= 1e9 * self.memory_gb
        return [self.features, self.most_features] if fits and self.most_features > self.features else [self.features]


#: The network itself takes all cores; one thread makes patches faster than they are used up. A step takes as long as
#: its patches together, and twice as many steps of two taught more than steps of four (benchmarks/TRAINING.md).
CPU = Machine(features=16, most_features=32, memory_gb=4.0, workers=1, most_patches=2)


def this_machine(device: torch.device) -> Machine:
    """Return the resources of this machine for training on one of its devices."""
    match device.type:
        case "cuda":
            return with_gpu(torch.cuda.get_device_properties(device).total_memory / 1e9, allowed_threads())
        case "mps":
            return with_gpu(torch.mps.recommended_max_memory() / 1e9, allowed_threads())
    alternatives = [("memory_format", "channels_last")]
    if choose_precision("auto", device) is torch.bfloat16:
        alternatives.append(("precision", "fp32"))
    memory_gb = round(min(CPU.memory_gb, _SHARE_OF_MEMORY * total_gb()), 1)
    return replace(CPU, memory_gb=memory_gb, alternatives=tuple(alternatives))


def with_gpu(total_gb: float, cores: int) -> Machine:
    """Return the resources of a machine with a GPU: the cores make patches, of which it uses many per second.

    Args:
        total_gb: Memory of the GPU.
        cores: Usable CPU cores.
    """
    memory_gb, workers = min(_SHARE_OF_GPU * total_gb, _MOST_GPU_GB), max(1, min(cores - 1, _MOST_WORKERS))
    return Machine(32, 32, memory_gb, workers, _MOST_GPU_PATCHES, (("memory_format", "contiguous"),))
