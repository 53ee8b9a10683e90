"""The interface of MONAI Label, by its own client and by the calls of 3D Slicer's extension."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  its usual name
import torch
from conftest import make_case
from monai_label_client import SlicerExtension, client_module
from numpy.typing import NDArray

from volseg.exporting.seg_nrrd import write_seg_nrrd
from volseg.image.volume import Label, Mask
from volseg.io import FileSource, read_mask, write_mask, write_volume

pytest.importorskip("fastapi")
from server import Server, running_server, wait_for

from volseg.serving.labelling import numbered
from volseg.serving.store import open_store
from volseg.serving.store.annotations import FINAL, annotation_file, find_annotation, list_annotations
from volseg.serving.store.cases import image_id
from volseg.serving.users import add_user, make_token, remove_user

#: Of `make_case`, 1 is the ball and 2 the box; the values of the model are others.
VALUES = np.array([0, 3, 7], np.uint8)
PASSWORD = "correct horse battery"
#: MONAI Label's client leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
#: Text that anybody may call an image; of it nothing may reach a path.
NAME = "../../Fall 7: Müller & Söhne?/#1"


@pytest.fixture(scope="module")
def model(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose labels are ball, 3, and box, 7."""
    stored = torch.load(trained_run / "model.pt", weights_only=True)
    assert "labels: {label_1: 1, label_2: 2}" in stored["config"]
    stored["config"] = stored["config"].replace("{label_1: 1, label_2: 2}", "{ball: 3, box: 7}")
    stored["volumes"] = {}
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(stored, path)
    return path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("monai_label"), {"phantom": model}, {"dicom": {"port": 0}}) as running:
        yield running


