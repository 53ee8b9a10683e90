"""PET: from activity concentration to the standardised uptake value by body weight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from volseg.errors import DataError
from volseg.io.dicom.dataset import items_of, numbers_of, words_of

_DAY = timedelta(days=1)
_FIRST_DAY = datetime(1, 1, 1)  # noqa: DTZ001  dates of one scanner
#: After so many half-lives nothing is left to be seen: a time is wrong.
_MOST_HALF_LIVES = 10
#: A time of day with at least its minutes, and a date and time (PS3.5 section 6.2: TM and DT).
_TIME = re.compile(r"(\d{2})(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?")
_DATE_TIME = re.compile(r"(\d{8})(\d{4,6}(?:\.\d{1,6})?)(?:[+-]\d{4})?")


@dataclass(frozen=True)
class Activity:
    """What the values of an image must be multiplied by to become an uptake.

    Attributes:
        factor: 1 for everything but PET in Bq/ml.
        fault: Why the factor of such a PET image cannot be computed; empty otherwise.
    """

    factor: float = 1.0
    fault: str = ""


#: Of everything but PET in Bq/ml.
AS_IT_IS = Activity()


def activity_of(dataset: Dataset, path: Path) -> Activity:
    """What turns activity concentrations (Bq/ml) into SUVbw (g/ml).

    SUVbw = activity concentration x body weight / injected dose, both activities decay-corrected to one time (Thie
    2004, J Nucl Med 45:1431; the vendor-neutral steps of the QIBA FDG-PET profile). It is computed only when the header
    states every number it takes.

    Args:
        dataset: Of one image.
        path: The file.
    """
    if words_of(dataset, "Modality", path) != ("PT",) or words_of(dataset, "Units", path) != ("BQML",):
        return AS_IT_IS
    try:
        return Activity(_factor(dataset, path))
    except DataError as error:
        return Activity(fault=str(error))


def _factor(dataset: Dataset, path: Path) -> float:
    corrected = words_of(dataset, "CorrectedImage", path)
    if not {"ATTN", "DECY"} <= set(corrected):
        raise DataError(f"CorrectedImage of {path} is {'/'.join(corrected) or 'not stated'}, not ATTN and DECY")
    weight_kg = _positive(dataset, "PatientWeight", path)
    items = items_of(dataset, "RadiopharmaceuticalInformationSequence", path)
    if not items:
        raise DataError(f"{path} does not state the radiopharmaceutical")
    dose_bq = _positive(items[0], "RadionuclideTotalDose", path)
    match words_of(dataset, "DecayCorrection", path):
        case ("ADMIN",):
            decay = 1.0
        case ("START",):
            decay = _decay(dataset, items[0], path)
        case other:
            raise DataError(f"DecayCorrection of {path} is {other or 'not stated'}, neither START nor ADMIN")
    return weight_kg * 1000 / (dose_bq * decay)


def _positive(dataset: Dataset, keyword: str, path: Path) -> float:
    value = numbers_of(dataset, keyword, 1, path)[0]
    if value <= 0:
        raise DataError(f"{keyword} of {path} must be positive, it is {value:g}")
    return value


def _decay(dataset: Dataset, administration: Dataset, path: Path) -> float:
    """What is left of the injected dose at the time to which the images are corrected: the start of the series."""
    half_life_s = _positive(administration, "RadionuclideHalfLife", path)
    elapsed_s = _elapsed(dataset, administration, path).total_seconds()
    if not 0 <= elapsed_s <= _MOST_HALF_LIVES * half_life_s:
        raise DataError(f"{path}: {elapsed_s:.0f} s from injection to scan are not plausible")
    return float(2.0 ** (-elapsed_s / half_life_s))


def _elapsed(dataset: Dataset, administration: Dataset, path: Path) -> timedelta:
    """From the injection to SeriesTime, which is the start of the scan only while it is not after the acquisition."""
    series, acquisition = _time(dataset, "SeriesTime", path), _time(dataset, "AcquisitionTime", path)
    series_date, acquisition_date = (_date(dataset, keyword, path) for keyword in ("SeriesDate", "AcquisitionDate"))
    if (acquisition_date or series_date) + acquisition < series_date + series:
        raise DataError(f"SeriesTime of {path} is after its AcquisitionTime")
    started = _DATE_TIME.fullmatch("".join(words_of(administration, "RadiopharmaceuticalStartDateTime", path)))
    if started and series_date:
        return series_date + series - (_day(started[1], path) + _time_of_day(started[2], path))
    elapsed = series - _time(administration, "RadiopharmaceuticalStartTime", path)
    return elapsed if elapsed >= timedelta(0) else elapsed + _DAY  # injected before midnight


def _date(dataset: Dataset, keyword: str, path: Path) -> timedelta:
    """A date, as the time since year 1; nothing where it is not stated."""
    text = "".join(words_of(dataset, keyword, path))
    return _day(text, path) if text else timedelta(0)


def _day(text: str, path: Path) -> timedelta:
    try:
        return datetime.strptime(text, "%Y%m%d") - _FIRST_DAY  # noqa: DTZ007  dates of one scanner
    except ValueError as error:
        raise DataError(f"{path} states {text!r}, which is no date") from error


def _time(dataset: Dataset, keyword: str, path: Path) -> timedelta:
    text = "".join(words_of(dataset, keyword, path))
    if not text:
        raise DataError(f"{path} does not state {keyword}")
    return _time_of_day(text, path)


def _time_of_day(text: str, path: Path) -> timedelta:
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise DataError(f"{path} states {text!r}, which is no time of day")
    hours, minutes, seconds, fraction = parts.groups(default="0")
    if int(hours) > 23 or int(minutes) > 59 or int(seconds) > 60:
        raise DataError(f"{path} states {text!r}, which is no time of day")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(f"{int(seconds)}.{fraction}"))
