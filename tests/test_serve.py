"""A whole server beside a real archive: studies in, masks out, whatever happens to either of them."""

from __future__ import annotations

import gc
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pydicom
import pytest
from orthanc import Orthanc, running

pytest.importorskip("pynetdicom")
from ports import free_port
from server import Server, running_server, wait_for
from test_dicom_node import make_series

import volseg
from volseg.errors import DeliveryError
from volseg.io import read_mask, single_source
from volseg.serving import send

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what pynetdicom's client leaves: sockets that could not be connected."""
    yield
    gc.collect()


@dataclass(frozen=True)
class Hospital:
    """An archive that routes what it gets to a server, which sends its masks back."""

    archive: Orthanc
    server: Server
    model: volseg.Model

    def masks_of(self, study: str) -> list[str]:
        """The SOPInstanceUIDs of the masks of a study that the archive has."""
        found = self.archive.find("instances", StudyInstanceUID=study, Modality="SEG")
        return [each["00080018"]["Value"][0] for each in found]

    def jobs(self) -> Counter[str]:
        """How many jobs there are of each status."""
        return Counter(job["status"] for job in self.server.get("/api/jobs"))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    dicom_port = free_port()
    with running(folder, routes_to=dicom_port) as archive:
        config = {
            "dicom": {"port": dicom_port, "quiet_seconds": 1.5, "wait_seconds": 8.0},
            "destinations": {
                "pacs": {"to": f"ORTHANC@127.0.0.1:{archive.dicom_port}", "retry_seconds": 0.2},
                "web": {"to": f"http://127.0.0.1:{archive.http_port}/dicom-web", "retry_seconds": 0.2},
                "dead": {"to": f"DEAD@127.0.0.1:{free_port()}", "attempts": 3, "retry_seconds": 0.2},
            },
        }
        with running_server(folder / "server", {"ball": trained_run}, config) as server:
            yield Hospital(archive, server, volseg.load(trained_run, name="ball"))


