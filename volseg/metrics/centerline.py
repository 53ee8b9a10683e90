"""Centre-line Dice: how well a tubular structure was followed, regardless of its thickness."""

from __future__ import annotations

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from volseg.metrics.overlap import ratio


def centerline_dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Compute the centre-line Dice (Shit et al., "clDice", CVPR 2021).

    The harmonic mean of the share of the prediction's centre line that lies in the reference and of the share of the
    reference's centre line that lies in the prediction. Centre lines are obtained by thinning the masks with the method
    of Lee et al. (1994), which treats voxels as cubes: on an anisotropic grid it is an approximation.

    Args:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.

    Returns:
        From 0 to 1.
    """
    fine = [_with_voxels_between(mask) for mask in (prediction, reference)]
    lines = [_thinned(mask) for mask in fine]
    precision, sensitivity = (
        np.count_nonzero(line & other) / np.count_nonzero(line)
        for line, other in zip(lines, reversed(fine), strict=True)
    )
    return ratio(2 * precision * sensitivity, precision + sensitivity) if precision + sensitivity else 0.0


def _with_voxels_between(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Upsample a mask by two, filling the voxels between two of its voxels.

    Everything has an odd thickness there. Where a structure is an even number of voxels thick, scikit-image's thinning
    leaves too little or nothing (its issue 3757).

    Args:
        mask: (I, J, K) bool, not empty.

    Returns:
        (2 I - 1, 2 J - 1, 2 K - 1) bool.
    """
    fine = mask
    for axis in range(mask.ndim):
        nearer, farther = (np.moveaxis(fine, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        wider = np.zeros((2 * fine.shape[axis] - 1, *nearer.shape[1:]), np.bool_)
        wider[::2], wider[1::2] = np.moveaxis(fine, axis, 0), nearer & farther
        fine = np.moveaxis(wider, 0, axis)
    return fine


def _thinned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the centre lines of a mask; for a component that thinning removes entirely, its deepest voxel."""
    from scipy import ndimage
    from skimage.morphology import skeletonize

    line: NDArray[np.bool_] = skeletonize(mask, method="lee") > 0
    parts = cc3d.connected_components(mask, connectivity=26)
    lost = np.setdiff1d(np.arange(1, parts.max(initial=0) + 1), parts[line])
    if lost.size:
        depth = edt.edtsq(mask.view(np.uint8), black_border=True)
        line[tuple(np.transpose(ndimage.maximum_position(depth, parts, lost)))] = True
    return line
