"""What training may take of the machine it runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

#: Of a GPU's memory, the rest is for what libraries keep and for other programs.
_SHARE_OF_GPU = 0.7
#: Patches beyond what this holds make a step longer and the network hardly better.
_MOST_GPU_GB = 12.0
_MOST_WORKERS = 8
#: Steps after which twice the features had learned more in the runs compared (benchmarks/TRAINING.md: one seed).
_STEPS_OF_A_WIDER_NETWORK = 600


@dataclass(frozen=True)
class Machine:
    """What a plan is made for.

    Attributes:
        features: Of the planned U-Net at full resolution.
        voxels_per_second: Of patches that a network with twice the features learns from; 0 where it never pays.
        memory_gb: What a training step may take.
        workers: Threads that make patches beside the network.
    """

    features: int
    voxels_per_second: float
    memory_gb: float
    workers: int

    def features_within(self, minutes: float | None, voxels: int, voxel_bytes: float) -> int:
        """How many features pay: twice as many take four times the multiplications and twice the memory.

        Args:
            minutes: Of the training, if it has a limit; without one the machine's usual features are taken.
            voxels: Of all patches of a step.
            voxel_bytes: Memory per voxel with the usual features.
        """
        steps = 60.0 * (minutes or 0.0) * self.voxels_per_second / voxels
        fits = 2 * voxel_bytes * voxels <= 1e9 * self.memory_gb
        return 2 * self.features if fits and steps >= _STEPS_OF_A_WIDER_NETWORK else self.features


#: The network itself takes all cores (its rate is that of two); one thread makes patches faster than they are used up.
CPU = Machine(features=16, voxels_per_second=1.25e5, memory_gb=4.0, workers=1)


def this_machine() -> Machine:
    """The machine this runs on."""
    if not torch.cuda.is_available():
        return CPU
    return with_gpu(torch.cuda.get_device_properties(0).total_memory / 1e9, os.cpu_count() or 1)


def with_gpu(total_gb: float, cores: int) -> Machine:
    """A machine with a GPU: it leaves the cores to making patches, of which it uses up many a second.

    Args:
        total_gb: Memory of the GPU.
        cores: Of the CPU.
    """
    return Machine(32, 0.0, min(_SHARE_OF_GPU * total_gb, _MOST_GPU_GB), max(1, min(cores - 1, _MOST_WORKERS)))
