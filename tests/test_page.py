"""The web page of a server, in a real browser: a desk and a phone."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from conftest import make_case
from numpy.typing import NDArray
from PIL import Image
from ports import free_port
from server import Server, running_server, wait_for
from web_side import PASSWORD, serving

from volseg.io import write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.serving import add_user
from volseg.serving.store.jobs import Job, Result, add_job, claim_job, fail_job, finish_job

PAGE = Path(__file__).parents[1] / "volseg" / "serving" / "web" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
#: DCMTK's; pynetdicom installs a program of the same name beside Python, with other options.
STORESCP = shutil.which("storescp", path="/usr/bin:/usr/local/bin:/opt/homebrew/bin")
LONGEST_MODULE = 400


# Without a browser


def test_modules_are_short_and_make_no_markup_of_data() -> None:
    modules = [path for path in PAGE.glob("*.js") if path.name != "niivue.min.js"]
    assert len(modules) > 10
    for path in modules:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") < LONGEST_MODULE, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", source), (
            path.name
        )


def test_niivue_is_the_file_that_its_licence_names() -> None:
    licence = (PAGE / "niivue.LICENSE.txt").read_text(encoding="utf-8")
    assert "NiiVue 0.69.0" in licence
    assert hashlib.sha256((PAGE / "niivue.min.js").read_bytes()).hexdigest() in licence


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the page in")
    from playwright.sync_api import sync_playwright

    software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software])
        yield opened
        opened.close()


@contextmanager
def opened(browser: Any, url: str, *, refusals: int = 0, **options: Any) -> Iterator[Any]:
    """Open the page; at the end nobody has complained, it was refused as often as stated, and asked nobody else."""
    complaints: list[str] = []
    context = browser.new_context(**{"viewport": DESK, "color_scheme": "light", **options})
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda asked: None if asked.url.startswith((url, "blob:", "data:")) else complaints.append(asked.url)
    )
    page.goto(f"{url}/")
    yield page
    refused = [text for text in complaints if "the server responded with a status of 4" in text]
    assert [text for text in complaints if text not in refused] == []
    assert len(refused) == refusals, refused
    context.close()


@dataclass(frozen=True)
class Place:
    """A server with a destination.

    Attributes:
        server: It.
        received: The folder of what the destination has received.
    """

    server: Server
    received: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    received, port = folder / "received", free_port()
    received.mkdir()
    destinations = {
        "pacs": {"to": f"PACS@127.0.0.1:{port}", "retry_seconds": 1},
        "nobody": {"to": f"NOBODY@127.0.0.1:{free_port()}", "attempts": 1, "formats": ["dicom-sr"]},
    }
    program = STORESCP and subprocess.Popen([STORESCP, "-aet", "PACS", "--output-directory", received, str(port)])
    try:
        with running_server(folder / "server", {"ball": trained_run}, {"destinations": destinations}) as server:
            yield Place(server, received)
    finally:
        if program:
            program.terminate()
            program.wait()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in a .zip, with a file that systems hide in folders."""
    folder = tmp_path_factory.mktemp("archive")
    paths = write_series(make_case(7)[0], folder / "study")
    with zipfile.ZipFile(folder / "study.zip", "w") as made:
        made.writestr("__MACOSX/study/._0001.dcm", b"nothing")
        for path in paths:
            made.write(path, f"study/{path.name}")
    return folder / "study.zip"


def upload(page: Any, *paths: Path) -> None:
    page.locator("#upload-model option[value=ball]").wait_for(state="attached")
    page.locator("#files").set_input_files(list(paths))


def row(page: Any, title: str, table: str = "cases") -> Any:
    return page.locator(f"#{table} tr", has_text=title).first


def open_case(page: Any, title: str) -> None:
    row(page, title).locator("a.title").click()
    page.locator("figure[data-state=shown]").wait_for()


