"""The DICOM node of a server: what it receives, when a study is complete, and what it sends."""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from conftest import make_case, mounted_disk
from orthanc import Orthanc, running
from ports import free_port
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from volseg.io.dicom import write_series

pytest.importorskip("pynetdicom")
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET
from pynetdicom.sop_class import MRImageStorage, Verification  # type: ignore[attr-defined]

from volseg.errors import ConfigError, DeliveryError, OutputExistsError
from volseg.serving import read_server_config, send
from volseg.serving.config import SenderConfig, ServerConfig
from volseg.serving.dicom.objects import check_keywords
from volseg.serving.dicom.pausing import Checkpoint, pause_for_certain
from volseg.serving.dicom.receiver import Receiver
from volseg.serving.fetching import fetch_study
from volseg.serving.housekeeping import remove_old, remove_strays
from volseg.serving.outbox import send_due
from volseg.serving.store import open_store
from volseg.serving.store.cases import remove_case
from volseg.serving.store.jobs import Job, Result, add_job, cancel_job, claim_job, finish_job, take_back
from volseg.serving.studies import Planner
from volseg.serving.uploads import Upload, store_uploads

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

Node = Callable[..., "RunningNode"]
PATIENT = "Müller^Änne"


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    """Nothing that is there already is looked at when garbage is collected, which would take a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what pynetdicom's client leaves: sockets that could not be connected."""
    yield
    gc.collect()


