"""Preprocessing: the chain from a case on disk to the input of a network.

Prediction applies the same steps in the same order, but resamples part by part (`volseg.prediction.predictor`); a test
checks that both are equal bit for bit.
"""

from __future__ import annotations

from typing import Any

from monai.transforms import Compose

from volseg.cases import Case
from volseg.config import DataConfig, PreprocessingConfig
from volseg.errors import VolsegError
from volseg.transforms.keys import CASE
from volseg.transforms.normalization import FillNonFinited, Normalized
from volseg.transforms.reading import LoadCased
from volseg.transforms.spatial import Canonicald, CroppedToNonzerod, Respaced


def build_preprocessing(data: DataConfig, preprocessing: PreprocessingConfig, *, reference: bool) -> Compose:
    """Build the chain from a case to a volume as the network expects it.

    Args:
        data: Channels and labels.
        preprocessing: Spacing and normalisation.
        reference: Whether to include the reference.

    Returns:
        A chain for `{"case": Case}`.
    """
    cropped = [CroppedToNonzerod()] if preprocessing.crop == "nonzero" else []
    last = [*cropped, Normalized(preprocessing.normalization)]
    outside = data.ignored_value or 0
    after = preprocessing.normalize == "after_resampling"
    return Compose(
        [
            LoadCased(data.channels, data.reference_labels, reference=reference, others=data.others, outside=outside),
            FillNonFinited(),
            Canonicald(axes=preprocessing.axes),
            *([] if after else last),
            Respaced(preprocessing.spacing_mm, rules=preprocessing),
            *(last if after else []),
        ]
    )


def preprocess(case: Case, data: DataConfig, preprocessing: PreprocessingConfig, *, reference: bool) -> dict[str, Any]:
    """Preprocess a case for the network.

    Args:
        case: The case to read.
        data: Channels and labels.
        preprocessing: Spacing and normalisation.
        reference: Whether to include the reference.

    Returns:
        A sample with "image", "geometry" and, if requested, "reference".

    Raises:
        VolsegError: If anything is wrong with the case.
    """
    chain = build_preprocessing(data, preprocessing, reference=reference)
    try:
        return dict(chain({CASE: case}))
    except RuntimeError as error:  # MONAI wraps exceptions of a transform; ours states what is wrong
        if isinstance(error.__cause__, VolsegError):
            raise error.__cause__ from None
        raise