@pytest.fixture
def extension(server: Server, tmp_path: Path) -> SlicerExtension:
    return SlicerExtension(server.url, tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image that the model has not learned from, as 3D Slicer saves it."""
    path = tmp_path / "tmpk3j4.nii.gz"
    write_volume(make_case(40)[0], path)
    return path


@pytest.fixture
def users(server: Server) -> Iterator[dict[str, str]]:
    """While there are users, they have to log in: name -> token."""
    for name in ("viewer", "reviewer", "admin"):
        add_user(server.store, name, PASSWORD, name)
    yield {name: make_token(server.store, name, 1) for name in ("viewer", "reviewer", "admin")}
    for name in ("viewer", "reviewer", "admin"):
        remove_user(server.store, name)


def request(
    server: Server, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """What is answered, byte for byte."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def form(**fields: str | tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form of texts and files, whose names are written as MONAI Label's client does."""
    body = b""
    for name, value in fields.items():
        head = f'--line\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, tuple):
            body += f'{head}; filename="{value[0]}"\r\n\r\n'.encode() + value[1] + b"\r\n"
        else:
            body += f"{head}\r\n\r\n{value}\r\n".encode()
    return body + b"--line--\r\n", {"Content-Type": "multipart/form-data; boundary=line"}


def put_image(server: Server, name: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / f"{seed}.nii.gz"
    write_volume(make_case(seed)[0], path)
    body, headers = form(params="{}", file=(str(path), path.read_bytes()))
    assert request(server, "PUT", f"/datastore/?image={quote(name)}", body, headers)[0] == 200


def remove_images(server: Server) -> None:
    for name in json.loads(request(server, "GET", "/datastore/?output=all")[2])["objects"]:
        assert request(server, "DELETE", f"/datastore/?id={quote(name)}")[0] == 200


def dice(drawn: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (drawn & true).sum() / (drawn.sum() + true.sum()))


def voxels(mask: sitk.Image) -> NDArray[Any]:
    """(I, J, K)."""
    return sitk.GetArrayFromImage(mask).transpose(2, 1, 0)


def test_slicer_segments_an_image_corrects_the_mask_and_saves_it(
    server: Server, extension: SlicerExtension, image: Path
) -> None:
    true, on = make_case(40)[1].array, sitk.ReadImage(str(image))
    extension.connect()
    assert extension.info["models"]["phantom"]["labels"] == ["ball", "box"]
    extension.upload(image, NAME)
    mask, segments = extension.segment("phantom", NAME)
    assert segments == {"ball": 1, "box": 2}
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert (mask.GetSize(), mask.GetSpacing()) == (on.GetSize(), pytest.approx(on.GetSpacing()))
    assert mask.GetOrigin() == pytest.approx(on.GetOrigin(), abs=1e-4)
    assert mask.GetDirection() == pytest.approx(on.GetDirection(), abs=1e-6)
    assert dice(voxels(mask) == segments["ball"], true == 1) > 0.8
    assert dice(voxels(mask) == segments["box"], true == 2) > 0.8

    # A reader draws the truth, and a vessel; among the segments there are some that Slicer leaves out when it saves.
    vessel = np.zeros_like(true, bool)
    vessel[0, 0, :] = True
    drawn = np.select([vessel, true == 1, true == 2], [3, 2, 1]).astype(np.uint8)
    labelled = sitk.GetImageFromArray(drawn.transpose(2, 1, 0))
    labelled.CopyInformation(on)
    segments_of_node = ["background", "box", "foreground_scribbles", "ball", "vessel"]
    assert extension.save(labelled, segments_of_node, NAME, "phantom") == {"image": NAME, "label": NAME}
    assert extension.info["datastore"]["completed"] == 1

    store = open_store(server.store)
    saved = find_annotation(store, image_id(NAME), "", FINAL)
    assert saved is not None
    values = {label.name: label.value for label in saved.labels}
    assert (values["ball"], values["box"]) == (3, 7)
    kept = read_mask(FileSource(annotation_file(store, saved)))
    assert kept.geometry.matches(make_case(40)[1].geometry, 1e-3)
    np.testing.assert_array_equal(kept.array, np.select([vessel, true == 1, true == 2], [values["vessel"], 3, 7]))

    told = extension.client.datastore()["objects"][NAME]["labels"]["final"]["info"]["params"]["label_names"]
    again = voxels(sitk.ReadImage(extension.client.download_label(NAME, "final")))
    for name, region in {"vessel": vessel, "ball": (true == 1) & ~vessel, "box": (true == 2) & ~vessel}.items():
        np.testing.assert_array_equal(again == list(told).index(name) + 1, region, name)


def test_models_are_described_as_both_viewers_read_it(server: Server) -> None:
    info = server.get("/info/")
    model = info["models"]["phantom"]
    assert (model["type"], model["dimension"]) == ("segmentation", 3)
    assert model["description"]
    assert info["labels"] == model["labels"] == ["ball", "box"]
    assert "config" not in info
    assert list(info["strategies"]) == ["random", "uncertainty"]
    assert list(info["trainers"]) == ["phantom"]


def test_a_mask_alone_is_uncompressed_nrrd_of_bytes(server: Server, tmp_path: Path) -> None:
    put_image(server, "alone", 41, tmp_path)
    body, headers = form(params=json.dumps({"result_extension": ".nrrd", "result_compress": False}))
    accepted = {**headers, "Accept-Encoding": "gzip, br"}
    status, told, content = request(server, "POST", "/infer/phantom?image=alone&output=image", body, accepted)
    assert status == 200
    # MONAI Label's client reads the socket: nothing decodes chunks or gzip for it.
    assert int(told["Content-Length"]) == len(content)
    assert told["Transfer-Encoding"] is None
    assert told["Content-Encoding"] is None
    header, _, data = content.partition(b"\n\n")
    assert b"\nencoding: raw" in header
    assert b"\ntype: unsigned char" in header
    array = np.frombuffer(data, np.uint8).reshape(make_case(41)[0].geometry.shape, order="F")
    assert dice(array == 1, make_case(41)[1].array == 1) > 0.8

    status, told, content = request(server, "POST", "/infer/phantom?image=alone", body, accepted)
    assert (status, int(told["Content-Length"]), told["Transfer-Encoding"]) == (200, len(content), None)
    assert content.endswith(data + b"\r\n--" + told.get_boundary().encode() + b"--\r\n")
    assert json.loads(request(server, "POST", "/infer/phantom?image=alone&output=json", body, headers)[2])[
        "label_names"
    ] == {"ball": 1, "box": 2}


def test_an_image_that_comes_along_is_not_kept(server: Server, image: Path, tmp_path: Path) -> None:
    before = server.get("/datastore/")["total"]
    client = client_module().MONAILabelClient(server.url, str(tmp_path))
    file, told = client.infer("phantom", "", {}, file=str(image))
    assert file.endswith(".nii.gz")
    assert told["label_names"] == {"ball": 1, "box": 2}
    assert dice(voxels(sitk.ReadImage(file)) == 1, make_case(40)[1].array == 1) > 0.8
    assert server.get("/datastore/")["total"] == before


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/infer/liver?image=there", {"params": "{}"}, 404),
        ("/infer/phantom?image=nowhere", {"params": "{}"}, 404),
        ("/infer/phantom?image=1.2.3", {"params": "{}"}, 404),
        ("/infer/phantom", {"params": "{}"}, 404),
        ("/infer/phantom?session_id=x", {"params": "{}"}, 404),
        ("/infer/phantom?image=there", {"params": "[1]"}, 400),
        ("/infer/phantom?image=there", {"params": '{"result_extension": ".exe"}'}, 400),
        ("/infer/phantom?image=there&output=dicom_seg", {"params": "{}"}, 400),
        ("/infer/phantom?image=there&output=film", {"params": "{}"}, 422),
        ("/infer/phantom", {"params": "{}", "file": ("C:\\scan.nii.gz", b"no image")}, 422),
        ("/infer/phantom", {"params": "{}", "file": ("/etc/passwd", b"no image")}, 400),
        ("/activelearning/tumour", {}, 404),
        ("/train/liver", {}, 404),
    ],
)
def test_what_is_not_possible_is_no_defect(
    server: Server, tmp_path: Path, path: str, fields: dict[str, Any], status: int
) -> None:
    put_image(server, "there", 42, tmp_path)
    body, headers = form(**fields)
    answered, _, content = request(server, "POST", path, body, headers)
    assert (answered, "detail" in json.loads(content)) == (status, True), content


