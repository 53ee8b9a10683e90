"""Segment a normalised volume into label numbers: choose windows, their order, and strips that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.image.box import Box
from volseg.image.resampled import ResampledVolume
from volseg.inference.mirroring import Mirroring
from volseg.inference.restore import LOGITS, Decide, Form, Target, find_targets, interpolate, restore
from volseg.inference.sliding import Course, InferFn, Slab, slide
from volseg.inference.tissue import Tissue
from volseg.inference.windows import SlidingWindow, Windows, lay
from volseg.memory import total_gb

#: Memory used beside the sums: patches, feature maps, logits on their way to the volume's grid.
_OVERHEAD_GB, _SMALLEST_SUMS_GB = 1.0, 0.25
#: Default limit: half of the machine's memory, but no more than this.
_LARGEST_DEFAULT_GB = 3.0
#: Called with the number of windows done and their total.
OnWindow = Callable[[int, int], None]


def ignore_windows(done: int, total: int) -> None:
    """Ignore window progress."""


@dataclass(frozen=True)
class Network:
    """A network, or several of one kind that are averaged, ready to run.

    Attributes:
        run: Patches in, logits out.
        sums_dtype: Dtype of the sums of its logits.
        window: The window it sees at once.
        mirroring: The mirror images it sees in addition.
        outputs: Logits per voxel.
        device: Where it runs.
        form: The form in which its outputs are interpolated.
    """

    run: InferFn
    sums_dtype: torch.dtype
    window: SlidingWindow
    mirroring: Mirroring
    outputs: int
    device: torch.device
    form: Form = LOGITS


@dataclass(frozen=True)
class Limits:
    """Limits of what is processed at once; none of them changes a label.

    Attributes:
        batch_size: Patches that go through a network together on a GPU; on a CPU it is one.
        memory_gb: Memory that may be used beside the networks and the volume.
    """

    batch_size: int
    memory_gb: float


@dataclass
class Work:
    """The work done to segment one volume.

    Attributes:
        on_window: Called with the number of windows done and their total.
        windows: Number of windows the networks see.
        done: Number of windows they have seen.
        network_seconds: Time in the networks.
    """

    on_window: OnWindow = ignore_windows
    windows: int = 0
    done: int = 0
    network_seconds: float = 0.0

    def watched(self, run: InferFn) -> InferFn:
        """Return the same network with its work counted."""

        def watch(patches: torch.Tensor) -> torch.Tensor:
            began = perf_counter()
            answers = run(patches)
            self.network_seconds += perf_counter() - began
            self.done += len(patches)
            self.on_window(self.done, self.windows)
            return answers

        return watch


def segment(
    networks: Sequence[Network],
    inputs: Sequence[ResampledVolume],
    tissue: Tissue | None,
    decide: Decide,
    limits: Limits,
    work: Work,
    keep: Callable[[Box, torch.Tensor], None] | None = None,
) -> Iterator[tuple[Box, NDArray[np.integer]]]:
    """Segment a volume.

    Args:
        networks: Their logits are averaged.
        inputs: The volume as each of them sees it.
        tissue: Where there is anything but air; None to process everything.
        decide: Turns logits into labels.
        limits: How much to process at once.
        work: Updated with the work done.
        keep: Called with boxes of the volume and their mean logits (*box, outputs), if needed.

    Yields:
        Boxes of the volume and the numbers of their labels; everything outside of them is background.
    """
    crop = len(networks) == 1  # several networks must cover the same part of the volume
    laid = [
        _lay(network, network_input, tissue, crop=crop) for network, network_input in zip(networks, inputs, strict=True)
    ]
    if not all(windows.count for windows in laid):
        return
    axis, across = _axes(laid[0], inputs[0].along)
    strips = _count_strips(networks, laid, axis, across, limits.memory_gb)
    parts = [
        find_targets(network_input.positions_back, windows.covered, across, strips)
        for network_input, windows in zip(inputs, laid, strict=True)
    ]
    work.windows = sum(
        _seen(windows, target.source) for windows, targets in zip(laid, parts, strict=True) for target in targets
    )

    def slabs(n: int, target: Target) -> Iterator[Slab]:
        network = networks[n]
        batch = limits.batch_size if network.device.type != "cpu" else 1
        run, views = network.mirroring.applied(network.run, laid[n])
        course = Course(axis, target.source, batch, network.sums_dtype, network.device, views)
        return slide(work.watched(run), network.outputs, inputs[n], laid[n], course)

    if len(networks) == 1 and keep is None:
        for target in parts[0]:
            yield from restore(slabs(0, target), target, axis, decide, networks[0].form)
        return
    for targets in zip(*parts, strict=True):
        rows = min(
            target.full_rows_at_once(axis, network.outputs) for target, network in zip(targets, networks, strict=True)
        )
        answers = [
            interpolate(slabs(n, target), target, axis, networks[n].form, rows) for n, target in enumerate(targets)
        ]
        for several in zip(*answers, strict=True):
            box = several[0][0]
            mean = several[0][1] if len(several) == 1 else torch.stack([each for _, each in several]).mean(dim=0)
            logits = mean.movedim(0, axis)
            if keep:
                keep(box, logits)
            yield box, decide(logits).cpu().numpy()


def default_memory_gb() -> float:
    """Return half of the machine's memory, but no more than a slab of many labels needs."""
    return min(_LARGEST_DEFAULT_GB, total_gb() / 2)


def _lay(network: Network, network_input: ResampledVolume, tissue: Tissue | None, *, crop: bool) -> Windows:
    shape = network_input.shape
    box = tissue.box(shape) if tissue and crop else None
    windows = lay(shape, network.window, box)
    if tissue is None:
        return windows
    wanted = np.zeros_like(windows.wanted)
    for place in windows.places():
        wanted[place] = tissue.within(windows.box(place), shape)
    return replace(windows, wanted=wanted)


def _axes(windows: Windows, along: int | None) -> tuple[int, int]:
    """Choose the axis along which windows run (for small slabs or efficient reading), and the longer other one."""
    sizes = windows.covered.shape

    def slab_voxels(axis: int) -> int:
        return math.prod(sizes) // sizes[axis] * min(windows.patch[axis], sizes[axis])

    axis = min((2, 1, 0), key=slab_voxels) if along is None else along
    across = max((n for n in range(3) if n != axis), key=lambda n: sizes[n])
    return axis, across


def _count_strips(
    networks: Sequence[Network], laid: Sequence[Windows], axis: int, across: int, memory_gb: float
) -> int:
    """Return the number of strips a volume is divided into, so that the sums of one fit into memory."""
    sums_gb = 0.0
    for network, windows in zip(networks, laid, strict=True):
        sizes = [*windows.covered.shape]
        sizes[axis] = min(windows.patch[axis], sizes[axis])
        sums_gb += math.prod(sizes) * (network.outputs * network.sums_dtype.itemsize + 4) / 1e9
    strips = math.ceil(sums_gb / max(memory_gb - _OVERHEAD_GB, _SMALLEST_SUMS_GB))
    widest = max(windows.covered.shape[across] for windows in laid)
    return min(strips, widest)


def _seen(windows: Windows, part: Box) -> int:
    """Count the windows that reach into a part."""
    return sum(windows.box(place).overlaps(part) for place in windows.places())
