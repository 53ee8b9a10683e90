"""OHIF with MONAI Label's panel, unmodified, on a real archive; and the way to the archive that it takes."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
from conftest import make_case
from monai_label_client import ohif_folder
from numpy.typing import NDArray
from orthanc import Orthanc, running

import volseg
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Mask, Volume
from volseg.io.dicom import write_series

pytest.importorskip("fastapi")
from server import Server, running_server

from volseg.errors import DeliveryError
from volseg.serving import read_server_config
from volseg.serving.dicom.web import relay
from volseg.serving.images import fetch_image
from volseg.serving.store import open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: How the slices lie: which axes of the phantom (right, front, top) columns, rows and slices run along, and which of
#: these run backward. DICOM sorts by columns x rows, which is towards the head for axial slices of a patient as seen
#: from the feet (left, back, head).
SLICES = {
    "ascending": AxisOrder((0, 1, 2), (True, True, False)),
    "descending": AxisOrder((0, 1, 2), (True, True, True)),
    "sagittal": AxisOrder((1, 2, 0), (True, True, False)),
    "oblique": AxisOrder((2, 0, 1), (False, True, True)),
}
_VOXELS = """() => {
  const {segmentationService} = window.services;
  if (!window.services.segmentationService.getSegmentations().length) return null;
  const volume = segmentationService.getLabelmapVolume('1');
  if (!volume) return null;
  const values = Array.from(volume.voxelManager.getCompleteScalarDataArray());
  const segments = segmentationService.getSegmentations()[0].config.segments;
  return values.some(value => value) ? {
    values, dimensions: volume.dimensions, origin: volume.origin, spacing: volume.spacing, direction: volume.direction,
    names: Object.values(segments).map(segment => [segment.label, segment.segmentIndex]),
  } : null;
}"""
_OPENED = """(count) => {
  const all = window.services.segmentationService.getSegmentations();
  return all.length === count && all.map(each => Object.values(each.segments).map(segment => segment.label));
}"""


@dataclass(frozen=True, eq=False)
class Study:
    """A study of one series, and what is in it."""

    uid: str
    series_uid: str
    mask: Mask


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("archive")) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def server(archive: Orthanc, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("ohif")
    web: dict[str, Any] = {"dicomweb": "archive"}
    if (ohif := ohif_folder()) is not None:
        web["ohif"] = str(ohif)
    service = f"http://127.0.0.1:{archive.http_port}/dicom-web"
    config = {"dicom": {"port": 0}, "web": web, "destinations": {"archive": {"to": service}}}
    with running_server(folder, {"phantom": trained_run}, config) as running_one:
        yield running_one


def archived(archive: Orthanc, folder: Path, order: AxisOrder, *, tilted: bool, seed: int = 60) -> Study:
    """A phantom in the archive, its slices in some order."""
    volume, mask = make_case(seed)
    affine = volume.geometry.affine.copy()
    if not tilted:
        affine[:3, :3] = np.diag(volume.geometry.spacing_mm)
    grid = Geometry(volume.geometry.shape, affine)
    stored = grid.reordered(order)
    files = write_series(Volume(order.apply(volume.array[0])[np.newaxis], stored), folder)
    archive.store(files)
    header = pydicom.dcmread(files[0])
    return Study(header.StudyInstanceUID, header.SeriesInstanceUID, Mask(order.apply(mask.array), stored))


def shown(page: Any, server: Server, study: Study) -> dict[str, Any]:
    """The segmentation that the panel draws after "Run"."""
    page.goto(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={study.uid}")
    page.locator("#monailabelServerURL").fill(f"{server.url}/", timeout=60_000)
    page.wait_for_function("() => window.cornerstone?.getRenderingEngines()?.[0]?.getViewports()?.length > 0")
    page.wait_for_timeout(1000)
    page.locator(".settingsTable button.actionButton").click()
    page.get_by_title("Run Segmentation", exact=True).click(timeout=60_000)
    return dict(page.wait_for_function(_VOXELS, timeout=60_000).json_value())


def world_mm(found: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Values, and LPS+ positions in mm where OHIF shows them: (V,) and (V, 3); columns run fastest."""
    index = np.indices(found["dimensions"][::-1]).reshape(3, -1)[::-1].T
    axes = np.array(found["direction"]).reshape(3, 3) * np.array(found["spacing"])[:, np.newaxis]
    return np.array(found["values"]), np.array(found["origin"]) + index @ axes


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # 3D without a GPU
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", SLICES)
def test_ohif_draws_the_mask_where_the_structure_is(
    archive: Orthanc, server: Server, browser: Any, tmp_path: Path, name: str
) -> None:
    if ohif_folder() is None:
        pytest.skip("there is no OHIF with the panel: monailabel is not installed")
    study = archived(archive, tmp_path, SLICES[name], tilted=name == "oblique")
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    found = shown(page, server, study)
    context.close()
    assert complaints == []
    values, places = world_mm(found)
    names = dict(found["names"])
    lps = np.diag([-1.0, -1.0, 1.0])
    for value, label in ((1, "label_1"), (2, "label_2")):
        true = study.mask.geometry.world(np.argwhere(study.mask.array == value)) @ lps
        drawn = places[values == names[label]]
        off = np.abs(drawn.mean(axis=0) - true.mean(axis=0))
        assert (off < min(study.mask.geometry.spacing_mm)).all(), (label, off)
        shared = {tuple(np.rint(place)) for place in drawn * 10} & {tuple(np.rint(place)) for place in true * 10}
        assert 2 * len(shared) / (len(drawn) + len(true)) > 0.8, label


