"""Training batches: each patch depends only on the seed and its index.

It is therefore the same in every thread, and whether or not the run was interrupted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import Compose, Randomizable

from volseg.config import Config
from volseg.parallel import allowed_threads, helpers
from volseg.training.patches import cut, draw_corner
from volseg.training.preparation import PreparedCase
from volseg.transforms import IMAGE, REFERENCE, build_augmentation

#: Batches that each thread prefetches.
_BATCHES_AHEAD = 2


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """The input of a training step.

    Attributes:
        image: (B, C, *patch) float32.
        reference: (B, 1, *patch) int32 label values.
        unknown: (B, outputs) bool, the outputs that are not annotated in a patch.
    """

    image: torch.Tensor
    reference: torch.Tensor
    unknown: torch.Tensor


class Patches:
    """An endless sequence of augmented patches.

    Args:
        cases: Training cases; the same number of patches is cut from each.
        config: Patch size, batch size, share of foreground, augmentation and seed.
        shard: Which patches of each batch to create.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: Config, shard: slice = slice(None)) -> None:
        self._cases = list(cases)
        self._config = config
        self._shard = shard
        self._local = threading.local()  # each MONAI transform holds its own random state

    def batch(self, step: int) -> TrainingBatch:
        """Create the batch of a step."""
        size = self._config.training.batch_size
        patches = [self._patch(index) for index in range(step * size, (step + 1) * size)[self._shard]]
        return TrainingBatch(*(torch.stack(parts) for parts in zip(*patches, strict=True)))

    def _patch(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        case = self._case(index)
        try:
            patch = self._augmented(case, np.random.default_rng((self._config.training.seed, index)))
            return *patch, torch.tensor(case.unknown)
        except Exception as error:
            error.add_note(f"while creating a training patch of case {case.case_id}")
            raise

    def _augmented(self, case: PreparedCase, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self._config.patches
        labels = case.reference
        r, a, s = labels.shape
        corner = draw_corner((r, a, s), settings.size, case.locations, settings.foreground, rng)
        image = torch.from_numpy(cut(case.image, corner, settings.size))
        outside = self._config.data.ignored_value or 0
        reference = torch.from_numpy(cut(labels, corner, settings.size, outside).astype(np.float32)[np.newaxis])
        augment = self._augmentation()
        state = np.random.RandomState(int(rng.integers(2**32)))
        for transform in augment.transforms:  # one generator for all: seeding each takes as long as most transforms do
            if isinstance(transform, Randomizable):
                transform.set_random_state(state=state)
        sample = augment({IMAGE: image, REFERENCE: reference})
        return torch.as_tensor(sample[IMAGE]), torch.as_tensor(sample[REFERENCE]).to(torch.int32)

    def _augmentation(self) -> Compose:
        """Return the transforms of this thread."""
        if not hasattr(self._local, "augment"):
            config = self._config
            self._local.augment = build_augmentation(
                config.augmentation,
                config.data.labels,
                config.patches.size,
                config.preprocessing.axes,
                planes=config.patches.planes,
                outside=config.data.ignored_value or 0,
            )
        return self._local.augment

    def _case(self, index: int) -> PreparedCase:
        """Return the case of a patch: every round visits all cases in a new order."""
        round_, place = divmod(index, len(self._cases))
        order = np.random.default_rng((self._config.training.seed, 1, round_)).permutation(len(self._cases))
        return self._cases[order[place]]


def batches(patches: Patches, workers: int, first_step: int) -> Generator[TrainingBatch, None, None]:
    """Yield batches endlessly, prefetched by threads.

    Args:
        patches: Creates the patches.
        workers: Number of threads, limited to what the process may use; with 0, each batch is created on demand.
        first_step: The step that a resumed run continues with.

    Yields:
        The batch of each step.
    """
    set_track_meta(False)  # patches need no affine, and tracking it costs more than the augmentation itself
    try:
        if not workers:
            yield from map(patches.batch, count(first_step))
        with helpers(min(workers, allowed_threads())) as pool:
            ahead = _BATCHES_AHEAD * workers
            pending = deque(pool.submit(patches.batch, first_step + n) for n in range(ahead))
            for step in count(first_step + ahead):
                batch = pending.popleft().result()
                pending.append(pool.submit(patches.batch, step))
                yield batch
    finally:
        set_track_meta(True)
