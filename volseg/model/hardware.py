"""The machine that networks run on, as far as speed and rounding depend on it."""

from __future__ import annotations

import torch

from volseg.about import Hardware
from volseg.memory import total_gb
from volseg.model.networks import choose_precision
from volseg.system import cores, processor_name


def this_hardware(device: torch.device, processes: int = 1) -> Hardware:
    """Describe this machine; nothing in it tells whose it is.

    Args:
        device: Where the networks run.
        processes: How many work together, each on a device of its own.
    """
    return Hardware(
        device=device.type,
        gpu=_gpu_name(device),
        processor=processor_name(),
        cores=min(torch.get_num_threads(), cores()),
        memory_gb=round(total_gb(), 1),
        instructions=torch.backends.cpu.get_cpu_capability(),
        bf16=choose_precision("auto", device) is torch.bfloat16,
        processes=processes,
    )


def _gpu_name(device: torch.device) -> str | None:
    match device.type:
        case "cuda":
            return torch.cuda.get_device_name(device)
        case "mps":
            return "GPU of Apple"
    return None