@pytest.mark.slow
def test_ohif_opens_the_results(
    archive: Orthanc, server: Server, browser: Any, trained_run: Path, tmp_path: Path
) -> None:
    if ohif_folder() is None:
        pytest.skip("there is no OHIF with the panel: monailabel is not installed")
    study = archived(archive, tmp_path / "dicom", SLICES["oblique"], tilted=True, seed=63)
    prediction = volseg.load(trained_run).predict(tmp_path / "dicom")
    for form in ("seg", "rtstruct"):
        archive.store(prediction.save(tmp_path / f"mask.{form}.dcm"))
    context = browser.new_context(viewport={"width": 1300, "height": 800})
    page = context.new_page()
    page.goto(f"{server.url}/ohif/viewer?StudyInstanceUIDs={study.uid}")
    results = page.locator("[data-cy='study-browser-thumbnail-no-image']")
    for count in (1, 2):
        results.nth(count - 1).dblclick(timeout=60_000)
        page.get_by_role("button", name="Yes").click(timeout=60_000)
        opened = page.wait_for_function(_OPENED, arg=count, timeout=60_000).json_value()
        assert opened[-1] == ["label_1", "label_2"]
    context.close()


def test_a_series_of_the_archive_is_segmented_by_its_uid_and_kept(
    archive: Orthanc, server: Server, tmp_path: Path
) -> None:
    study = archived(archive, tmp_path / "dicom", SLICES["sagittal"], tilted=True, seed=61)
    address = f"/infer/phantom?image={study.series_uid}&output=image"
    with ThreadPoolExecutor() as pool:  # two at once, of which neither may see half of the series
        answers = list(pool.map(lambda _: ask(server, "POST", address, PARAMS), range(2)))
    assert [status for status, _, _ in answers] == [200, 200]
    data, other = (content.partition(b"\n\n")[2] for _, _, content in answers)
    assert data == other
    array = np.frombuffer(data, np.uint8).reshape(study.mask.geometry.shape, order="F")
    inside, true = array == 1, study.mask.array == 1
    assert 2 * (inside & true).sum() / (inside.sum() + true.sum()) > 0.8
    status, headers, content = ask(server, "POST", f"/infer/phantom?image={study.series_uid}&output=dicom_seg", PARAMS)
    assert (status, headers["Content-Type"]) == (200, "application/dicom")
    (tmp_path / "seg.dcm").write_bytes(content)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.Modality == "SEG"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == study.series_uid

    archive.clear()  # from now on, only the server has it
    assert ask(server, "POST", f"/infer/phantom?image={study.series_uid}&output=json", PARAMS)[0] == 200
    (case,) = server.get(f"/api/cases?search={study.uid}")
    assert case["objects"] == study.mask.geometry.shape[2]
    assert case["status"] == "done"
    assert {job["rule"] for job in server.get(f"/api/cases/{case['id']}")["jobs"]} == {""}  # no rule has taken it
    sample = json.loads(ask(server, "POST", "/activelearning/random")[2])
    told = server.get("/datastore/?output=all")["objects"]
    assert told[study.series_uid]["image"]["info"] == {
        "SeriesInstanceUID": study.series_uid,
        "StudyInstanceUID": study.uid,
        "Modality": "MR",
    }
    assert sample["id"] in told
    assert sample["name"].endswith(".nii.gz")


