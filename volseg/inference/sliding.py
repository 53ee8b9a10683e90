"""Sliding windows along one axis: logits of a volume, given out slab by slab once no further window touches them.

Only one slab of sums is held in memory, however long the volume is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional

from volseg.config import Weights
from volseg.image.box import Box, Triple
from volseg.image.resampled import ResampledVolume
from volseg.inference.windows import Windows, importance

#: Patches (B, C, *patch) float32 -> logits (B, outputs, *patch); fastest with the outputs of a voxel side by side.
InferFn = Callable[[torch.Tensor], torch.Tensor]
#: The axes R, A, S (0, 1, 2) along which a mirror image is reversed.
Flip = tuple[int, ...]

#: This many numbers of a window are added at once, so that they stay in the processor's cache.
_NUMBERS_AT_ONCE = 4_000_000

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Slab:
    """Weighted sums of logits in a part of the volume; the tensors are overwritten by the next slab.

    Attributes:
        box: The part of the network's grid.
        sums: (*box, outputs) float32 or float16.
        weights: (*box) float32, the sum of the weights; 0 where no window was computed.
    """

    box: Box
    sums: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Course:
    """The order in which windows run over a volume.

    Attributes:
        axis: The axis along which slabs are finished.
        part: The box of voxels for which logits are needed.
        batch: Patches that go through the network at once.
        dtype: Of the sums.
        device: Where the sums are kept.
        views: Mirror images that windows take turns among.
    """

    axis: int
    part: Box
    batch: int
    dtype: torch.dtype
    device: torch.device
    views: Sequence[Flip] = ((),)


def slide(
    run: InferFn, outputs: int, network_input: ResampledVolume, windows: Windows, course: Course
) -> Iterator[Slab]:
    """Run a network over a part of a volume.

    Args:
        run: The network.
        outputs: Logits per voxel.
        network_input: The volume.
        windows: The windows the network sees.
        course: How the windows run.

    Yields:
        Slabs in ascending order along the axis, without gaps; together they are the part, as far as windows reach.
    """
    axis = course.axis
    sums = _Sums(windows, outputs, course)
    for row, start in enumerate(windows.starts[axis]):
        sums.advance(max(start, 0))
        places = [place for place in windows.in_row(axis, row) if windows.box(place).overlaps(course.part)]
        if places:
            first, *others = (windows.box(place) for place in places)
            seen = first.union(*others)
            image = network_input.read(seen)
            for chunk in (places[n : n + course.batch] for n in range(0, len(places), course.batch)):
                flips = [course.views[sum(place) % len(course.views)] for place in chunk]
                patches = [_cut(image, seen, windows, place) for place in chunk]
                mirrored = torch.stack([_mirror(*each) for each in zip(patches, flips, strict=True)])
                answers = run(mirrored.to(course.device))
                for place, answer, flip in zip(chunk, answers, flips, strict=True):
                    sums.add(_mirror(answer, flip), windows, place)
        yield sums.finished(windows.next_row(axis, row))


def look(network_input: ResampledVolume, windows: Windows, place: Triple) -> torch.Tensor:
    """Return what the network sees in one window, (C, *patch)."""
    seen = windows.box(place)
    return _cut(network_input.read(seen), seen, windows, place)


def sliding_window(
    run: InferFn,
    outputs: int,
    image: torch.Tensor,
    windows: Windows,
    views: Sequence[Flip] = ((),),
    device: torch.device = _CPU,
    batch: int = 1,
) -> torch.Tensor:
    """Run a network over a whole volume and keep all logits.

    Args:
        run: The network.
        outputs: Logits per voxel.
        image: (C, R, A, S) float32, on the CPU, at the network's voxel size.
        windows: The windows it sees.
        views: Mirror images that windows take turns among.
        device: Where the logits of overlapping windows are summed, a slab at a time.
        batch: Patches that go through the network at once.

    Returns:
        (outputs, R, A, S) float32 logits on the CPU.
    """
    _, *shape = image.shape
    network_input = ResampledVolume.as_it_is(image.numpy())
    course = Course(0, windows.covered, batch, torch.float32, device, views)
    logits = torch.empty(*shape, outputs)
    for slab in slide(run, outputs, network_input, windows, course):
        logits[slab.box.i].copy_(slab.sums / slab.weights[..., None])
    return logits.movedim(-1, 0)


class _Sums:
    """The sums of a row of windows and of the windows that reach into it."""

    def __init__(self, windows: Windows, outputs: int, course: Course) -> None:
        self.axis = course.axis
        thickness = min(windows.patch[self.axis], windows.shape[self.axis])
        self.box = course.part.with_side(self.axis, slice(0, thickness))
        self.sums = torch.zeros(*self.box.shape, outputs, dtype=course.dtype, device=course.device)
        self.weights = torch.zeros(*self.box.shape, device=course.device)

    def add(self, answer: torch.Tensor, windows: Windows, place: Triple) -> None:
        """Add the logits (outputs, *patch) of a window, weighted, as far as they lie within the box."""
        shared = windows.box(place).intersection(self.box)
        inside, window = shared.seen_from(self.box.origin), shared.seen_from(windows.corner(place))
        logits, target = answer.to(self.sums.device).movedim(0, -1)[window], self.sums[inside]
        weights = _spread(windows.patch, windows.window.weights, len(answer), target.dtype, target.device)[window]
        planes = max(1, _NUMBERS_AT_ONCE // logits[0].numel())
        for n in range(0, len(logits), planes):
            few = slice(n, n + planes)
            target[few].addcmul_(logits[few].to(target.dtype), weights[few].expand_as(logits[few]).contiguous())
        self.weights[inside] += _importance_on(self.weights.device, windows.patch, windows.window.weights)[window]

    def finished(self, end: int) -> Slab:
        """Return the slab before `end` along the axis."""
        side = self.box[self.axis]
        count = min(end, side.stop) - side.start
        box = self.box.with_side(self.axis, slice(side.start, side.start + count))
        return Slab(box, self.sums.narrow(self.axis, 0, count), self.weights.narrow(self.axis, 0, count))

    def advance(self, begin: int) -> None:
        """Move the start of the box along the axis; new voxels start at 0."""
        side = self.box[self.axis]
        step, thickness = begin - side.start, side.stop - side.start
        if not step:
            return
        for tensor in (self.sums, self.weights):
            for n in range(thickness - step):  # plane by plane, because the ranges may overlap
                tensor.select(self.axis, n).copy_(tensor.select(self.axis, n + step))
            tensor.narrow(self.axis, max(0, thickness - step), min(step, thickness)).zero_()
        self.box = self.box.with_side(self.axis, slice(begin, begin + thickness))


@cache
def _importance_on(device: torch.device, patch: Triple, weights: Weights) -> torch.Tensor:
    """Copy the weights of a window to a GPU only once: every copy waits for the GPU to finish."""
    return importance(patch, weights).to(device)


@cache
def _spread(patch: Triple, weights: Weights, outputs: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a window's weights, (*patch, outputs or 1), expanded over the outputs where that takes little memory."""
    spread = importance(patch, weights)[..., None].to(device, dtype)
    if spread.numel() * outputs > _NUMBERS_AT_ONCE:
        return spread
    return spread.expand(*patch, outputs).contiguous()


def _mirror(volume: torch.Tensor, flip: Flip) -> torch.Tensor:
    """Reverse (C, R, A, S) along axes; copies only if there are any."""
    return volume.flip([axis + 1 for axis in flip]) if flip else volume


def _cut(image: torch.Tensor, seen: Box, windows: Windows, place: Triple) -> torch.Tensor:
    """Cut out one window (C, *patch), padded beyond the volume with 0 or the last voxels."""
    box, corner = windows.box(place), windows.corner(place)
    patch = image[:, *box.seen_from(seen.origin)]
    margins = []
    for side, begin, length in zip(reversed(box), reversed(corner), reversed(windows.patch), strict=True):
        margins += [side.start - begin, begin + length - side.stop]
    if not any(margins):
        return patch
    return functional.pad(patch, margins, "constant" if windows.window.padding == "zeros" else "replicate")
