"""Training patches, each a function of the seed and its number alone.

Which process makes a patch, or whether the run was interrupted before, therefore changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from monai.data import set_track_meta
from torch.utils.data import DataLoader, Dataset

from volseg.config import Config
from volseg.patches import cut, draw_corner
from volseg.preparation import PreparedCase
from volseg.transforms import IMAGE, REFERENCE, build_augmentation


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """An endless sequence of augmented patches.

    Args:
        cases: What patches are cut from, every case equally often.
        config: Patch size, share of foreground, augmentation and seed.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: Config) -> None:
        self.cases = list(cases)
        self.patch = config.patches.size
        self.foreground = config.patches.foreground
        self.seed = config.training.seed
        self.augment = build_augmentation(config.augmentation, config.data.labels, self.patch)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Make patch number `index`: "image" (C, *patch) float32 and "reference" (1, *patch) int32."""
        rng = np.random.default_rng((self.seed, index))
        case = self._case(index)
        shape = case.reference.shape
        corner = draw_corner((shape[0], shape[1], shape[2]), self.patch, case.locations, self.foreground, rng)
        image = torch.from_numpy(cut(case.image, corner, self.patch))
        reference = torch.from_numpy(cut(case.reference, corner, self.patch).astype(np.float32)[np.newaxis])
        self.augment.set_random_state(seed=int(rng.integers(2**32)))
        sample = self.augment({IMAGE: image, REFERENCE: reference})
        return {IMAGE: torch.as_tensor(sample[IMAGE]), REFERENCE: torch.as_tensor(sample[REFERENCE]).to(torch.int32)}

    def _case(self, index: int) -> PreparedCase:
        """Go through all cases in a new order each time."""
        turn, place = divmod(index, len(self.cases))
        order = np.random.default_rng((self.seed, 1, turn)).permutation(len(self.cases))
        return self.cases[order[place]]


def batches(dataset: PatchDataset, config: Config, first_step: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches without end, beginning with that of `first_step`.

    Args:
        dataset: Where patches come from.
        config: Batch size and number of worker processes.
        first_step: The step a resumed run continues with.

    Yields:
        "image" (B, C, *patch) and "reference" (B, 1, *patch).
    """
    size = config.training.batch_size
    workers = config.training.workers
    loader = DataLoader(
        dataset,
        batch_size=size,
        sampler=range(first_step * size, 2**40),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    set_track_meta(False)  # patches need no affine, and keeping it costs more than the augmentation itself
    try:
        yield from loader
    finally:
        set_track_meta(True)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    set_track_meta(False)