@pytest.mark.parametrize(
    "path",
    [
        "../../instances",
        "%2e%2e/instances",
        "studies/../../system",
        "studies/1.2/series/1.3/../../../../tools",
        "studies/1.2%2F..%2F..%2F..%2Fsystem",
        "wado/qido/studies",
        "stow/studies",
        "http://127.0.0.1:1/studies",
        "/127.0.0.1/studies",
        "studies/1.2/series/1.3/instances/1.4/frames/all",
        "studies\\1.2",
        "studies/1.2%0d%0aHost: evil",
        "@evil.example/studies",
        "",
    ],
)
def test_nothing_but_dicomweb_is_reached_through_the_server(server: Server, path: str) -> None:
    assert ask(server, "GET", f"/proxy/dicom/{path}")[0] in {400, 404}


def test_only_reading_is_passed_on(server: Server) -> None:
    assert ask(server, "POST", "/proxy/dicom/studies", b"x")[0] == 405
    assert ask(server, "DELETE", "/proxy/dicom/wado/studies/1.2")[0] == 405


def test_what_the_archive_answers_is_passed_on_as_it_is(archive: Orthanc, server: Server, tmp_path: Path) -> None:
    study = archived(archive, tmp_path, SLICES["ascending"], tilted=False, seed=62)
    place = f"studies/{study.uid}/series/{study.series_uid}"
    own = archive.request(f"dicom-web/{place}/metadata", headers={"Accept": "application/dicom+json"})
    json_type = {"Accept": "application/dicom+json"}
    for prefix in ("wado/", "qido/", ""):
        status, headers, content = ask(server, "GET", f"/proxy/dicom/{prefix}{place}/metadata", None, json_type)
        assert (status, headers.get_content_type()) == (200, "application/dicom+json")
        assert json.loads(content) == json.loads(own)
    found = ask(server, "GET", f"/proxy/dicom/qido/studies?StudyInstanceUID={study.uid}&limit=1", None, json_type)[2]
    assert [each["0020000D"]["Value"] for each in json.loads(found)] == [[study.uid]]
    status, headers, content = ask(server, "GET", f"/proxy/dicom/wado/{place}")
    assert (status, headers.get_content_type()) == (200, "multipart/related")
    assert content.count(b"DICM") == study.mask.geometry.shape[2]
    assert ask(server, "GET", "/proxy/dicom/wado/studies/1.2.3/metadata", None, json_type)[0] == 404


class _Elsewhere(BaseHTTPRequestHandler):
    """A service that sends whoever asks to another address."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", f"http://{self.headers['Host']}/secret")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_redirect_is_not_followed_and_a_dead_archive_is_a_sentence(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        for to, said in ((f"http://127.0.0.1:{elsewhere.server_port}", "302"), ("http://127.0.0.1:9", "cannot be")):
            archive = {"archive": {"to": to}}
            stated = {"models": {"phantom": "run"}, "destinations": archive, "web": {"dicomweb": "archive"}}
            config = read_server_config(None, stated)
            with pytest.raises(DeliveryError, match=said):
                relay(config.destinations["archive"], "studies", "*/*")
            with pytest.raises(DeliveryError, match=said):
                fetch_image(open_store(tmp_path / "store"), config, "1.2.3")
        elsewhere.shutdown()
    assert [path.partition("?")[0] for path in _Elsewhere.asked] == ["/studies", "/series"]


PARAMS = b'--line\r\nContent-Disposition: form-data; name="params"\r\n\r\n{"result_extension": ".nrrd"}\r\n--line--\r\n'


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, bytes]:
    """What is answered, byte for byte, to exactly this path."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    kind = {"Content-Type": "multipart/form-data; boundary=line"} if body == PARAMS else {}
    connection.putrequest(method, path.replace(" ", "%20"), skip_accept_encoding=True)
    for name, value in {**kind, **(headers or {}), "Content-Length": str(len(body or b""))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content