def test_a_file_is_named_by_its_last_part_and_written_nowhere_else(server: Server, image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.nii.gz"
    for stated, name in (
        (str(outside), "outside"),
        ("C:\\Users\\doctor\\scan.NII.GZ", "scan"),
        ("../../x.nii.gz", "x"),
    ):
        body, headers = form(params="{}", file=(stated.replace("\\", "\\\\"), image.read_bytes()))
        status, _, content = request(server, "PUT", "/datastore/", body, headers)
        assert (status, json.loads(content)) == (200, {"image": name})
        assert request(server, "DELETE", f"/datastore/?id={name}")[0] == 200
    assert not outside.exists()


@pytest.mark.parametrize(
    ("values", "label_info", "reason"),
    [
        ([0, 1, 3], [{"name": "ball"}, {"name": "box"}], "holds the value 3, but 2 names"),
        ([0, 1, 2], [{"name": "ball"}, {"name": "ball"}], "ball"),
        ([0, 1, 2], [{"idx": 1}], "each with a name"),
    ],
)
def test_a_mask_that_does_not_say_what_it_means_is_refused(
    server: Server, tmp_path: Path, values: list[int], label_info: list[dict[str, Any]], reason: str
) -> None:
    put_image(server, "unclear", 43, tmp_path)
    mask = make_case(43)[1]
    write_mask(Mask(np.array(values, np.uint8)[mask.array], mask.geometry), tmp_path / "drawn.nii.gz")
    drawn = (tmp_path / "drawn.nii.gz").read_bytes()
    body, headers = form(params=json.dumps({"label_info": label_info}), label=("drawn.nii.gz", drawn))
    status, _, content = request(server, "PUT", "/datastore/label?image=unclear", body, headers)
    assert status == 400
    assert reason in json.loads(content)["detail"]
    assert find_annotation(open_store(server.store), image_id("unclear"), "", FINAL) is None


def test_voxels_alone_lie_on_the_grid_of_the_image(server: Server, tmp_path: Path) -> None:
    put_image(server, "voxels", 44, tmp_path)
    true = make_case(44)[1].array
    body, headers = form(params="{}", label=("label.bin", true.tobytes(order="F")))
    assert request(server, "PUT", "/datastore/label?image=voxels&tag=original", body, headers)[0] == 200
    store = open_store(server.store)
    saved = find_annotation(store, image_id("voxels"), "", "original")
    assert saved is not None
    np.testing.assert_array_equal(read_mask(FileSource(annotation_file(store, saved))).array, VALUES[true])
    body, headers = form(params="{}", label=("label.bin", bytes(7)))
    status, _, content = request(server, "PUT", "/datastore/label?image=voxels&tag=original", body, headers)
    assert (status, "7 voxels" in json.loads(content)["detail"]) == (400, True)


def test_a_segmentation_of_slicer_says_itself_what_its_values_mean(server: Server, tmp_path: Path) -> None:
    put_image(server, "segments", 56, tmp_path)
    mask = make_case(56)[1]
    write_seg_nrrd(Mask(mask.array, mask.geometry, (Label(1, "ball"), Label(2, "box"))), tmp_path / "s.seg.nrrd")
    label = ("/tmp/Slicer-a/s.seg.nrrd", (tmp_path / "s.seg.nrrd").read_bytes())
    body, headers = form(params='{"label_info": [{"name": "box"}, {"name": "ball"}]}', label=label)
    assert request(server, "PUT", "/datastore/label?image=segments", body, headers)[0] == 200
    store = open_store(server.store)
    saved = find_annotation(store, image_id("segments"), "", FINAL)
    assert saved is not None
    np.testing.assert_array_equal(read_mask(FileSource(annotation_file(store, saved))).array, VALUES[mask.array])


def test_a_mask_that_names_another_file_is_refused(server: Server, tmp_path: Path) -> None:
    put_image(server, "linked", 57, tmp_path)
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n"
    body, headers = form(params="{}", label=("m.nrrd", header))
    status, _, content = request(server, "PUT", "/datastore/label?image=linked", body, headers)
    assert (status, "another file" in json.loads(content)["detail"]) == (400, True)


def test_labels_are_numbered_by_their_order() -> None:
    mask = make_case(0)[1]
    labels = (Label(7, "box"), Label(3, "ball"), Label(300, "absent"))
    made = numbered(Mask(VALUES[mask.array], mask.geometry, labels))
    assert [(label.value, label.name) for label in made.labels] == [(1, "box"), (2, "ball"), (3, "absent")]
    assert made.array.dtype == np.uint8
    np.testing.assert_array_equal(made.array, np.array([0, 2, 1])[mask.array])


def test_a_session_lasts_until_it_is_ended(server: Server, extension: SlicerExtension, image: Path) -> None:
    extension.connect()
    session = extension.client.create_session(str(image))["session_id"]
    assert extension.client.get_session(session)["name"] == session
    mask, segments = extension.segment("phantom", "anything", session)
    assert dice(voxels(mask) == segments["ball"], make_case(40)[1].array == 1) > 0.8
    assert session not in json.dumps(extension.client.datastore())
    extension.client.remove_session(session)
    with pytest.raises(client_module().MONAILabelClientException):
        extension.client.get_session(session)
    assert list((server.store / "cases").glob(image_id(f"session {session}"))) == []


def test_sessions_of_the_past_are_removed(server: Server, image: Path) -> None:
    body, headers = form(files=("a.nii.gz", image.read_bytes()))
    first = json.loads(request(server, "PUT", "/session/?expiry=1", body, headers)[2])["session_id"]
    time.sleep(1.1)
    assert request(server, "PUT", "/session/", body, headers)[0] == 200
    assert request(server, "GET", f"/session/{first}")[0] == 404


def test_nobody_has_to_log_in_where_there_are_no_users(server: Server, extension: SlicerExtension) -> None:
    assert request(server, "GET", "/auth/")[0] == 404
    assert extension.client.auth_enabled() is False
    assert server.get("/auth/token/valid")["username"] == "local"


def test_slicer_logs_in_and_fetches_the_next_image_without_its_token(
    server: Server, users: dict[str, str], image: Path, tmp_path: Path
) -> None:
    extension = SlicerExtension(server.url, tmp_path, ("reviewer", PASSWORD))
    extension.connect()
    assert extension.client.auth_valid_token()
    extension.upload(image, "to fetch")
    address = f"/datastore/image?image={quote('to fetch')}"
    assert request(server, "GET", address)[0] == 401
    while True:
        sample, content = extension.next_sample("random")
        if sample["id"] == "to fetch":
            break
    assert sample["name"] == "to_fetch.nii.gz"
    assert content == image.read_bytes()
    assert request(server, "GET", address)[0] == 200
    assert request(server, "GET", "/datastore/image?image=other")[0] == 401
    assert request(server, "GET", "/info/")[0] == 401
    with pytest.raises(client_module().MONAILabelClientException):
        SlicerExtension(server.url, tmp_path, ("reviewer", "a wrong password")).connect()


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/info/", "viewer"),
        ("GET", "/datastore/?output=all", "viewer"),
        ("GET", "/train/", "viewer"),
        ("GET", "/proxy/dicom/studies", "viewer"),
        ("PUT", "/datastore/?image=a", "reviewer"),
        ("PUT", "/datastore/label?image=a", "reviewer"),
        ("PUT", "/session/", "reviewer"),
        ("POST", "/infer/phantom?image=a", "reviewer"),
        ("POST", "/activelearning/tumour", "reviewer"),
        ("POST", "/train/liver", "admin"),
        ("DELETE", "/train/", "admin"),
        ("DELETE", "/datastore/?id=a", "admin"),
        ("GET", "/logs/", "admin"),
    ],
)
def test_roles_decide_who_may_what(server: Server, users: dict[str, str], method: str, path: str, least: str) -> None:
    answers = {
        name: request(server, method, path, b"", {"Authorization": f"Bearer {token}"})[0]
        for name, token in users.items()
    }
    roles = ["viewer", "reviewer", "admin"]
    refused = roles[: roles.index(least)]
    assert {name for name, status in answers.items() if status == 403} == set(refused), answers
    assert request(server, method, path, b"")[0] == 401


