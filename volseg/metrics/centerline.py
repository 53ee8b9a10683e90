"""How well the course of a tube was followed, however thick it was drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volseg.metrics.overlap import ratio


def centerline_dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Centre-line Dice (Shit et al., "clDice", CVPR 2021).

    The harmonic mean of the share of the prediction's centre line that lies in the reference and of the share of the
    reference's centre line that lies in the prediction. Centre lines are thinned out of the masks by the method of Lee
    et al. (1994), which takes voxels for cubes: on an anisotropic grid it is an approximation.

    Args:
        prediction: (I, J, K) bool, not empty.
        reference: (I, J, K) bool, not empty.

    Returns:
        From 0 to 1.
    """
    from skimage.morphology import skeletonize

    predicted, wanted = (skeletonize(mask, method="lee") > 0 for mask in (prediction, reference))
    precision = ratio(int(np.count_nonzero(predicted & reference)), int(np.count_nonzero(predicted)))
    sensitivity = ratio(int(np.count_nonzero(wanted & prediction)), int(np.count_nonzero(wanted)))
    return ratio(2 * precision * sensitivity, precision + sensitivity) if precision + sensitivity else 0.0