class RunningNode:
    """A receiver in this process."""

    def __init__(self, folder: Path, dicom: dict[str, Any], keep: dict[str, Any], **others: Any) -> None:
        self.port = free_port()
        tree = {
            "models": {"ball": "run", "box": "run"},
            "store": folder.absolute(),
            "dicom": {"port": self.port, "quiet_seconds": 0.3, **dicom},
            "keep": {"reserve_gb": 0.0, **keep},
            **others,
        }
        self.config = read_server_config(None, tree)
        self.store = open_store(self.config.store)
        self.planner = Planner(self.store, self.config)
        self.start()

    def start(self) -> None:
        self._stop = threading.Event()
        listens = threading.Event()
        receiver = Receiver(self.store, self.config)
        self._thread = threading.Thread(target=receiver.run, args=(self._stop, lambda _: listens.set()))
        self._thread.start()
        assert listens.wait(10)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def objects(self) -> int:
        return int(self.store.rows("SELECT count(*) FROM objects")[0][0])

    def plan(self) -> list[str]:
        """Plan jobs until nothing more is to be planned; the rules whose jobs wait."""
        self.planner.plan()
        return [row["rule"] for row in self.store.rows("SELECT rule FROM jobs WHERE status = 'waiting' ORDER BY rule")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    nodes: list[RunningNode] = []

    def start(dicom: dict[str, Any] | None = None, keep: dict[str, Any] | None = None, **others: Any) -> RunningNode:
        nodes.append(RunningNode(tmp_path / f"store{len(nodes)}", dicom or {}, keep or {}, **others))
        return nodes[-1]

    yield start
    for each in nodes:
        each.stop()


def dcmtk(name: str) -> str:
    """A program of DCMTK; pynetdicom installs others of the same names."""
    path = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """A series of 16 slices, of a patient."""
    return make_series(tmp_path / "series")


def make_series(folder: Path, seed: int = 0, **elements: str) -> list[Path]:
    files = write_series(make_case(seed)[0], folder)
    for file in files:
        dataset = pydicom.dcmread(file)
        for keyword, value in {"PatientName": PATIENT, "PatientID": "4711", **elements}.items():
            setattr(dataset, keyword, value)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.save_as(file)
    return files


def fill(file: Path) -> None:
    """Take all space of a disk."""
    with suppress(OSError), file.open("wb", buffering=0) as room:
        while True:
            room.write(bytes(4096))


def wait_until(what: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


@contextmanager
def association(port: int, ae_title: str = "CT1", called: str = "VOLSEG") -> Iterator[Association]:
    entity = AE(ae_title)
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(Verification)
    opened = entity.associate("127.0.0.1", port, ae_title=called)
    pause_for_certain(opened)
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def store(port: int, files: Sequence[Path], ae_title: str = "CT1") -> list[int]:
    with association(port, ae_title) as opened:
        assert opened.is_established
        return [opened.send_c_store(file).Status for file in files]


def test_what_is_answered_is_on_disk_as_it_was_sent(node: Node, series: list[Path]) -> None:
    it = node()
    assert store(it.port, series) == [0] * 16
    kept = sorted((it.config.store / "cases").rglob("*.dcm"))
    assert len(kept) == 16 == it.objects()
    sent = {str(each.SOPInstanceUID): each for each in map(pydicom.dcmread, series)}
    for path in kept:
        dataset = pydicom.dcmread(path)
        assert dataset == sent[dataset.SOPInstanceUID]
        assert dataset.file_meta.SourceApplicationEntityTitle == "CT1"
        assert dataset.file_meta.TransferSyntaxUID == sent[dataset.SOPInstanceUID].file_meta.TransferSyntaxUID
    (case,) = it.store.rows("SELECT * FROM cases")
    assert (case["patient"], case["patient_id"]) == ("Müller Änne", "4711")
    assert PATIENT not in str(list((it.config.store / "cases").rglob("*")))


def test_an_object_that_is_sent_again_changes_nothing(node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series)
    before = it.store.rows("SELECT id, revision, changed FROM cases")[0]
    store(it.port, series, "PACS")  # whoever sends it, and however
    with ExitStack() as files:
        uploads = [Upload(path.name, files.enter_context(path.open("rb"))) for path in series]
        store_uploads(it.store, uploads, "anna", 1e9)
    assert it.store.rows("SELECT id, revision, changed FROM cases")[0] == before


def test_an_object_that_was_corrected_takes_the_place_of_the_earlier_one(node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series)
    for file in series:
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "Corrected"
        dataset.save_as(file)
    store(it.port, series)
    assert len(list((it.config.store / "cases").rglob("*.dcm"))) == 16
    (case,) = it.store.rows("SELECT patient, revision FROM cases")
    assert tuple(case) == ("Corrected", 32)


def test_objects_whose_rows_were_lost_are_found_again(tmp_path: Path, node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series)
    (it.store.incoming / "half").write_bytes(b"half an object")
    it.store.change("DELETE FROM cases")
    again = Receiver(it.store, it.config)
    stop = threading.Event()
    stop.set()
    other = it.config.model_copy(update={"dicom": it.config.dicom.model_copy(update={"port": free_port()})})
    again = Receiver(it.store, other)
    again.run(stop, lambda _: None)
    assert it.objects() == 16
    assert not list(it.store.incoming.iterdir())
    assert {row["sender"] for row in it.store.rows("SELECT sender FROM objects")} == {"CT1"}


@pytest.mark.parametrize("modality", ["SEG", "RTSTRUCT", "SR"])
def test_results_are_taken_and_ignored(modality: str, node: Node, series: list[Path]) -> None:
    dataset = pydicom.dcmread(series[0])
    dataset.Modality = modality
    if modality != "SEG":
        del dataset.Rows
    dataset.save_as(series[0])
    it = node()
    assert store(it.port, series[:1]) == [0]
    assert it.objects() == 0


def test_an_object_that_says_nothing_about_itself_is_refused(node: Node, series: list[Path]) -> None:
    dataset = pydicom.dcmread(series[0])
    del dataset.StudyInstanceUID
    dataset.save_as(series[0])
    it = node()
    assert store(it.port, series[:1]) == [0xC000]


def test_below_the_reserve_nothing_is_received_until_there_is_room_again(node: Node, series: list[Path]) -> None:
    it = node(keep={"reserve_gb": 1e9})
    assert store(it.port, series[:2]) == [0xA700] * 2
    assert it.objects() == 0
    enough = node(keep={"reserve_gb": 0.0})
    assert store(enough.port, series) == [0] * 16


def test_on_a_full_disk_an_object_is_refused_and_leaves_nothing(series: list[Path], tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "2m") as disk:
        it = RunningNode(disk / "store", {}, {})
        fill(disk / "room")
        assert set(store(it.port, series)) == {0xA700}
        assert not list((it.config.store / "incoming").iterdir())
        (disk / "room").unlink()
        assert set(store(it.port, series)) == {0}
        it.stop()


def test_who_is_not_listed_or_calls_another_name_is_rejected(node: Node) -> None:
    it = node({"senders": [{"ae_title": "CT1", "address": "127.0.0.0/8"}, {"ae_title": "CT2", "address": "10.0.0.1"}]})
    for calling, called, reason in (
        ("CT1", "VOLSEG", None),
        ("CT2", "VOLSEG", 3),
        ("CT3", "VOLSEG", 3),
        ("CT1", "X", 7),
    ):
        with association(it.port, calling, called) as opened:
            assert opened.is_established == (reason is None)
            if reason is not None:
                assert opened.acceptor.primitive is not None
                assert (opened.acceptor.primitive.result, opened.acceptor.primitive.diagnostic) == (1, reason)
    assert [row["who"] for row in it.store.rows("SELECT who FROM audit WHERE what = 'rejected'")] == [
        "CT2",
        "CT3",
        "CT1",
    ]


@pytest.mark.parametrize(
    ("network", "address", "is_admitted"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.2.3", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.2.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "::ffff:10.1.2.3", False),
        (None, "::1", True),
    ],
)
def test_senders_are_told_by_their_network(network: str | None, address: str, is_admitted: bool) -> None:
    assert SenderConfig(ae_title="CT1", address=network).admits("CT1 ", address) == is_admitted
    assert not SenderConfig(ae_title="CT2", address=network).admits("CT1", address)


def test_this_machine_may_call_it_what_it_likes(node: Node) -> None:
    with association(node().port, "ANY", "ANY-SCP") as opened:
        assert opened.send_c_echo().Status == 0


def test_no_more_associations_than_are_allowed(node: Node) -> None:
    it = node({"associations": 2})
    with association(it.port) as first, association(it.port) as second:
        assert first.is_established
        assert second.is_established
        with association(it.port) as third:
            assert third.is_rejected
    with association(it.port) as fourth:
        assert fourth.is_established


def test_a_pdu_that_announces_gigabytes_is_not_waited_for(node: Node) -> None:
    it = node()
    with socket.create_connection(("127.0.0.1", it.port)) as attacker:
        attacker.sendall(b"\x01\0" + (2**31).to_bytes(4, "big") + b"x" * 1000)
        attacker.settimeout(5)
        assert attacker.recv(100) == b""  # it hangs up


def test_who_does_not_say_in_time_who_it_is_is_hung_up_on_however_slowly_it_speaks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.serving.dicom.receiver._HELLO_SECONDS", 0.5)
    it = node()
    with association(it.port) as others, socket.create_connection(("127.0.0.1", it.port)) as attacker:
        attacker.sendall(b"\x01\0" + (1000).to_bytes(4, "big"))
        attacker.settimeout(0.05)
        wait_until(lambda: is_hung_up_on(attacker))
        assert others.send_c_echo().Status == 0


def is_hung_up_on(attacker: socket.socket) -> bool:
    """Speak another byte, and see whether anybody listens."""
    try:
        attacker.sendall(b"x")
        return attacker.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_what_is_no_service_here_is_told(node: Node) -> None:
    with association(node().port) as opened:
        message = C_GET()
        message.MessageID, message.AffectedSOPClassUID, message.Priority = 1, MRImageStorage, 2
        message.Identifier = BytesIO(b"\0" * 8)
        opened._reactor_checkpoint.clear()
        opened.dimse.send_msg(message, opened.accepted_contexts[0].context_id or 1)
        _, answer = opened.dimse.get_msg(block=True)
        opened._reactor_checkpoint.set()
        assert isinstance(answer, C_GET)
        assert answer.Status == 0x0211  # PS3.7 section C.5.10: an operation that is not recognized


def test_it_listens_at_an_address_of_version_6(node: Node) -> None:
    it = node({"host": "::1"})
    entity = AE()
    entity.add_requested_context(Verification)
    opened = entity.associate("::1", it.port)
    assert opened.send_c_echo().Status == 0
    opened.release()


@pytest.mark.slow
def test_silent_connections_and_echoes_cost_no_memory_and_hold_up_nobody(node: Node, series: list[Path]) -> None:
    it = node({"associations": 5})
    process = psutil.Process()
    with association(it.port) as opened:
        for _ in range(200):
            opened.send_c_echo()
    before = process.memory_info().rss
    silent = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(50)]
    for _ in range(10):
        with association(it.port) as opened:
            for _ in range(100):
                assert opened.send_c_echo().Status == 0
    assert store(it.port, series) == [0] * 16
    for each in silent:
        each.close()
    assert process.memory_info().rss - before < 30e6


def test_a_study_is_complete_when_it_is_quiet_and_its_sender_has_left(node: Node, series: list[Path]) -> None:
    it = node()
    with association(it.port) as opened:
        for file in series[:8]:
            opened.send_c_store(file)
        time.sleep(0.5)  # a pause
        assert it.plan() == []
        assert it.store.rows("SELECT state FROM cases")[0]["state"] == "CT1 is still connected"
        for file in series[8:]:
            opened.send_c_store(file)
    wait_until(lambda: it.plan() == ["all"], 5)
    assert it.plan() == ["all"]  # once


def test_while_nothing_could_be_received_no_study_was_quiet(node: Node, series: list[Path]) -> None:
    it = node({"quiet_seconds": 2.0})
    assert store(it.port, series[:8]) == [0] * 8
    it.stop()
    it.store.change("INSERT INTO associations (id, sender, opened) VALUES ('a', 'CT1', 0)")  # it was killed
    time.sleep(2.1)
    assert it.plan() == []  # its sender is connected, for all that is known
    it.start()
    assert it.plan() == []
    assert store(it.port, series[8:]) == [0] * 8
    wait_until(lambda: it.plan() == ["all"])
    assert it.store.rows("SELECT revision FROM jobs")[0]["revision"] == 16


def test_of_two_series_the_slow_one_is_waited_for(node: Node, tmp_path: Path, series: list[Path]) -> None:
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    slow = make_series(tmp_path / "slow", 1, StudyInstanceUID=study)
    it = node({"quiet_seconds": 1.0})
    store(it.port, series)
    for file in slow:
        store(it.port, [file])
        assert it.plan() == []
    wait_until(lambda: it.plan() == ["all"], 5)


def test_required_series_are_waited_for_until_a_limit(node: Node, tmp_path: Path, series: list[Path]) -> None:
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    it = node({"wait_seconds": 2.0}, rules=[{"name": "both", "required_series": 2}])
    store(it.port, series)
    time.sleep(0.5)
    assert it.plan() == []
    assert it.store.rows("SELECT state FROM cases")[0]["state"] == "1 of 2 series arrived"
    wait_until(lambda: it.plan() or it.store.rows("SELECT state FROM cases")[0]["state"].startswith("failed"), 5)
    assert it.store.rows("SELECT state FROM cases")[0]["state"] == "failed: 1 of 2 series arrived"
    store(it.port, make_series(tmp_path / "second", 1, StudyInstanceUID=study))
    wait_until(lambda: it.plan() == ["both"], 5)


def test_a_late_object_makes_the_earlier_job_outdated(node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series[:-1])
    wait_until(lambda: it.plan() == ["all"], 5)
    store(it.port, series[-1:])
    assert claim_job(it.store) is None
    wait_until(lambda: it.plan() == ["all"], 5)
    job = claim_job(it.store)
    assert job is not None
    assert job.revision == 16
    assert [row["status"] for row in it.store.rows("SELECT status FROM jobs ORDER BY created")] == [
        "outdated",
        "running",
    ]


def test_rules_choose_by_tags_and_senders(node: Node, tmp_path: Path) -> None:
    rules = [
        {"name": "knees", "model": "ball", "tags": {"StudyDescription": "^knee"}},
        {"name": "others", "model": "box", "tags": {"StudyDescription": "^(?!knee)"}, "senders": ["CT1"]},
    ]
    it = node(rules=rules)
    store(it.port, make_series(tmp_path / "a", StudyDescription="Knee left"), "MR7")
    store(it.port, make_series(tmp_path / "b", StudyDescription="Hip"), "CT1")
    store(it.port, make_series(tmp_path / "c", StudyDescription="Hand"), "MR7")
    wait_until(lambda: it.plan() == ["knees", "others"], 5)

    def states() -> dict[str, str]:
        it.planner.plan()
        rows = it.store.rows("SELECT description, state FROM cases WHERE planned = revision")
        return {row["description"]: row["state"] for row in rows}

    wait_until(lambda: states() == {"Knee left": "", "Hip": "", "Hand": "no rule fits it"}, 5)


def test_a_result_that_the_destination_has_is_not_sent_again(node: Node, series: list[Path]) -> None:
    it = node(destinations={"pacs": {"to": "PACS@127.0.0.1:104"}})
    store(it.port, series)
    case_id = it.store.rows("SELECT id FROM cases")[0]["id"]

    def finish(uid: str) -> None:
        add_job(it.store, Job(case_id, "ball", ("dicom-seg",), ("pacs",)))
        job = claim_job(it.store)
        assert job is not None
        assert finish_job(it.store, job, [Result("", "[]", "", 1.0, "dicom-seg", "a", uid, destinations=("pacs",))])

    finish("1.2")
    finish("1.2")
    finish("1.3")
    assert it.store.rows("SELECT count(*) FROM deliveries")[0][0] == 2


def test_a_destination_that_is_down_is_tried_again_and_then_given_up(
    node: Node, series: list[Path], tmp_path: Path
) -> None:
    port = free_port()
    down = {"to": f"PACS@127.0.0.1:{port}", "attempts": 3, "retry_seconds": 0.01}
    it, there = node(destinations={"down": down}), node()
    store(it.port, series)
    case_id = it.store.rows("SELECT id FROM cases")[0]["id"]
    add_job(it.store, Job(case_id, "ball", ("dicom-seg",), ("down",)))
    job = claim_job(it.store)
    assert job is not None
    it.store.job_folder(job.id).mkdir()
    shutil.copy(series[0], it.store.job_folder(job.id) / "a.dcm")
    finish_job(it.store, job, [Result("", "[]", "", 1.0, "dicom-seg", "a.dcm", "1.2", destinations=("down",))])
    for attempt in range(1, 4):
        send_due(it.store, "down", it.config.destinations["down"], "VOLSEG")
        (row,) = it.store.rows("SELECT attempts, status, reason FROM deliveries")
        assert row["attempts"] == attempt
        assert "cannot be reached" in row["reason"]
        time.sleep(0.05)
    assert row["status"] == "failed"
    up = it.config.destinations["down"].model_copy(update={"to": f"VOLSEG@127.0.0.1:{there.port}"})
    send_due(it.store, "down", up, "VOLSEG")
    assert there.objects() == 0  # a person has to ask for it
    from volseg.serving.store.deliveries import retry_delivery

    assert retry_delivery(it.store, 1)
    send_due(it.store, "down", up, "VOLSEG")
    assert there.objects() == 1
    assert it.store.rows("SELECT status FROM deliveries")[0]["status"] == "sent"


def test_a_folder_with_files_of_others_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds files, but no store"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_what_is_old_is_removed_unless_it_is_not_delivered(node: Node, tmp_path: Path) -> None:
    it = node(keep={"days": 1.0, "reserve_gb": 0.0}, destinations={"pacs": {"to": "PACS@127.0.0.1:104"}})
    for number, name in enumerate(("delivered", "waiting", "new")):
        store(it.port, make_series(tmp_path / name, number, StudyDescription=name))
    cases = {row["description"]: row["id"] for row in it.store.rows("SELECT id, description FROM cases")}
    for name in ("delivered", "waiting"):
        add_job(it.store, Job(cases[name], "ball", ("dicom-seg",), ("pacs",)))
        job = claim_job(it.store)
        assert job is not None
        it.store.job_folder(job.id).mkdir()
        finish_job(it.store, job, [Result("", "[]", "", 1.0, "dicom-seg", "a", name, destinations=("pacs",))])
    two_days_ago = time.time() - 2 * 86400
    it.store.change("UPDATE deliveries SET status = 'sent' WHERE id = 1")
    it.store.change("UPDATE jobs SET ended = ?", two_days_ago)
    it.store.change("UPDATE cases SET changed = ? WHERE description != 'new'", two_days_ago)
    remove_old(it.store, it.config.keep)
    assert {row["description"] for row in it.store.rows("SELECT description FROM cases")} == {"waiting", "new"}
    assert not it.store.case_folder(cases["delivered"]).exists()
    assert it.store.case_folder(cases["waiting"]).is_dir()


def test_folders_of_results_that_nothing_speaks_of_are_removed(node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series)
    case_id = it.store.rows("SELECT id FROM cases")[0]["id"]
    kept, cancelled = Job(case_id, "ball", ("nifti",)), Job(case_id, "ball", ("nifti",))
    for job in (kept, cancelled):
        add_job(it.store, job)
        it.store.job_folder(job.id).mkdir()
    assert cancel_job(it.store, cancelled.id)
    it.store.job_folder("unknown").mkdir()
    remove_strays(it.store)
    assert [path.name for path in (it.store.folder / "results").iterdir()] == [kept.id]


def test_a_job_that_ends_the_worker_again_and_again_waits_and_then_fails(node: Node, series: list[Path]) -> None:
    it = node()
    store(it.port, series)
    job = Job(it.store.rows("SELECT id FROM cases")[0]["id"], "ball", ("nifti",))
    add_job(it.store, job)
    waits = []
    for _ in range(5):
        it.store.change("UPDATE jobs SET due = 0")
        assert claim_job(it.store) is not None
        take_back(it.store)
        (row,) = it.store.rows("SELECT status, due, reason FROM jobs")
        waits.append(round(row["due"] - time.time()))
    assert waits[:4] == [0, 10, 40, 160]
    assert (row["status"], row["reason"]) == ("failed", "it ended the worker 5 times (out of memory?)")


def test_send_takes_a_folder(node: Node, series: list[Path]) -> None:
    it = node()
    (series[0].parent / "notes.txt").write_text("no DICOM")
    sent = send(series[0].parent, f"VOLSEG@127.0.0.1:{it.port}")
    assert [reason for _, reason in sent] == [""] * 16
    assert it.objects() == 16


def test_send_says_what_is_wrong(series: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="cannot be reached"):
        send(series[0].parent, f"VOLSEG@127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match="not the address of a DICOM node"):
        send(series[0].parent, "somewhere")


def test_beyond_this_machine_it_needs_a_list_or_certificates() -> None:
    def config(**dicom: Any) -> ServerConfig:
        return read_server_config(None, {"models": {"a": "a"}, "dicom": {"host": "0.0.0.0", **dicom}})

    with pytest.raises(ConfigError, match="anybody who reaches"):
        config().check_protection(has_users=True)
    with pytest.raises(ConfigError, match="anybody who reaches"):  # an AE title is no secret
        config(senders=[{"ae_title": "CT1"}]).check_protection(has_users=True)
    config(senders=[{"ae_title": "CT1", "address": "10.1.0.0/16"}]).check_protection(has_users=True)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"models": {}}, "there is no model"),
        ({"models": {"a": "a"}, "rules": [{"name": "r", "model": "b"}]}, "there is no model 'b'"),
        ({"models": {"a": "a"}, "rules": [{"name": "r", "destinations": ["p"]}]}, "there is no destination 'p'"),
        ({"models": {"a": "a"}, "rules": [{"name": "r", "tags": {"Modality": "("}}]}, "no regular expression"),
        ({"models": {"a": "a"}, "dicom": {"ae_title": "far too long a title"}}, "is not an AE title"),
        ({"models": {"a": "a"}, "destinations": {"p": {"to": "http://u:p@h/"}}}, "no address of a DICOMweb service"),
        ({"models": {"a": "a"}, "dicom": {"senders": [{"ae_title": "A", "address": "home"}]}}, "no IP address"),
    ],
)
def test_a_configuration_that_is_not_possible_says_why(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_server_config(None, tree)


def test_a_tag_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no element 'StudyDescripton'.*StudyDescription"):
        check_keywords(["StudyDescripton"])


def test_dcmtk_sends_and_asks(node: Node, series: list[Path]) -> None:
    it = node()
    subprocess.run([dcmtk("echoscu"), "127.0.0.1", str(it.port)], check=True)
    subprocess.run([dcmtk("dcmsend"), "127.0.0.1", str(it.port), *series], check=True, capture_output=True)
    assert it.objects() == 16


@pytest.mark.parametrize("option", ["+xs", "+xv", "+xr"])  # JPEG lossless, JPEG 2000 lossless, RLE
def test_compressed_objects_are_kept_as_they_are(option: str, node: Node, series: list[Path], tmp_path: Path) -> None:
    program, kind = {"+xs": ("dcmcjpeg", "+e1"), "+xv": ("dcmcjpls", "+el"), "+xr": ("dcmcrle", "")}[option]
    packed = tmp_path / "packed.dcm"
    subprocess.run([dcmtk(program), *([kind] if kind else []), series[0], packed], check=True)
    it = node()
    assert [reason for _, reason in send(packed, f"VOLSEG@127.0.0.1:{it.port}")] == [""]
    (kept,) = (it.config.store / "cases").rglob("*.dcm")
    assert pydicom.dcmread(kept).file_meta.TransferSyntaxUID == pydicom.dcmread(packed).file_meta.TransferSyntaxUID
    assert pydicom.dcmread(kept).PixelData == pydicom.dcmread(packed).PixelData


def test_tls_lets_in_who_has_a_certificate_and_nobody_holds_up_the_others(
    node: Node, series: list[Path], tmp_path: Path
) -> None:
    write_certificates = pytest.importorskip("volseg.cluster").write_certificates
    ours = write_certificates(tmp_path / "ours")
    others = write_certificates(tmp_path / "others")
    tls = {"certificate": ours / "node.pem", "key": ours / "node-key.pem", "authority": ours / "ca.pem"}
    it = node({"tls": {name: str(path.absolute()) for name, path in tls.items()}})

    def storescu(folder: Path | None) -> int:
        secured = ["+tls", folder / "node-key.pem", folder / "node.pem", "+cf", ours / "ca.pem"] if folder else []
        return subprocess.run(
            [dcmtk("storescu"), *secured, "127.0.0.1", str(it.port), series[0]], check=False, capture_output=True
        ).returncode

    with socket.create_connection(("127.0.0.1", it.port)):  # says nothing
        assert storescu(ours) == 0
    assert it.objects() == 1
    assert storescu(None) != 0
    assert storescu(others) != 0
    assert it.objects() == 1


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as it:
        yield it


@pytest.mark.parametrize("kind", ["dimse", "web"])
def test_objects_reach_orthanc(kind: str, orthanc: Orthanc, series: list[Path]) -> None:
    orthanc.clear()
    to = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
    if kind == "web":
        to = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
    assert [reason for _, reason in send(series[0].parent, to)] == [""] * 16
    assert len(orthanc.find("instances")) == 16


def test_a_reactor_that_is_paused_takes_no_answer() -> None:
    checkpoint, running, ends = Checkpoint(), threading.Event(), threading.Event()

    def react() -> None:
        while not ends.is_set():
            checkpoint.wait()
            running.set()
            time.sleep(0.001)  # here it would take an answer
            running.clear()

    reactor = threading.Thread(target=react)
    reactor.start()
    for _ in range(200):
        checkpoint.clear()
        assert not running.is_set()
        time.sleep(0.001)
        assert not running.is_set()
        checkpoint.set()
    ends.set()
    reactor.join()


def test_what_a_node_refuses_is_told(node: Node, series: list[Path]) -> None:
    it = node(keep={"reserve_gb": 1e9})
    ((_, reason),) = send(series[0], f"VOLSEG@127.0.0.1:{it.port}")
    assert reason == "VOLSEG answers A700"


def test_a_series_comes_back_from_a_dicomweb_service(orthanc: Orthanc, series: list[Path]) -> None:
    from volseg.serving.config import destination_of
    from volseg.serving.dicom.web import retrieve_series, search

    orthanc.clear()
    orthanc.store(series)
    service = destination_of(f"http://127.0.0.1:{orthanc.http_port}/dicom-web")
    ((found),) = search(service, "series", PatientID="4711")
    study, uid = (found[tag]["Value"][0] for tag in ("0020000D", "0020000E"))
    parts = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(part)) for part in retrieve_series(service, study, uid)]
    expected = {each.SOPInstanceUID: each.PixelData for each in map(pydicom.dcmread, series)}
    assert {each.SOPInstanceUID: each.PixelData for each in parts} == expected
    with pytest.raises(DeliveryError, match="404"):
        list(retrieve_series(service, study, generate_uid()))


