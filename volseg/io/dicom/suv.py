"""PET: from activity concentration to the standardised uptake value by body weight."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from volseg.errors import DataError
from volseg.io.dicom.dataset import numbers_of, value_of, words_of

_log = logging.getLogger("volseg")

_DAY = timedelta(days=1)


def suv_factor(dataset: Dataset, path: Path) -> float:
    """What activity concentrations (Bq/ml) are multiplied by to become SUVbw (g/ml); 1 for all other images.

    SUVbw = activity concentration x body weight / injected dose, both activities decay-corrected to one time (Thie
    2004, J Nucl Med 45:1431; the vendor-neutral steps of the QIBA FDG-PET profile). It is computed only when the header
    states every number it takes; otherwise the values stay Bq/ml, and a warning says so.

    Args:
        dataset: Of one PET image.
        path: Names it in warnings.
    """
    if words_of(dataset, "Modality", path) != ("PT",) or words_of(dataset, "Units", path) != ("BQML",):
        return 1.0
    try:
        return _factor(dataset, path)
    except DataError as error:
        _log.warning("%s stays in Bq/ml, because its SUV cannot be computed: %s", path.parent, error)
        return 1.0


def _factor(dataset: Dataset, path: Path) -> float:
    corrected = words_of(dataset, "CorrectedImage", path)
    if not {"ATTN", "DECY"} <= set(corrected):
        raise DataError(f"CorrectedImage of {path} is {'/'.join(corrected) or 'not stated'}, not ATTN and DECY")
    weight_kg = numbers_of(dataset, "PatientWeight", 1, path)[0]
    items = value_of(dataset, "RadiopharmaceuticalInformationSequence", path)
    if not items:
        raise DataError(f"{path} does not state the radiopharmaceutical")
    dose_bq = numbers_of(items[0], "RadionuclideTotalDose", 1, path)[0]
    match words_of(dataset, "DecayCorrection", path):
        case ("ADMIN",):
            decay = 1.0
        case ("START",):
            half_life_s = numbers_of(items[0], "RadionuclideHalfLife", 1, path)[0]
            decay = 2.0 ** (-_seconds_to_scan(dataset, items[0], path) / half_life_s)
        case other:
            raise DataError(f"DecayCorrection of {path} is {other or 'not stated'}, neither START nor ADMIN")
    if weight_kg <= 0 or dose_bq <= 0:
        raise DataError(f"{path} states a weight of {weight_kg:g} kg and a dose of {dose_bq:g} Bq")
    return weight_kg * 1000 / (dose_bq * decay)


def _seconds_to_scan(dataset: Dataset, administration: Dataset, path: Path) -> float:
    """From the injection to the time to which the images are decay-corrected: the start of the series.

    SeriesTime is that only while it is not after the acquisition: post-processing may give it a later one.
    """
    series, acquisition = _time(dataset, "SeriesTime", path), _time(dataset, "AcquisitionTime", path)
    injection = _time(administration, "RadiopharmaceuticalStartTime", path)
    if series > acquisition:
        raise DataError(f"SeriesTime of {path} is after its AcquisitionTime")
    elapsed = series - injection
    return (elapsed if elapsed >= timedelta(0) else elapsed + _DAY).total_seconds()  # injected before midnight


def _time(dataset: Dataset, keyword: str, path: Path) -> datetime:
    """A time of day (PS3.5 section 6.2, TM: HHMMSS.FFFFFF)."""
    text = "".join(words_of(dataset, keyword, path))
    for form in ("%H%M%S.%f", "%H%M%S"):
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007  a time of day, compared with others of one scanner
        except ValueError:
            continue
    raise DataError(f"{keyword} of {path} is {text!r}, no time of day")
