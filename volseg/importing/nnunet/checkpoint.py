"""Checkpoints of nnU-Net: the weights of one fold, and what prediction needs besides the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from volseg.errors import CheckpointError
from volseg.importing.weights import plain_name, read_dictionary

#: Types in a checkpoint besides tensors and plain values: NumPy numbers, which are not code. Nothing else is loaded.
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]  # noqa: SLF001  NumPy has no other name for it
_HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "bool")),
]
#: Weights that nnU-Net's networks list a second time.
_LISTED_TWICE = (".all_modules.", "decoder.encoder.")
_COPY = "copy it again from where it was trained"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The relevant content of a file `checkpoint_final.pth`.

    Attributes:
        weights: Name -> tensor, each once.
        configuration: Of the plan: "3d_fullres"; empty where it is not stated.
        trainer: Its name.
        mirror_axes: Axes of the network along which it may be mirrored.
    """

    weights: Mapping[str, Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; no code in it is executed.

    Raises:
        CheckpointError: If it is damaged, is not a checkpoint of nnU-Net, or holds anything but tensors and plain
            values.
    """
    content = read_dictionary(path, "checkpoint of nnU-Net", _HARMLESS)
    stated = content.get("network_weights")
    weights = stated if isinstance(stated, dict) else {}
    weights = {plain_name(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    weights = {name: value for name, value in weights.items() if not any(part in name for part in _LISTED_TWICE)}
    if not weights:
        raise CheckpointError(f"{path} is not a checkpoint of nnU-Net: it has no network_weights", hint=_COPY)
    begun_with = content.get("init_args")
    configuration = begun_with.get("configuration") if isinstance(begun_with, dict) else None
    axes = content.get("inference_allowed_mirroring_axes")
    return Checkpoint(
        weights,
        configuration if isinstance(configuration, str) else "",
        str(content.get("trainer_name", "")),
        tuple(int(axis) for axis in axes or () if isinstance(axis, int) and 0 <= axis <= 2),
    )