def test_a_study_is_fetched_from_a_dicomweb_service(node: Node, orthanc: Orthanc, series: list[Path]) -> None:
    orthanc.clear()
    orthanc.store(series)
    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    it = node(destinations={"archive": {"to": f"http://127.0.0.1:{orthanc.http_port}/dicom-web"}})
    assert fetch_study(it.store, it.config, "archive", study) == 16
    assert fetch_study(it.store, it.config, "archive", study) == 0
    wait_until(lambda: it.plan() == ["all"], 5)


@pytest.mark.parametrize("kind", ["dimse", "web"])
def test_an_archive_says_how_many_objects_a_study_has(
    kind: str, node: Node, orthanc: Orthanc, series: list[Path]
) -> None:
    orthanc.clear()
    orthanc.store(series)
    to = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
    if kind == "web":
        to = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
    it = node({"quiet_seconds": 1000.0, "count_at": "archive"}, destinations={"archive": {"to": to}})
    store(it.port, series[:10])
    waits = "10 of 16 objects arrived"
    wait_until(lambda: not it.plan() and it.store.rows("SELECT state FROM cases")[0]["state"] == waits, 8)
    store(it.port, series[10:])
    wait_until(lambda: it.plan() == ["all"], 8)


def test_an_archive_that_does_not_answer_leaves_it_to_the_quiet_time(node: Node, series: list[Path]) -> None:
    gone = {"to": f"GONE@127.0.0.1:{free_port()}"}
    it = node({"quiet_seconds": 3.0, "count_at": "gone"}, destinations={"gone": gone})
    store(it.port, series)
    wait_until(lambda: it.plan() == ["all"], 12)


def test_an_archive_is_asked_for_a_study(node: Node, series: list[Path], tmp_path: Path) -> None:
    from volseg.serving.config import destination_of
    from volseg.serving.dicom.query import move_study

    study = str(pydicom.dcmread(series[0]).StudyInstanceUID)
    it = node()
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc", routes_to=it.port) as archive:
        archive.store(series)
        wait_until(lambda: it.objects() == 16)
        for row in it.store.rows("SELECT id FROM cases"):
            remove_case(it.store, row["id"])
        move_study(destination_of(f"ORTHANC@127.0.0.1:{archive.dicom_port}"), study, "VOLSEG")
        assert it.objects() == 16
        with pytest.raises(DeliveryError, match="ORTHANC answers"):
            move_study(destination_of(f"ORTHANC@127.0.0.1:{archive.dicom_port}"), study, "STRANGER")
