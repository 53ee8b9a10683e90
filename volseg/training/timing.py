"""Timing of training steps on this machine under its current load."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from volseg.config import Config
from volseg.io.measurements import cache_folder, keep, measurement_key, recall
from volseg.model.devices import choose_device, compute_resources
from volseg.model.networks import choose_precision
from volseg.training.distributed import SINGLE_PROCESS
from volseg.training.sampling import TrainingBatch
from volseg.training.schedule import Clock
from volseg.training.state import start
from volseg.training.step import TrainingStep
from volseg.training.threads import numbers_of_threads

#: Number of timed steps per number of threads, after a first one, and the time limit; the fastest of all counts.
_TIMED_STEPS, _LONGEST_SECONDS = 2, 6.0
#: If the time of a step differs from the earlier one by less than this share, all earlier measurements are reused.
_LIKE_BEFORE = 0.15


class StepTimer:
    """A timer of training steps, which reuses earlier measurements while the machine is as fast as it was then.

    Args:
        device: Where steps are timed; by default a CUDA device if there is one.
        cache: Folder of earlier measurements; by default the user's cache folder.
    """

    def __init__(self, device: torch.device | None = None, cache: Path | None = None) -> None:
        self._device = choose_device(device)
        self._cache = cache or cache_folder("steps")
        self._like_before: bool | None = None
        self._timed: dict[str, float] = {}

    def __call__(self, config: Config) -> float:
        """Return the seconds per step of a configuration; the first one is always timed, others if the speed changed.

        Raises:
            TrainingError: If a step does not fit into memory.
        """
        key = _key(config, self._device)
        if key in self._timed:  # candidates are equal if the user has set everything in which they would differ
            return self._timed[key]
        known = recall(self._cache, key, lambda content: float(content["seconds"]))
        if known is not None and self._like_before:
            return known
        seconds = step_seconds(config, self._device, numbers_of_threads(self._device))
        if self._like_before is None:
            self._like_before = known is not None and abs(seconds / known - 1) <= _LIKE_BEFORE
        keep(self._cache, key, {"seconds": seconds})
        self._timed[key] = seconds
        return seconds


def step_seconds(config: Config, device: torch.device, threads: Sequence[int]) -> float:
    """Time a step with patches of noise.

    Args:
        config: Network, patches, labels and everything else.
        device: Where the step runs.
        threads: Numbers of threads to try; the fastest counts.

    Returns:
        Seconds per step, without creating the patches, which happens in parallel.

    Raises:
        TrainingError: If a step does not fit into memory.
    """
    dtype = choose_precision(config.training.precision, device)
    training = config.training.model_copy(update={"start_from": None, "freeze_encoder": False})
    config = config.model_copy(update={"training": training})
    own = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        step = TrainingStep(start(config, device, dtype, Clock(training)), config, dtype, SINGLE_PROCESS)
        batch = _noise(config)
        seconds: list[float] = []
        try:
            for number in (own, *(number for number in threads for _ in range(_TIMED_STEPS))):
                if sum(seconds) > _LONGEST_SECONDS:
                    break
                torch.set_num_threads(number)
                began = time.perf_counter()
                step(batch)
                seconds.append(time.perf_counter() - began)
        finally:
            torch.set_num_threads(own)
    return min(seconds)


def _key(config: Config, device: torch.device) -> str:
    """Return a hash of everything that the time of a step depends on."""
    training, data = config.training, config.data
    return measurement_key(
        config.network.model_dump(mode="json"),
        config.patches.size,
        [training.batch_size, training.precision, training.memory_format, training.optimizer, config.loss.name],
        [len(data.channels), data.outputs],
        compute_resources(device),
    )


def _noise(config: Config) -> TrainingBatch:
    data, count, size = config.data, config.training.batch_size, config.patches.size
    values = torch.tensor([0, *data.labels.values()], dtype=torch.int32)
    return TrainingBatch(
        torch.randn(count, len(data.channels), *size),
        values[torch.randint(len(values), (count, 1, *size))],
        torch.zeros(count, data.outputs, dtype=torch.bool),
    )
