"""Identity of a network: its weights and its architecture, wherever it was loaded from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from volseg.config import NetworkConfig


def fingerprint(weights: Mapping[str, Tensor], config: NetworkConfig) -> str:
    """Compute the SHA-256 of a network, in hexadecimal; the same on every device and in every memory format.

    Args:
        weights: Of the network, including buffers: names, dtypes, shapes and values count, bit for bit.
        config: The configuration it was built from.
    """
    content = hashlib.sha256(config.model_dump_json().encode())
    for name, tensor in sorted(weights.items()):
        content.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
