"""DICOM work is quiet, where it is done and nowhere else, and threads do not wait for each other."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement

from volseg.exporting import Format, rtstruct, seg, sr, write
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, discover, read_volume, single_source
from volseg.io.dicom import read_instances, scan, series, write_series
from volseg.io.dicom import write as writing
from volseg.io.dicom.quiet import quiet_dicom

#: What pydicom and highdicom warn of: long texts, no character set, no date, no UID, a name without surname.
BENT = {
    "SeriesDescription": b"x" * 70,
    "PatientName": b"Jane Doe",
    "PatientID": b"x" * 70,
    "StudyInstanceUID": b"05fa52f0e599",
    "StudyDate": b"yesterday ",
    "AccessionNumber": b"\xff" * 20,
    "SpecificCharacterSet": b"ISO_IR 999",
    "BurnedInAnnotation": b"no, it is not burned",
    "ImageType": b"original\\primary",
}


@pytest.fixture
def source(tmp_path: Path) -> SeriesSource:
    return make_series(tmp_path / "series", slices=3)


def make_series(folder: Path, slices: int) -> SeriesSource:
    geometry = Geometry.from_lps((5, 4, slices), (0, 0, 0), np.eye(3), (1, 1, 2))
    array = np.arange(20 * slices, dtype=np.float32).reshape(1, 5, 4, slices)
    write_series(Volume(array, geometry), folder)
    found = single_source(folder)
    assert isinstance(found, SeriesSource)
    return found


def make_mask(source: SeriesSource) -> Mask:
    geometry = read_instances(source).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[1:3, 1:3] = 1
    return Mask(array, geometry, (Label(1, "liver"),))


def bend(path: Path) -> None:
    """Store texts as they are, valid or not."""
    with quiet_dicom():
        dataset = pydicom.dcmread(path)
        for keyword, raw in BENT.items():
            tag = pydicom.tag.Tag(keyword)
            vr = pydicom.datadict.dictionary_VR(tag)
            dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
        dataset.save_as(path)


# What is done side by side


def scan_it(source: SeriesSource, folder: Path) -> None:
    discover(source.folder)


def read_it(source: SeriesSource, folder: Path) -> None:
    read_volume(source)


def read_headers(source: SeriesSource, folder: Path) -> None:
    read_instances(source)


def write_it(source: SeriesSource, folder: Path) -> None:
    write_series(read_volume(source), folder)


def exported(form: Format) -> Callable[[SeriesSource, Path], None]:
    def export(source: SeriesSource, folder: Path) -> None:
        write(make_mask(source), source, folder / "mask.dcm", form)

    return export


@pytest.mark.parametrize(
    ("work", "module", "step"),
    [
        (scan_it, scan, "_look_at"),
        (read_it, series, "read_images"),
        (read_headers, series, "read_header"),
        (write_it, writing, "_write_slice"),
        (exported("dicom-seg"), seg, "_segmentation"),
        (exported("rtstruct"), rtstruct, "_structure_set"),
        (exported("dicom-sr"), sr, "_report"),
    ],
)
def test_two_threads_are_at_the_same_step_at_once(
    work: Callable[[SeriesSource, Path], None],
    module: ModuleType,
    step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = [make_series(tmp_path / name, slices=1) for name in "ab"]  # one slice: no threads of its own
    both, met = threading.Barrier(2, timeout=60), threading.local()
    original = getattr(module, step)

    def meet(*arguments: Any, **options: Any) -> Any:
        if not hasattr(met, "yes"):
            both.wait()  # breaks where one of the two must wait for the other to be done
            met.yes = True
        return original(*arguments, **options)

    monkeypatch.setattr(module, step, meet)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(work, each, tmp_path / f"out{n}") for n, each in enumerate(sources)]
        for each in done:
            each.result()


# What is printed and logged


@pytest.mark.parametrize("forms", [(), ("dicom-seg",), ("rtstruct",), ("dicom-sr",)])
def test_nothing_is_said_of_files_that_bend_the_standard(
    forms: tuple[Format, ...],
    source: SeriesSource,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for path in source.files:
        bend(path)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = single_source(source.folder)
        assert isinstance(found, SeriesSource)
        read_volume(found)
        for form in forms:
            write(make_mask(found), found, tmp_path / "mask.dcm", form)
    assert [record.message for record in caplog.records if record.name.startswith(("pydicom", "highdicom"))] == []
    assert "Doe" not in caplog.text
    assert capfd.readouterr() == ("", "")


def test_nothing_is_said_in_the_threads_that_read_slices(source: SeriesSource) -> None:
    for path in source.files[1:]:  # the first is read before there are threads
        with quiet_dicom():
            dataset = pydicom.dcmread(path)
            dataset.InstanceNumber = "1.5"
            dataset.compress(pydicom.uid.RLELossless)  # which is left to pydicom
            dataset.save_as(path)
    read_volume(source)


def test_a_program_that_uses_pydicom_itself_hears_its_warnings(
    source: SeriesSource, caplog: pytest.LogCaptureFixture
) -> None:
    path, heard = source.files[0], "Unknown encoding|maximum length of 64"
    bend(path)
    with quiet_dicom(), ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match=heard):
        pool.submit(lambda: pydicom.dcmread(path).PatientID).result()  # beside us
    with pytest.warns(UserWarning, match=heard):
        pydicom.dcmread(path).PatientID  # noqa: B018  after us
    assert sum("maximum length of 64" in record.message for record in caplog.records) == 2
