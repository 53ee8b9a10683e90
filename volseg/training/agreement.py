"""Agreement of predictions and references on training patches: accuracy, Dice and IoU, reported next to the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from volseg.config import DataConfig
from volseg.model.label_encoding import encode


@dataclass(frozen=True, eq=False)
class Agreement:
    """Voxel counts, summed over patches.

    Attributes:
        shared: (labels,) voxels in both prediction and reference.
        marked: (labels,) voxels in the prediction plus voxels in the reference.
        right: Voxels where every label is as in the reference.
        known: Annotated voxels.
    """

    shared: torch.Tensor
    marked: torch.Tensor
    right: torch.Tensor
    known: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, logits: torch.Tensor, reference: torch.Tensor, unknown: torch.Tensor, data: DataConfig) -> Agreement:
        """Compare predictions with references; outputs that are not annotated are never predicted.

        Args:
            logits: (B, outputs, R, A, S), or (B, levels, outputs, R, A, S); only the first level is used.
            reference: (B, 1, R, A, S) label values.
            unknown: (B, outputs) bool, the outputs that are not annotated in a patch.
            data: States the meaning of the outputs.
        """
        finest = logits[:, 0] if logits.ndim > reference.ndim else logits
        known = torch.ones_like(reference[:, 0], dtype=torch.bool)
        if data.ignored_value is not None:
            known = reference[:, 0] != data.ignored_value
        if data.regions:
            counted = known & ~unknown.T[:, :, None, None, None]
            predicted, wanted = (finest > 0).movedim(1, 0) & counted, encode(reference, data).movedim(1, 0) & counted
            shared, marked = (predicted & wanted).flatten(1).sum(1), predicted.flatten(1).sum(1)
            right = known & (predicted == wanted).all(dim=0)
            return cls(shared, marked + wanted.flatten(1).sum(1), right.sum(), known.sum())
        # Output indices rather than one mask per output: there may be hundreds of labels.
        numbers = torch.zeros(int(reference.max()) + 1, dtype=torch.int64, device=reference.device)
        for number, label in enumerate(data.learned_labels, start=1):
            if label.value < len(numbers):
                numbers[label.value] = number
        answers = _largest(finest).flatten(1)
        predicted, wanted = (answers * ~unknown.gather(1, answers)).flatten(), numbers[reference.flatten().long()]
        if data.ignored_value is not None:
            predicted, wanted = predicted[known.flatten()], wanted[known.flatten()]
        equal = predicted == wanted
        shared, found, drawn = (
            torch.bincount(each, minlength=data.outputs)[1:] for each in (wanted[equal], predicted, wanted)
        )
        return cls(shared, found + drawn, equal.sum(), known.sum())

    def __add__(self, other: Agreement) -> Agreement:
        """Return the sum of the counts."""
        return Agreement(
            self.shared + other.shared, self.marked + other.marked, self.right + other.right, self.known + other.known
        )

    @property
    def columns(self) -> dict[str, float]:
        """Return accuracy, and mean Dice and IoU over the labels that occur, under the column names of history.csv."""
        seen = self.marked > 0
        dice = 2 * self.shared[seen] / self.marked[seen]
        iou = self.shared[seen] / (self.marked[seen] - self.shared[seen])
        numbers = {"accuracy": self.right / self.known.clamp(min=1), "dice": dice.mean(), "iou": iou.mean()}
        return {f"train_{name}": float(value) for name, value in numbers.items() if not torch.isnan(value)}


def _largest(logits: torch.Tensor) -> torch.Tensor:
    """Return the index of the largest output, (B, outputs, ...) -> (B, ...) int64, ten times as fast as argmax.

    It goes output by output: the values of one output are contiguous in memory, those of one voxel are not.
    """
    best, winners = logits[:, 0].clone(), torch.zeros_like(logits[:, 0], dtype=torch.int64)
    for output in range(1, logits.shape[1]):
        winners.masked_fill_(logits[:, output] > best, output)
        torch.maximum(best, logits[:, output], out=best)
    return winners