def picture(page: Any) -> NDArray[np.int_]:
    """Red, green and blue of what the viewer shows."""
    page.wait_for_timeout(400)  # a frame, drawn by software
    shown = np.asarray(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB"))
    return np.moveaxis(shown.astype(int), -1, 0)


def colourful(page: Any) -> int:
    """How many pixels of the picture are blue or green, as masks are; images are grey, and texts are yellow."""
    red, green, blue = picture(page)
    return int(
        ((np.maximum(green, blue) - np.minimum(red, np.minimum(green, blue)) > 50) & (np.abs(red - green) > 25)).sum()
    )


@pytest.mark.slow
def test_a_study_is_uploaded_seen_downloaded_and_sent(browser: Any, place: Place, archive: Path) -> None:
    with opened(browser, place.server.url) as page:
        assert "Research use only" in page.locator(".banner").inner_text()
        upload(page, archive)
        line = row(page, "MR")
        line.locator(".chip.good").wait_for()
        assert re.findall(r"label_\d\n[\d.]+ ml", line.inner_text())
        assert line.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        line.locator("a.title").click()
        page.locator("figure[data-state=shown]").wait_for()

        # The picture: with the mask, with one structure, and without.
        page.locator("#opacity").fill("100")
        both = colourful(page)
        page.locator("#structures").get_by_label("label_2", exact=True).uncheck()
        one = colourful(page)
        page.keyboard.press("s")
        page.keyboard.press("s")
        none = colourful(page)
        assert none < 200 < one < both
        page.keyboard.press("s")
        page.get_by_label("Colour of label_1").fill("#00ff00")
        assert colourful(page) > none
        page.keyboard.press("2")
        assert page.get_by_role("button", name="Axial").get_attribute("aria-pressed") == "true"
        before = page.locator("output.place").inner_text()
        page.locator("#picture").focus()
        page.keyboard.press("PageUp")
        assert page.locator("output.place").inner_text() != before

        # Downloads: the mask as it is, the object that was made of it, and another format.
        case_id = page.url.rpartition("/")[2]
        for form, name in (
            ("nifti", ".nii.gz"),
            ("dicom-seg", ".dcm"),
            ("nrrd", ".nrrd"),
            ("stl", ".zip"),
            ("image", ".nii.gz"),
        ):
            page.locator("#format").select_option(form)
            with page.expect_download() as download:
                page.get_by_role("button", name="Download").click()
            assert download.value.suggested_filename.endswith(name)
            content = download.value.path().read_bytes()
            if form == "nifti":
                assert set(np.unique(nib.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)) == {0, 1, 2}
            elif form == "dicom-seg":
                assert content[128:132] == b"DICM"

        # Sending.
        assert (
            "segment the case with one of these formats" in page.locator("#sending li", has_text="nobody").inner_text()
        )
        if STORESCP is None:
            pytest.skip("DCMTK's storescp is not installed")
        page.get_by_role("button", name="Send DICOM Segmentation to pacs").click()
        page.locator("#sending li", has_text="pacs").locator(".chip.good").wait_for()
        wait_for(lambda: list(place.received.iterdir()), 10, "nothing arrived")
        assert [line["what"] for line in place.server.get("/api/audit") if line["case_id"] == case_id].count(
            "looked at"
        ) == 1


@pytest.mark.slow
def test_a_case_is_segmented_again_with_probabilities(browser: Any, place: Place, archive: Path) -> None:
    with opened(browser, place.server.url) as page:
        upload(page, archive)
        row(page, "MR").locator(".chip.good").wait_for()
        open_case(page, "MR")
        page.get_by_role("button", name="Segment \u2026").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("DICOM Structured Report").check()
        dialog.get_by_label("nobody").check()
        dialog.get_by_label("the probability of each structure").check()
        dialog.get_by_role("button", name="Segment", exact=True).click()
        page.locator("#probability").wait_for()
        page.locator("figure[data-state=shown]").wait_for()
        page.locator("#all-structures").uncheck()
        without = colourful(page)
        page.locator("#probability").select_option(label="label_1")
        wait_for(lambda: colourful(page) > without + 200, 10, "the probability is not shown")
        failed = page.locator("#sending li", has_text="nobody")
        failed.locator(".chip.bad").wait_for()
        assert "cannot be reached; is it running" in failed.inner_text()
        page.keyboard.press("q")
        page.get_by_role("button", name="Retry: to nobody").wait_for()


def drop(page: Any, *paths: Path) -> None:
    """Drag files or folders from the desktop onto the page, and let them go."""
    browser = page.context.new_cdp_session(page)
    dragged = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": dragged})


def yellow(page: Any) -> int:
    """How many pixels of the picture are yellow, as measurements are."""
    red, green, blue = picture(page)
    return int(((np.minimum(red, green) > 150) & (blue < 120)).sum())


@pytest.mark.slow
def test_a_folder_is_dropped_and_a_distance_measured(browser: Any, place: Place, tmp_path: Path) -> None:
    for number, folder in ((1, ""), (2, "deeper/"), (3, "deeper/still/")):
        write_volume(make_case(number)[0], tmp_path / "dropped" / f"{folder}scan_{number}.nii.gz")
    with opened(browser, place.server.url) as page:
        page.locator("#upload-model option[value=ball]").wait_for(state="attached")
        drop(page, tmp_path / "dropped")
        for number in (1, 2, 3):
            row(page, f"scan_{number}.nii.gz").locator(".chip.good").wait_for()
        open_case(page, "scan_2.nii.gz")
        page.get_by_role("button", name="Ruler").click()
        before, box = yellow(page), page.locator(".stage canvas").bounding_box()
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.1 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
        page.mouse.up()
        assert yellow(page) > before + 50
        page.get_by_role("button", name="Ruler").click()
        assert yellow(page) < before + 20


@pytest.mark.slow
def test_jobs_are_cancelled_retried_and_put_first(browser: Any, place: Place, tmp_path: Path) -> None:
    large = np.random.default_rng(0).normal(100, 5, (256, 256, 128)).astype(np.uint8)
    nib.save(nib.Nifti1Image(large, np.diag([1.0, 1.1, 2.0, 1.0])), tmp_path / "large.nii.gz")
    small = [tmp_path / f"{name}.nii.gz" for name in ("first", "second")]
    for path in small:
        nib.save(nib.Nifti1Image(large[:20, :18, :16], np.diag([1.0, 1.1, 2.0, 1.0])), path)
    with opened(browser, place.server.url) as page:
        upload(page, tmp_path / "large.nii.gz")
        row(page, "large").get_by_text("running").wait_for()
        upload(page, *small)
        page.get_by_text("2 cases uploaded").wait_for()
        page.keyboard.press("q")
        row(page, "second", "jobs").get_by_role("button", name="Sooner").click()
        row(page, "second", "jobs").locator("td[data-name=priority]", has_text="2").wait_for()
        assert page.locator("#jobs tr a.title").all_inner_texts()[:3] == [
            "large.nii.gz",
            "second.nii.gz",
            "first.nii.gz",
        ]
        # Rows are made anew, and whoever uses keys stays where they were.
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Sooner: second.nii.gz"
        assert row(page, "large", "jobs").get_by_role("progressbar").count() == 1
        row(page, "first", "jobs").get_by_role("button", name="Cancel").click()
        row(page, "first", "jobs").get_by_text("cancelled", exact=True).wait_for()
        row(page, "large", "jobs").get_by_role("button", name="Cancel").click()
        row(page, "large", "jobs").get_by_text("cancelled", exact=True).wait_for()
        row(page, "first", "jobs").get_by_role("button", name="Retry").click()
        row(page, "first", "jobs").get_by_text("done").wait_for()


@pytest.mark.slow
def test_every_failure_is_one_sentence(browser: Any, place: Place, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    write_mask(make_case(0)[1], tmp_path / "labels.nii.gz")
    (tmp_path / "broken <b>bold<b>.nii.gz").write_bytes(b"no image either")
    with opened(browser, place.server.url, refusals=3) as page:
        upload(page, tmp_path / "notes.txt")
        alert = page.get_by_role("alert").filter(has_text="notes.txt")
        alert.wait_for()
        assert (
            alert.locator("span").inner_text()
            == "notes.txt is no image that volseg reads; upload DICOM, NIfTI, NRRD or MetaImage"
        )
        upload(page, tmp_path / "broken <b>bold<b>.nii.gz")
        line = row(page, "broken <b>bold<b>.nii.gz")  # as it is, and no markup
        line.locator(".chip.bad").wait_for()
        reason = line.locator(".status .below").inner_text()
        assert len(reason) > 20
        assert "\n" not in reason
        upload(page, tmp_path / "labels.nii.gz")
        row(page, "labels.nii.gz").locator(".chip.bad").wait_for()
        told = row(page, "labels.nii.gz").locator(".status .below").inner_text()
        assert told.startswith("the upload holds label maps")  # and no path of the server
        line.locator("a.title").click()
        page.locator("figure[data-state=failed]").wait_for(
            state="attached"
        )  # it cannot be shown either, and this says why
        assert len(page.locator(".state").inner_text()) > 20
        page.keyboard.press("d")
        page.get_by_role("button", name="Echo nobody").click()
        page.locator(".answer.bad").wait_for()
        assert "cannot be reached; is it running" in page.locator(".answer.bad").inner_text()
        page.get_by_label("StudyInstanceUID").fill("1.2.3")
        page.get_by_label("from").select_option("nobody")
        page.get_by_role("button", name="Fetch").click()
        page.get_by_role("alert").filter(has_text="cannot be reached").wait_for()
        page.get_by_role("heading", name="Destinations").click()
        page.keyboard.press("l")
        assert row(page, "broken", "failures").inner_text().count(reason) == 1
        page.get_by_role("button", name="Show the audit").click()
        page.locator("#audit", has_text="uploaded").wait_for()


@pytest.mark.slow
def test_the_page_fits_a_phone_and_follows_its_colours(browser: Any, place: Place, archive: Path) -> None:
    phone = {"viewport": PHONE, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
    with opened(browser, place.server.url, **phone) as page:
        upload(page, archive)
        row(page, "MR").locator(".chip.good").wait_for()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Change between light and dark").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        for name in ("queue", "models", "destinations", "log", "cases"):
            page.goto(f"{place.server.url}/page/#/{name}")
            page.locator("h1").wait_for()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        open_case(page, "MR")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.locator(".stage").bounding_box()["width"] == PHONE["width"]


def nameless(page: Any) -> list[str]:
    """What can be used but has no name that a screen reader could say."""
    return page.locator("button, a, input:not([hidden]), select").evaluate_all(
        "all => all.filter(each => !each.textContent.trim() && !each.ariaLabel && !each.labels?.length)"
        ".map(each => each.outerHTML)"
    )


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_people_log_in_and_see_what_they_may(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "store") as side:
        for name, role in (("vera", "viewer"), ("anna", "admin")):
            add_user(side.config.store, name, PASSWORD, role)
        case_id = "0123456789abcdef"
        side.store.change(
            "INSERT INTO cases (id, origin, name, revision, created, changed) VALUES (?, 'upload', ?, 1, ?, ?)",
            *(case_id, "ball.nii.gz", time.time() - 7300, time.time()),
        )
        add_job(side.store, Job(case_id, "ball", ("nifti",)))
        job = claim_job(side.store)
        assert job is not None
        label = '[{"value": 1, "name": "ball", "color": "#497af2", "volume_ml": 12.34}]'
        finish_job(side.store, job, [Result("", label, "ball has 12 ml, less than usual", 1.0, "nifti", "ball.nii.gz")])
        add_job(side.store, Job(case_id, "ball", ("nifti",)))
        again = claim_job(side.store)
        assert again is not None
        fail_job(side.store, again, "the image has no positions")
        url = f"http://127.0.0.1:{side.config.web.port}"
        with opened(browser, url, refusals=1) as page:
            page.get_by_label("Name").fill("vera")
            page.get_by_label("Password").fill("wrong password")
            page.get_by_label("Password").press("Enter")
            page.get_by_text("the name or the password is wrong").wait_for()
            assert page.locator("nav").is_hidden()
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_label("Password").press("Enter")
            line = row(page, "ball.nii.gz")
            assert "the image has no positions" in line.inner_text()
            assert "2 h ago" in line.inner_text()
            assert nameless(page) == []
            assert page.locator("section.upload").count() == 0
            page.keyboard.press("q")
            page.locator("#jobs tr").nth(1).wait_for()
            assert page.get_by_role("button", name="Retry").count() == 0
            page.keyboard.press("l")
            row(page, "ball", "failures").wait_for()
            assert page.get_by_role("button", name="Show the audit").count() == 0
            page.keyboard.press("?")
            page.get_by_role("dialog").get_by_text("work list", exact=True).wait_for()
            page.keyboard.press("Escape")
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("Name").fill("anna")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            page.locator("nav").wait_for()
            page.keyboard.press("q")
            page.get_by_role("button", name="Retry: ball.nii.gz").wait_for()
            page.keyboard.press("w")
            row(page, "ball.nii.gz").wait_for()
            page.keyboard.press("j")
            assert page.evaluate("document.activeElement.textContent") == "ball.nii.gz"
            assert nameless(page) == []