def test_a_cookie_alone_changes_nothing(server: Server, users: dict[str, str]) -> None:
    login = json.dumps({"name": "admin", "password": PASSWORD}).encode()
    _, told, _ = request(server, "POST", "/api/login", login, {"Content-Type": "application/json"})
    cookie = {"Cookie": told["Set-Cookie"].partition(";")[0]}
    assert request(server, "GET", "/info/", None, cookie)[0] == 200
    for origin, status in (({}, 403), ({"Origin": "http://evil.example"}, 403), ({"Origin": server.url}, 200)):
        assert request(server, "DELETE", "/train/", b"", {**cookie, **origin})[0] == status


def test_the_log_names_who_did_what_and_no_image(server: Server, tmp_path: Path) -> None:
    put_image(server, "Mueller, Hans", 45, tmp_path)
    text = request(server, "GET", "/logs/?lines=100")[2].decode()
    assert f"local uploaded {image_id('Mueller, Hans')}" in text
    assert "Mueller" not in text
    assert "Mueller" not in server.log.read_text()


def test_a_long_job_blocks_no_other_request(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.nii.gz"
    write_volume(make_case(46, (128, 128, 40))[0], path)
    body, headers = form(params='{"result_extension": ".nrrd"}', file=(str(path), path.read_bytes()))
    answers = list[int]()

    def infer() -> None:
        answers.append(request(server, "POST", "/infer/phantom?output=image", body, headers)[0])

    clients = [threading.Thread(target=infer) for _ in range(4)]
    for client in clients:
        client.start()
    waits = list[float]()
    while any(client.is_alive() for client in clients):
        began = time.perf_counter()
        server.get("/info/")
        waits.append(time.perf_counter() - began)
        time.sleep(0.05)
    assert answers == [200] * 4
    assert len(waits) > 10
    assert median(waits) < 0.1


def test_who_does_not_wait_any_more_costs_no_time(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.nii.gz"
    write_volume(make_case(47, (128, 128, 40))[0], path)
    body, headers = form(params="{}", file=(str(path), path.read_bytes()))
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    connection.request("POST", "/infer/phantom", body, headers)
    jobs: Callable[[], list[dict[str, Any]]] = lambda: [  # noqa: E731
        job for job in server.get("/api/jobs") if job["status"] in ("waiting", "running")
    ]
    wait_for(jobs, 20, "there is no job")
    connection.close()
    wait_for(lambda: not jobs(), 20, "the job goes on")


def test_the_least_certain_image_is_next_until_all_are_finished(
    server: Server, extension: SlicerExtension, tmp_path: Path
) -> None:
    remove_images(server)
    extension.connect()
    assert extension.next_sample("random") == ({}, b"")
    put_image(server, "clear", 48, tmp_path)
    volume, mask = make_case(49)
    noisy = volume.array * 0.4 + np.random.default_rng(0).normal(60, 25, volume.array.shape).astype(np.float32)
    write_volume(type(volume)(noisy, volume.geometry), tmp_path / "noisy.nii.gz")
    extension.upload(tmp_path / "noisy.nii.gz", "noisy")
    assert extension.next_sample("uncertainty")[0]["id"] in {"clear", "noisy"}
    store = open_store(server.store)
    done = "SELECT count(*) FROM results WHERE uncertainty IS NOT NULL AND format = 'nifti'"
    wait_for(lambda: store.rows(done)[0][0] >= 2, 60, "they are not segmented")
    assert extension.next_sample("uncertainty")[0]["id"] == "noisy"
    for name in ("noisy", "clear"):
        drawn = sitk.GetImageFromArray(mask.array.transpose(2, 1, 0))
        drawn.CopyInformation(sitk.ReadImage(str(tmp_path / ("noisy.nii.gz" if name == "noisy" else "48.nii.gz"))))
        extension.save(drawn, ["ball", "box"], name, "phantom")
    assert extension.next_sample("uncertainty") == ({}, b"")
    assert extension.next_sample("random") == ({}, b"")


@pytest.mark.slow
def test_a_model_learns_from_what_people_have_saved(server: Server, extension: SlicerExtension, tmp_path: Path) -> None:
    remove_images(server)
    client = extension.client
    failed = client.train_start("phantom", {"max_epochs": 2})
    assert failed["status"] == "RUNNING"
    wait_for(lambda: client.train_status()["status"] == "ERROR", 60, "it trains on nothing", server.log)
    assert client.train_status()["details"][-1].startswith("nobody has finished a mask")
    for seed in range(50, 56):
        put_image(server, f"case {seed}", seed, tmp_path)
        drawn = sitk.GetImageFromArray(make_case(seed)[1].array.transpose(2, 1, 0))
        drawn.CopyInformation(sitk.ReadImage(str(tmp_path / f"{seed}.nii.gz")))
        extension.connect()
        extension.save(drawn, ["ball", "box"], f"case {seed}", "phantom")
    assert client.train_status(check_if_running=True) is False

    client.train_start("phantom", {"max_epochs": 500})
    wait_for(lambda: server.get("/info/")["train_stats"]["phantom"]["epoch"] > 0, 120, "it does not train", server.log)
    assert client.train_status(check_if_running=True) is True
    with pytest.raises(client_module().MONAILabelClientException):
        client.train_start("phantom", {"max_epochs": 1})
    stopped = client.train_stop()
    assert (stopped["status"], stopped["details"][-1]) == ("STOPPED", "somebody has stopped it")
    wait_for(lambda: not list((server.store / "runs").iterdir()), 60, "the run is not removed")

    started = client.train_start("phantom", {"max_epochs": 3})
    status = wait_for(
        lambda: (now := client.train_status())["status"] != "RUNNING" and now, 180, "it does not end", server.log
    )
    assert (status["id"], status["status"]) == (started["id"], "DONE"), status
    assert "Dice" in status["details"][-1]
    assert (server.store / "runs" / started["id"] / "model.pt").is_file()
    extension.connect()
    assert extension.info["train_stats"]["phantom"]["best_metric"] > 0.5
    mask, segments = extension.segment("phantom", "case 50")
    assert segments == {"ball": 1, "box": 2}
    assert dice(voxels(mask) == 1, make_case(50)[1].array == 1) > 0.8
    assert len(list_annotations(open_store(server.store))) == 6
