"""PET: convert activity concentration to the standardised uptake value by body weight (SUVbw)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from volseg.errors import DataError
from volseg.io.dicom.header import Header

_DAY = timedelta(days=1)
_FIRST_DAY = datetime(1, 1, 1)  # noqa: DTZ001  dates of one scanner
#: After this many half-lives no activity is left to be seen: a time must be wrong.
_MOST_HALF_LIVES = 10
#: A time of day with at least its minutes, and a date and time (PS3.5 section 6.2: TM and DT).
_TIME = re.compile(r"(\d{2})(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?")
_DATE_TIME = re.compile(r"(\d{8})(\d{4,6}(?:\.\d{1,6})?)(?:[+-]\d{4})?")


@dataclass(frozen=True)
class Activity:
    """The factor that converts the values of an image to an uptake.

    Attributes:
        factor: 1 for everything but PET in Bq/ml.
        fault: Why the factor of such a PET image cannot be computed; empty otherwise.
    """

    factor: float = 1.0
    fault: str = ""


#: For everything except PET in Bq/ml.
AS_IT_IS = Activity()


def activity_of(header: Header) -> Activity:
    """Compute the factor from activity concentrations (Bq/ml) to SUVbw (g/ml).

    SUVbw = activity concentration x body weight / injected dose, both activities decay-corrected to one time (Thie
    2004, J Nucl Med 45:1431; the vendor-neutral steps of the QIBA FDG-PET profile). It is computed only if the header
    states every number it needs.

    Args:
        header: Of one image.
    """
    if header.words("Modality") != ("PT",) or header.words("Units") != ("BQML",):
        return AS_IT_IS
    try:
        return Activity(_factor(header))
    except DataError as error:
        return Activity(fault=error.explanation)


def _factor(header: Header) -> float:
    corrected = header.words("CorrectedImage")
    if not {"ATTN", "DECY"} <= set(corrected):
        raise DataError(f"CorrectedImage of {header.path} is {'/'.join(corrected) or 'not stated'}, not ATTN and DECY")
    weight_kg = _positive(header, "PatientWeight")
    items = header.items("RadiopharmaceuticalInformationSequence")
    if not items:
        raise DataError(f"{header.path} does not state the radiopharmaceutical")
    dose_bq = _positive(items[0], "RadionuclideTotalDose")
    match header.words("DecayCorrection"):
        case ("ADMIN",):
            decay = 1.0
        case ("START",):
            decay = _decay(header, items[0])
        case other:
            raise DataError(f"DecayCorrection of {header.path} is {other or 'not stated'}, neither START nor ADMIN")
    return weight_kg * 1000 / (dose_bq * decay)


def _positive(header: Header, keyword: str) -> float:
    value = header.numbers(keyword, 1)[0]
    if value <= 0:
        raise DataError(f"{keyword} of {header.path} must be positive, it is {value:g}")
    return value


def _decay(header: Header, administration: Header) -> float:
    """Return the share of the injected dose left at the time the images are corrected to: the start of the series."""
    half_life_s = _positive(administration, "RadionuclideHalfLife")
    elapsed_s = _elapsed(header, administration).total_seconds()
    if not 0 <= elapsed_s <= _MOST_HALF_LIVES * half_life_s:
        raise DataError(f"{header.path}: {elapsed_s:.0f} s from injection to scan are implausible")
    return float(2.0 ** (-elapsed_s / half_life_s))


def _elapsed(header: Header, administration: Header) -> timedelta:
    """Return the time from the injection to SeriesTime, which is the scan start only if not after the acquisition."""
    series, acquisition = _time(header, "SeriesTime"), _time(header, "AcquisitionTime")
    series_date, acquisition_date = (_date(header, keyword) for keyword in ("SeriesDate", "AcquisitionDate"))
    if (acquisition_date or series_date) + acquisition < series_date + series:
        raise DataError(f"SeriesTime of {header.path} is after its AcquisitionTime")
    started = _DATE_TIME.fullmatch(administration.text("RadiopharmaceuticalStartDateTime"))
    if started and series_date:
        return series_date + series - (_day(started[1], header.path) + _time_of_day(started[2], header.path))
    elapsed = series - _time(administration, "RadiopharmaceuticalStartTime")
    return elapsed if elapsed >= timedelta(0) else elapsed + _DAY  # injected before midnight


def _date(header: Header, keyword: str) -> timedelta:
    """Read a date as the time since year 1; zero if not stated."""
    text = header.text(keyword)
    return _day(text, header.path) if text else timedelta(0)


def _day(text: str, path: Path) -> timedelta:
    try:
        return datetime.strptime(text, "%Y%m%d") - _FIRST_DAY  # noqa: DTZ007  dates of one scanner
    except ValueError as error:
        raise DataError(f"{path} states {text!r}, which is not a date") from error


def _time(header: Header, keyword: str) -> timedelta:
    text = header.text(keyword)
    if not text:
        raise DataError(f"{header.path} does not state {keyword}")
    return _time_of_day(text, header.path)


def _time_of_day(text: str, path: Path) -> timedelta:
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise DataError(f"{path} states {text!r}, which is not a time of day")
    hours, minutes, seconds, fraction = parts.groups(default="0")
    if int(hours) > 23 or int(minutes) > 59 or int(seconds) > 60:
        raise DataError(f"{path} states {text!r}, which is not a time of day")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(f"{int(seconds)}.{fraction}"))
