"""Restore the volume's grid: slabs of logits on the network's grid -> labels on the grid of the volume.

Logits are interpolated linearly along each axis. Where all corners of a cell of the network's grid have one label, so
has everything between them: the logit that is the largest at each corner is the largest in every weighted mean of the
corners. So only voxels between different labels need their logits interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from volseg.config import Answers, DataConfig
from volseg.image.box import Box
from volseg.image.resampling import interpolate_axis
from volseg.inference.sliding import Slab

#: Logits (..., outputs) -> (...) uint8 or int16, the number of the label that wins, 0 for background.
Decide = Callable[[torch.Tensor], torch.Tensor]
Positions = NDArray[np.float64]

#: Most logits and voxels that are processed at once.
_LOGITS_AT_ONCE, _VOXELS_AT_ONCE = 8_000_000, 2_000_000


@dataclass(frozen=True)
class Form:
    """The form in which outputs are interpolated; before and after that they are logits.

    Attributes:
        of_logits: Logits (..., outputs) -> that form.
        to_logits: The inverse.
    """

    of_logits: Callable[[torch.Tensor], torch.Tensor]
    to_logits: Callable[[torch.Tensor], torch.Tensor]


def _unchanged(logits: torch.Tensor) -> torch.Tensor:
    return logits


LOGITS = Form(_unchanged, _unchanged)


def form_of(answers: Answers, data: DataConfig, cutoffs: Sequence[float]) -> Form:
    """Return the form that a configuration selects.

    Args:
        answers: What is interpolated; labels are taken from the nearest logits, which stay as they are.
        data: Labels or regions.
        cutoffs: The values subtracted from the logits of each output.
    """
    if answers != "probabilities":
        return LOGITS
    if not data.regions:
        return Form(lambda logits: logits.softmax(dim=-1), torch.log)
    taken = torch.tensor(cutoffs)
    return Form(
        lambda logits: torch.sigmoid(logits + taken.to(logits)), lambda shares: torch.logit(shares) - taken.to(shares)
    )


@dataclass(frozen=True, eq=False)
class Target:
    """A part of the volume's grid that is decided from a part of the network's grid.

    Attributes:
        box: Voxels of the volume.
        positions: Their positions on the network's grid per axis, ascending.
    """

    box: Box
    positions: tuple[Positions, Positions, Positions]

    @property
    def source(self) -> Box:
        """The box of the network's voxels that they lie on or between."""
        return Box(*(slice(int(each[0]), math.ceil(each[-1]) + 1) for each in self.positions))

    def is_aligned(self) -> bool:
        """Return whether its voxels coincide with those of the network's grid."""
        return all(
            np.array_equal(each, np.arange(side.start, side.stop))
            for each, side in zip(self.positions, self.source, strict=True)
        )

    def rows_at_once(self, axis: int, outputs: int) -> int:
        """Return the number of planes of the volume to process together."""
        sizes = [len(each) for n, each in enumerate(self.positions) if n != axis]
        source = [size for n, size in enumerate(self.source.shape) if n != axis]
        fit = min(_VOXELS_AT_ONCE // math.prod(sizes), _LOGITS_AT_ONCE // (math.prod(source) * outputs))
        return max(1, fit)

    def full_rows_at_once(self, axis: int, outputs: int) -> int:
        """Return the same number for when all logits of the volume's voxels are needed."""
        sizes = [len(each) for n, each in enumerate(self.positions) if n != axis]
        return max(1, min(self.rows_at_once(axis, outputs), _LOGITS_AT_ONCE // (math.prod(sizes) * outputs)))


def find_targets(positions: Sequence[Positions], covered: Box, across: int, strips: int) -> list[Target]:
    """Divide the part that can be decided into strips.

    Args:
        positions: Positions of the volume's voxels on the network's grid per axis.
        covered: The part of the network's grid for which there are logits; everything beyond it is background.
        across: The axis that is divided.
        strips: Largest number of parts.

    Returns:
        The parts, none if no voxel lies within.
    """
    sides = []
    for each, side in zip(positions, covered, strict=True):
        inside = np.flatnonzero((each >= side.start) & (each <= side.stop - 1))
        if not inside.size:
            return []
        sides.append(slice(int(inside[0]), int(inside[-1]) + 1))
    whole = Box(*sides)
    cuts = np.linspace(whole[across].start, whole[across].stop, strips + 1).round().astype(int)
    targets = []
    for begin, end in pairwise(cuts):
        if begin < end:
            box = whole.with_side(across, slice(int(begin), int(end)))
            targets.append(Target(box, (positions[0][box.i], positions[1][box.j], positions[2][box.k])))
    return targets


def restore(
    slabs: Iterable[Slab], target: Target, axis: int, decide: Decide, form: Form = LOGITS
) -> Iterator[tuple[Box, NDArray[np.integer]]]:
    """Decide labels on the grid of the volume.

    Args:
        slabs: Logits of the target's source, in ascending order along the axis.
        target: The part to decide.
        axis: The axis along which the slabs follow each other.
        decide: Turns logits into labels.
        form: The form in which outputs are interpolated.

    Yields:
        Boxes of the volume, which together make up the target, and the numbers of their labels.
    """
    if target.is_aligned():
        yield from _decide_in_place(slabs, target, decide)
        return
    second, third = (each for n, each in enumerate(target.positions) if n != axis)
    for box, answers in _rows(slabs, target, axis, form):
        numbers = _decide_plane(answers, second, third, lambda each: decide(form.to_logits(each)))
        yield box, np.moveaxis(numbers.cpu().numpy(), 0, axis)


def interpolate(
    slabs: Iterable[Slab], target: Target, axis: int, form: Form, rows: int
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Interpolate logits on the grid of the volume.

    Args:
        slabs: As for `restore`.
        target: The part to interpolate.
        axis: The axis along which the slabs follow each other.
        form: The form in which outputs are interpolated.
        rows: Number of planes per yield.

    Yields:
        Boxes of the volume, and (rows, other two axes, outputs) float32 logits, the axis of the slabs first.
    """
    second, third = (each for n, each in enumerate(target.positions) if n != axis)
    for box, answers in _rows(slabs, target, axis, form, rows):
        yield box, form.to_logits(_interpolate_plane(answers, second, third))


def _decide_in_place(
    slabs: Iterable[Slab], target: Target, decide: Decide
) -> Iterator[tuple[Box, NDArray[np.integer]]]:
    """Decide where both grids coincide: the largest sum is the largest mean, so no division by weights is needed."""
    for slab in slabs:
        planes = max(1, _LOGITS_AT_ONCE // slab.sums[0].numel())
        box = slab.box.seen_from(target.source.origin).shifted(target.box.origin)
        for n in range(0, len(slab.sums), planes):
            numbers = decide(slab.sums[n : n + planes])
            begin = box.i.start + n
            yield box.with_side(0, slice(begin, begin + len(numbers))), numbers.cpu().numpy()


def _rows(
    slabs: Iterable[Slab], target: Target, axis: int, form: Form, rows: int | None = None
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Yield mean outputs for planes of the volume, interpolated along the axis: (n, source's other axes, outputs)."""
    positions = target.positions[axis]
    held, done = None, 0  # planes that the next rows need and the next slab does not have
    for slab in slabs:
        rows = rows or target.rows_at_once(axis, slab.sums.shape[-1])
        begin, end = slab.box[axis].start, slab.box[axis].stop
        while done < len(positions):
            chunk = positions[done : done + rows]
            low, high = int(chunk[0]), math.ceil(chunk[-1]) + 1
            if high > end:
                break
            planes = _means(slab, axis, slice(max(low - begin, 0), high - begin), form)
            if low < begin and held is not None:
                planes = torch.cat([held[low - begin :], planes])
            first = target.box[axis].start + done
            box = target.box.with_side(axis, slice(first, first + len(chunk)))
            yield box, interpolate_axis(planes, 0, chunk - low)
            done += len(chunk)
        if done < len(positions):
            low = int(positions[done])
            if low >= end:  # the voxels of the volume are far apart: the next lies beyond this slab
                held = None
                continue
            rest = _means(slab, axis, slice(max(low - begin, 0), end - begin), form)
            held = torch.cat([held[low - begin :], rest]) if held is not None and low < begin else rest


def _means(slab: Slab, axis: int, planes: slice, form: Form) -> torch.Tensor:
    """Return mean outputs as (n, other two axes, outputs) float32, contiguous."""
    sums = slab.sums.narrow(axis, planes.start, planes.stop - planes.start).movedim(axis, 0)
    weights = slab.weights.narrow(axis, planes.start, planes.stop - planes.start).movedim(axis, 0)
    result = torch.empty(sums.shape, device=sums.device)
    torch.div(sums, weights.clamp(min=torch.finfo(torch.float32).tiny)[..., None], out=result)
    return form.of_logits(result)


def _decide_plane(logits: torch.Tensor, second: Positions, third: Positions, decide: Decide) -> torch.Tensor:
    """Decide planes: (n, P, Q, outputs) logits -> (n, len(second), len(third)) numbers of labels."""
    low_2, low_3 = (np.floor(each).astype(np.int64) for each in (second, third))
    at_2, at_3 = (torch.from_numpy(low - low[0]).to(logits.device) for low in (low_2, low_3))
    corners = decide(logits)
    numbers = corners.index_select(1, at_2).index_select(2, at_3)
    between = _between_labels(corners).index_select(1, at_2).index_select(2, at_3).nonzero()
    share_2, share_3 = (
        torch.from_numpy((each - low).astype(np.float32)).to(logits.device)
        for each, low in ((second, low_2), (third, low_3))
    )
    count = _LOGITS_AT_ONCE // logits.shape[-1]
    for begin in range(0, len(between), count):
        n, p, q = between[begin : begin + count].unbind(dim=1)
        numbers[n, p, q] = decide(_pick(logits, (n, at_2[p], at_3[q]), share_2[p], share_3[q]))
    return numbers


def _between_labels(corners: torch.Tensor) -> torch.Tensor:
    """Return, for (n, P, Q) labels, whether those at (p, q), (p + 1, q), (p, q + 1) and (p + 1, q + 1) differ."""
    differ = torch.zeros_like(corners, dtype=torch.bool)
    along_2, along_3 = corners[:, 1:] != corners[:, :-1], corners[:, :, 1:] != corners[:, :, :-1]
    differ[:, :-1] |= along_2
    differ[:, :-1, :-1] |= along_2[:, :, 1:]
    differ[:, :, :-1] |= along_3
    differ[:, :-1, :-1] |= along_3[:, 1:]
    return differ


def _pick(
    logits: torch.Tensor,
    corner: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    share_2: torch.Tensor,
    share_3: torch.Tensor,
) -> torch.Tensor:
    """Interpolate between four corners: (n, P, Q, outputs) logits -> (voxels, outputs)."""
    _, rows, columns, outputs = logits.shape
    here = (corner[0] * rows + corner[1]) * columns + corner[2]
    # A voxel in the last row or column lies on it: its further corner has no share and may be any.
    down = columns * (corner[1] < rows - 1)
    right = (corner[2] < columns - 1).to(torch.int64)
    indices = torch.stack([here, here + down, here + right, here + down + right], dim=1)
    shares = torch.stack(
        [(1 - share_2) * (1 - share_3), share_2 * (1 - share_3), (1 - share_2) * share_3, share_2 * share_3], dim=1
    )
    return functional.embedding_bag(indices, logits.reshape(-1, outputs), per_sample_weights=shares, mode="sum")


def _interpolate_plane(logits: torch.Tensor, second: Positions, third: Positions) -> torch.Tensor:
    logits = interpolate_axis(logits, 1, second - int(second[0]))
    return interpolate_axis(logits, 2, third - int(third[0]))