def test_the_mask_lies_in_the_archive_on_its_images_and_nothing_loops(hospital: Hospital, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", 11)
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    hospital.archive.store(series)
    (uid,) = wait_for(lambda: hospital.masks_of(study), 60, "no mask arrived", hospital.server.log)
    (tmp_path / "mask.seg.dcm").write_bytes(hospital.archive.file(uid))
    expected = hospital.model.predict(series[0].parent)
    made = read_mask(single_source(tmp_path / "mask.seg.dcm"), expected.labels, on=expected.geometry)
    assert np.array_equal(made.array, expected.array)
    # The archive routes the mask to the server as well, which has no use for it; nor has it for what it has already.
    jobs = hospital.jobs()
    assert _is_sent(series, hospital.server.dicom_port)
    time.sleep(4)
    assert hospital.masks_of(study) == [uid]
    assert hospital.jobs() == jobs
    written = pydicom.dcmread(tmp_path / "mask.seg.dcm")
    assert "ball" in str(written.SegmentSequence[0].SegmentAlgorithmName) + str(written.ContributingEquipmentSequence)


def test_one_dead_destination_does_not_hold_up_the_others(hospital: Hospital, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", 12)
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    hospital.archive.store(series)
    wait_for(lambda: hospital.masks_of(study), 60, "no mask arrived", hospital.server.log)
    given_up = wait_for(
        lambda: [each for each in hospital.server.get("/api/deliveries") if each["status"] == "failed"],
        30,
        "the dead destination is not given up",
    )
    assert {each["destination"] for each in given_up} == {"dead"}
    assert "cannot be reached" in given_up[0]["reason"]
    assert given_up[0]["attempts"] == 3
    hospital.server.post(f"/api/deliveries/{given_up[0]['id']}/retry")


def test_a_missing_slice_is_waited_for(hospital: Hospital, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", 13)
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    hospital.archive.store([*series[:7], *series[8:]])
    job = wait_for(
        lambda: next((job for job in hospital.server.get("/api/jobs") if "waits for slices" in job["reason"]), None),
        30,
        "it does not wait for the slice",
        hospital.server.log,
    )
    assert not hospital.masks_of(study)
    hospital.archive.store(series[7:8])
    wait_for(lambda: hospital.masks_of(study), 60, "no mask arrived", hospital.server.log)
    states = {each["id"]: each["status"] for each in hospital.server.get("/api/jobs")}
    assert states[job["id"]] == "outdated"


def test_a_slice_that_never_comes_is_a_failure_by_name(hospital: Hospital, tmp_path: Path) -> None:
    series = make_series(tmp_path / "series", 14)
    hospital.archive.store([*series[:7], *series[8:]])
    job = wait_for(
        lambda: next((job for job in hospital.server.get("/api/jobs") if job["status"] == "failed"), None),
        60,
        "the job does not fail",
        hospital.server.log,
    )
    assert "missing" in job["reason"] or "apart" in job["reason"], job["reason"]


def test_nothing_is_lost_or_doubled_when_any_process_is_killed(
    hospital: Hospital, tmp_path: Path, trained_run: Path
) -> None:
    """Each study ends with one mask in the archive, whatever is killed when: VOLSEG_TEST_KILLS times."""
    kills = int(os.environ.get("VOLSEG_TEST_KILLS", "2"))
    port = free_port()
    config = {
        "dicom": {"port": port, "quiet_seconds": 1.0},
        "destinations": {"pacs": {"to": f"ORTHANC@127.0.0.1:{hospital.archive.dicom_port}", "retry_seconds": 0.2}},
    }
    chance = random.Random(kills)
    studies = {}
    with running_server(tmp_path / "server", {"ball": trained_run}, config) as server:
        tree = psutil.Process(server.process.pid)
        for number in range(kills):
            series = make_series(tmp_path / f"series{number}", 20 + number)
            studies[str(pydicom.dcmread(series[0]).StudyInstanceUID)] = series
            sender = Thread(target=_is_sent, args=(series, port))
            sender.start()
            time.sleep(chance.uniform(0, 0.3) if number % 2 else chance.uniform(0, 6))
            children = [child for child in tree.children() if "spawn_main" in " ".join(child.cmdline())]
            chance.choice(children).send_signal(signal.SIGKILL)
            sender.join()
            # A sender repeats what was not answered.
            wait_for(lambda series=series: _is_sent(series, port), 60, "it does not receive again", server.log)
        has_all = lambda: all(hospital.masks_of(study) for study in studies)  # noqa: E731
        wait_for(has_all, 60 + 10 * kills, "a mask is missing", server.log)
        time.sleep(3)
        assert {len(hospital.masks_of(study)) for study in studies} == {1}
        with sqlite3.connect(server.store / "store.sqlite") as database:
            assert database.execute("SELECT count(*) FROM objects").fetchone()[0] == 16 * kills
            jobs = Counter(row[0] for row in database.execute("SELECT status FROM jobs"))
        assert set(jobs) <= {"done", "outdated"}, jobs
    database.close()


def test_a_server_that_was_killed_goes_on_where_it_was(hospital: Hospital, tmp_path: Path, trained_run: Path) -> None:
    series = make_series(tmp_path / "series", 15)
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    to = {"pacs": {"to": f"ORTHANC@127.0.0.1:{hospital.archive.dicom_port}"}}
    with running_server(tmp_path, {"ball": trained_run}, {"destinations": to}) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert _is_sent(series, server.dicom_port)
        server.process.kill()
        wait_for(lambda: not any(child.is_running() for child in children), 10, "its processes go on")
    assert not hospital.masks_of(study)
    with running_server(tmp_path, {"ball": trained_run}, {"destinations": to}) as server:
        wait_for(lambda: hospital.masks_of(study), 60, "no mask arrived", server.log)


def _is_sent(series: list[Path], port: int) -> bool:
    try:
        return not any(reason for _, reason in send(series[0].parent, f"VOLSEG@127.0.0.1:{port}"))
    except DeliveryError:
        return False


def test_a_second_server_does_not_use_the_same_store(hospital: Hospital, trained_run: Path) -> None:
    command = [sys.executable, "-m", "volseg", "serve", "--model", trained_run, "--store", hospital.server.store]
    result = subprocess.run(
        [*command, "--port", str(free_port()), "--dicom-port", "0"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "another server uses" in result.stderr


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path, trained_run: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.pt").write_bytes(b"no model")
    command = [sys.executable, "-m", "volseg", "serve", "--dicom-port", "0", "--port", str(free_port())]
    for model, said in (("none", "there is nothing at"), ("broken", "model.pt")):
        result = subprocess.run(
            [*command, "--model", tmp_path / model, "--store", tmp_path / "store"],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert result.returncode == 2, result.stderr
        assert said in result.stderr
