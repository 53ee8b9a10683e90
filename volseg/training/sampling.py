"""Training patches, each a function of the seed and its number alone.

Which thread makes a patch, or whether the run was interrupted before, therefore changes nothing.
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
from monai.transforms import Compose

from volseg.config import Config
from volseg.parallel import helpers
from volseg.training.patches import cut, draw_corner
from volseg.training.preparation import PreparedCase
from volseg.transforms import IMAGE, REFERENCE, build_augmentation

#: Batches that each helping thread is ahead of the network.
_BATCHES_AHEAD = 2


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What one step learns from.

    Attributes:
        image: (B, C, *patch) float32.
        reference: (B, 1, *patch) int32 label values.
        unknown: (B, outputs) bool, the outputs that a reference says nothing of.
    """

    image: torch.Tensor
    reference: torch.Tensor
    unknown: torch.Tensor


class Patches:
    """An endless sequence of augmented patches.

    Args:
        cases: What patches are cut from, every case equally often.
        config: Patch size, batch size, share of foreground, augmentation and seed.
        part: Which patches of each batch are made here.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: Config, part: slice = slice(None)) -> None:
        self._cases = list(cases)
        self._config = config
        self._part = part
        self._local = threading.local()  # a MONAI chain holds the state of its chance

    def batch(self, step: int) -> TrainingBatch:
        """Make the patches of a step."""
        size = self._config.training.batch_size
        patches = [self._patch(index) for index in range(step * size, (step + 1) * size)[self._part]]
        return TrainingBatch(*(torch.stack(parts) for parts in zip(*patches, strict=True)))

    def _patch(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        case = self._case(index)
        try:
            patch = self._augmented(case, np.random.default_rng((self._config.training.seed, index)))
            return *patch, torch.tensor(case.unknown)
        except Exception as error:
            error.add_note(f"while a training patch of case {case.case_id} was made")
            raise

    def _augmented(self, case: PreparedCase, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self._config.patches
        marked = case.reference
        r, a, s = marked.shape
        corner = draw_corner((r, a, s), settings.size, case.locations, settings.foreground, rng)
        image = torch.from_numpy(cut(case.image, corner, settings.size))
        reference = torch.from_numpy(cut(marked, corner, settings.size).astype(np.float32)[np.newaxis])
        augment = self._augmentation()
        chance = np.random.RandomState(int(rng.integers(2**32)))
        for change in augment.transforms:  # one for all: a chain seeds each anew, which takes as long as most changes
            change.set_random_state(state=chance)
        sample = augment({IMAGE: image, REFERENCE: reference})
        return torch.as_tensor(sample[IMAGE]), torch.as_tensor(sample[REFERENCE]).to(torch.int32)

    def _augmentation(self) -> Compose:
        """The chain of this thread."""
        if not hasattr(self._local, "chain"):
            config = self._config
            self._local.chain = build_augmentation(config.augmentation, config.data.labels, config.patches.size)
        return self._local.chain

    def _case(self, index: int) -> PreparedCase:
        """Go through all cases in a new order each time."""
        turn, place = divmod(index, len(self._cases))
        order = np.random.default_rng((self._config.training.seed, 1, turn)).permutation(len(self._cases))
        return self._cases[order[place]]


def batches(patches: Patches, workers: int, first_step: int) -> Generator[TrainingBatch, None, None]:
    """Yield batches without end, made ahead of the network by threads.

    Args:
        patches: What they are made of.
        workers: How many threads; without any, each batch is made when it is asked for.
        first_step: The step a resumed run continues with.

    Yields:
        The batch of each step.
    """
    set_track_meta(False)  # patches need no affine, and keeping it costs more than the augmentation itself
    try:
        if not workers:
            yield from map(patches.batch, count(first_step))
        with helpers(workers) as pool:
            ahead = _BATCHES_AHEAD * workers
            waiting = deque(pool.submit(patches.batch, first_step + n) for n in range(ahead))
            for step in count(first_step + ahead):
                made = waiting.popleft().result()
                waiting.append(pool.submit(patches.batch, step))
                yield made
    finally:
        set_track_meta(True)
