"""Where a model is stored, by which another process loads the same one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volseg.config import PartialConfig
from volseg.errors import UnfitWorkerError
from volseg.model.checkpoint import TrainedNetwork, load_model, reconfigured
from volseg.model.devices import choose_device


@dataclass(frozen=True)
class StoredModel:
    """A model on disk, with the settings that it is used with.

    Attributes:
        files: One per network; their logits are averaged.
        given: Keys that differ from training.
        device: Where it runs; None for a CUDA device if there is one.
    """

    files: tuple[Path, ...]
    given: PartialConfig
    device: str | None = None

    def load(self) -> list[TrainedNetwork]:
        """Load the networks.

        Raises:
            UnfitWorkerError: If a file is missing.
            CheckpointError: If one is damaged.
        """
        for file in self.files:
            if not file.is_file():
                raise UnfitWorkerError(
                    f"it does not have the model {file}", hint="put the model where every worker can read it"
                )
        device = choose_device(self.device)
        return [reconfigured(load_model(file, device), self.given) for file in self.files]
