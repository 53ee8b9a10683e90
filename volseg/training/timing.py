"""How long a training step takes on this machine, as busy as it is."""

from __future__ import annotations

import time

import torch

from volseg.config import Config
from volseg.model.devices import choose_device
from volseg.model.networks import choose_precision
from volseg.training.distributed import SINGLE_PROCESS
from volseg.training.sampling import TrainingBatch
from volseg.training.schedule import Clock
from volseg.training.state import start
from volseg.training.step import TrainingStep

#: Steps that are timed after one that gets everything ready; the fastest of them counts.
_TIMED_STEPS = 2


def step_seconds(config: Config, device: torch.device | None = None) -> float:
    """Time a step with patches of noise.

    Args:
        config: Network, patches, labels and everything else.
        device: Where; on a CUDA device, if there is one and none is named.

    Returns:
        Seconds, without making the patches, which goes on beside it.

    Raises:
        TrainingError: If a step does not fit into memory.
    """
    device = choose_device(device)
    dtype = choose_precision(config.training.precision, device)
    training = config.training.model_copy(update={"start_from": None, "freeze_encoder": False})
    config = config.model_copy(update={"training": training})
    with torch.random.fork_rng(devices=[]):
        step = TrainingStep(start(config, device, dtype, Clock(training)), config, dtype, SINGLE_PROCESS)
        batch = _noise(config)
        seconds = []
        for _ in range(1 + _TIMED_STEPS):
            began = time.perf_counter()
            step(batch)
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _noise(config: Config) -> TrainingBatch:
    data, count, size = config.data, config.training.batch_size, config.patches.size
    values = torch.tensor([0, *data.labels.values()], dtype=torch.int32)
    return TrainingBatch(
        torch.randn(count, len(data.channels), *size),
        values[torch.randint(len(values), (count, 1, *size))],
        torch.zeros(count, data.outputs, dtype=torch.bool),
    )
