from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_case
from PIL import Image

from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.terminology import default_color, lookup
from volseg.image.volume import Label, Mask, Volume
from volseg.io import write_volume
from volseg.io.dicom import write_series
from volseg.model.usual_volumes import VolumeRange
from volseg.reporting.batches import ReviewRow, review
from volseg.reporting.gallery import _detail
from volseg.reporting.page import Number, Report, Tile, render, write_report
from volseg.reporting.picture import Detail, Picture, Surface, draw

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHAPE = (20, 24, 16)
#: Left, posterior, superior are the directions of its axes, so that drawing has something to turn.
GEOMETRY = Geometry(SHAPE, np.diag([-1.0, -2.0, 3.0, 1.0]))
LABELS = (Label(1, "one"), Label(2, "two"))


def mask_of(*boxes: tuple[slice, slice, slice], values: tuple[int, ...] = (1, 2)) -> Mask:
    array = np.zeros(SHAPE, np.uint8)
    for box, value in zip(boxes, values, strict=False):
        array[box] = value
    return Mask(array, GEOMETRY, LABELS)


REFERENCE = mask_of(np.s_[4:12, 6:14, 4:10])
PREDICTION = mask_of(np.s_[4:12, 6:18, 4:10])
IMAGE = Volume(np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32), GEOMETRY)


# Pictures


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def voxels(picture: Picture, side: str) -> np.ndarray:
    """The labels of one mask along x, y, z of the picture, from 1 in the order of its list."""
    return unpacked(getattr(picture, side), "u1").reshape(picture.shape[::-1]).T


def shown_image(picture: Picture) -> np.ndarray:
    """The image along x, y, z, taken from the slices side by side."""
    mosaic = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.image))).convert("L")).astype(float)
    width, height, slices = picture.shape
    tiles = mosaic.reshape(-1, height, picture.columns, width).transpose(0, 2, 3, 1).reshape(-1, width, height)
    return tiles[:slices].transpose(1, 2, 0)


def corners_of(surface: Surface) -> np.ndarray:
    """In mm from the middle of what is shown."""
    return unpacked(surface.corners, "<i2").reshape(-1, 3) / 10


def test_slices_meet_in_the_thickest_error() -> None:
    picture = draw(REFERENCE, PREDICTION, IMAGE)
    reference, prediction = voxels(picture, "reference"), voxels(picture, "prediction")
    assert picture.shape == picture.size == SHAPE
    assert picture.voxel_mm == (1, 2, 3)
    wrong = reference != prediction
    x, y, z = picture.position
    # What was added is 8 x 4 x 6 voxels, of 2 mm along the four: every plane through its middle cuts it.
    assert [int(cut.sum()) for cut in (wrong[:, :, z], wrong[:, y], wrong[x])] == [8 * 4, 8 * 6, 4 * 6]


def test_a_picture_is_seen_from_the_feet_and_from_the_front() -> None:
    """The axes of the grid run to the left, to the back and upwards: only the last one is turned."""
    picture = draw(REFERENCE, PREDICTION, None)
    assert np.array_equal(voxels(picture, "prediction"), PREDICTION.array[:, :, ::-1])
    turned = Geometry(SHAPE, np.diag([1.0, 2.0, -3.0, 1.0]))  # to the right, to the front, downwards
    seen = draw(Mask(REFERENCE.array, turned, LABELS), None, None)
    assert np.array_equal(voxels(seen, "reference"), REFERENCE.array[::-1, ::-1])


def test_the_thickest_error_may_lie_at_the_edge_of_the_image() -> None:
    """What is thin at the edge is no thicker for going on beyond it."""
    thin_at_the_edge = mask_of(np.s_[0:20, 0:1, 0:16], np.s_[6:14, 8:16, 4:12])
    picture = draw(mask_of(), thin_at_the_edge, None)
    x, y, _ = picture.position
    assert 6 <= x < 14
    assert 8 <= y < 16


def test_the_thickest_error_of_a_picture_is_found_within_its_plane() -> None:
    array = np.zeros((40, 30, 1), np.uint8)
    array[2:4, 2:28] = 1  # thin, and before the other
    array[20:30, 10:20] = 1
    grid = Geometry.of_picture(40, 30)
    picture = draw(Mask(np.zeros_like(array), grid, LABELS), Mask(array, grid, LABELS), None)
    marked = np.argwhere(voxels(picture, "prediction"))
    x, y, _ = picture.position
    assert (np.abs(marked[:, :2] - (x, y)).max(axis=1) <= 3).sum() == 7 * 7  # all around is marked


def test_every_label_leads_to_its_own_error() -> None:
    reference = mask_of(np.s_[4:12, 6:14, 4:10], np.s_[12:16, 6:14, 4:10])
    prediction = mask_of(np.s_[4:12, 6:14, 4:10], np.s_[12:16, 6:10, 4:10])
    one, two = draw(reference, prediction, None).labels
    assert 12 <= two.position[0] < 16
    assert 10 <= two.position[1] < 14
    assert 4 <= one.position[0] < 12  # it is right: where there is most of it
    assert 6 <= one.position[1] < 14


def test_labels_have_the_colors_that_are_exported() -> None:
    labels = (Label(1, "one", (1, 2, 255)), Label(2, "liver"), Label(3, "absent"), Label(4, "nobody knows"))
    array = np.zeros(SHAPE, np.uint8)
    array[2, 2, 2:5] = 1, 2, 4
    drawn = draw(Mask(array, GEOMETRY, labels), None, None).labels
    structure = lookup("liver")
    assert structure is not None
    assert structure.color is not None
    expected = [(1, 2, 255), structure.color, default_color(4)]
    assert [label.name for label in drawn] == ["one", "liver", "nobody knows"]
    assert [label.color for label in drawn] == ["#{:02x}{:02x}{:02x}".format(*color) for color in expected]


def test_the_image_lies_under_the_masks() -> None:
    """A bright block in the image is bright exactly where the mask of the same block is."""
    bright = Volume(10.0 * (REFERENCE.array[np.newaxis] > 0).astype(np.float32), GEOMETRY)
    picture = draw(REFERENCE, REFERENCE, bright)
    inside = voxels(picture, "reference") > 0
    assert shown_image(picture)[inside].min() > 160
    assert shown_image(picture)[~inside].max() < 95


def test_many_voxels_are_shown_coarser_where_they_are_finest() -> None:
    shape = (60, 50, 20)
    grid = Geometry(shape, np.diag([-1.0, -1.0, 3.0, 1.0]))
    array = np.zeros(shape, np.uint8)
    array[10:40, 10:30, 5:15] = 1
    bright = Volume(100.0 * array[np.newaxis].astype(np.float32), grid)
    picture = draw(Mask(array, grid, LABELS), None, bright, Detail(voxels=12_000))
    assert math.prod(picture.shape) <= 12_000
    assert picture.shape[2] == 20  # nothing is coarser along the axis of thick slices
    extents = np.multiply(picture.shape, picture.voxel_mm)
    assert extents == pytest.approx(np.multiply(picture.size, (1, 1, 3)))
    inside = voxels(picture, "reference") > 0
    assert inside.sum() * np.prod(picture.voxel_mm) == pytest.approx(30 * 20 * 30, rel=0.1)
    assert shown_image(picture)[inside].mean() > 200
    assert shown_image(picture)[~inside].mean() < 10


def test_surfaces_enclose_the_voxels_of_their_labels() -> None:
    picture = draw(mask_of(np.s_[4:12, 6:14, 4:10], np.s_[12:16, 6:10, 4:8]), None, None)
    assert [(surface.side, surface.label) for surface in picture.surfaces] == [("reference", 0), ("reference", 1)]
    for surface, extent in zip(picture.surfaces, [(8, 16, 18), (4, 8, 12)], strict=True):
        faces = unpacked(surface.faces, "<u2").reshape(-1, 3)
        assert faces.max() == len(corners_of(surface)) - 1
        assert np.ptp(corners_of(surface), axis=0) == pytest.approx(extent, abs=0.2)
    one, two = (corners_of(surface).mean(axis=0) for surface in picture.surfaces)
    assert two[0] < one[0]  # further to the left of the patient
    assert two[1] > one[1]  # and to the front


@pytest.mark.parametrize("share", [1.0, 0.97, 0.3])
def test_a_large_surface_stays_small_and_in_place(share: float) -> None:
    array = np.linalg.norm(np.indices((96, 96, 96)) - 47.5, axis=0) < 40
    array &= np.random.default_rng(1).random(array.shape) < share  # ragged; a library's thinning never ended on such
    mask = Mask(array.astype(np.uint8), Geometry(array.shape, np.eye(4)), LABELS)
    (surface,) = draw(mask, None, None).surfaces
    assert len(unpacked(surface.faces, "<u2")) / 3 <= 5000
    assert corners_of(surface).min(axis=0) == pytest.approx([-40] * 3, abs=8)
    assert corners_of(surface).max(axis=0) == pytest.approx([40] * 3, abs=8)


def test_surfaces_drawn_side_by_side_are_those_drawn_alone() -> None:
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(np.indices((60, 60, 60)) - 30, axis=0)
    grid = Geometry(radius.shape, np.eye(4))
    masks = [Mask((radius + rng.normal(0, 2, radius.shape) < 22).astype(np.uint8), grid, LABELS) for _ in range(6)]

    def surfaces(mask: Mask) -> object:
        return draw(None, mask, None).surfaces

    alone = [surfaces(mask) for mask in masks]
    for _ in range(4):
        with ThreadPoolExecutor(3) as executor:
            assert list(executor.map(surfaces, masks)) == alone


def test_a_mask_alone_is_drawn_where_it_is_fullest() -> None:
    picture = draw(None, PREDICTION, IMAGE)
    assert picture.reference == ""
    x, y, z = picture.position
    made = voxels(picture, "prediction")
    assert [int((cut > 0).sum()) for cut in (made[:, :, z], made[:, y], made[x])] == [8 * 12, 8 * 6, 12 * 6]


def test_empty_masks_have_a_picture_and_no_surface() -> None:
    nothing = mask_of()
    picture = draw(nothing, nothing, IMAGE)
    assert (picture.labels, picture.surfaces) == ((), ())
    assert picture.shape == SHAPE


def test_what_does_not_lie_on_one_grid_is_not_drawn() -> None:
    moved = Geometry(SHAPE, np.diag([-1.0, -2.0, 4.0, 1.0]))
    with pytest.raises(GeometryError, match="on one grid"):
        draw(REFERENCE, PREDICTION, Volume(IMAGE.array, moved))
    with pytest.raises(ValueError, match="needs a mask"):
        draw(None, None, IMAGE)


# The page


@pytest.fixture(scope="module")
def report() -> Report:
    rng = np.random.default_rng(0)
    rows = [
        {"case_id": f"case_{n:02}", "label": label.name, "status": "ok", "dice": dice, "hd95_mm": 10 * (1 - dice)}
        | {"reference_ml": 10.0 + n, "predicted_ml": 10.0 + n * dice, "reason": ""}
        for n in range(12)
        for label, dice in zip(LABELS, rng.uniform(0.5, 0.95, 2), strict=True)
    ]
    rows[5] |= {"status": "missed", "dice": 0.0}
    rows[7] |= {"status": "failed", "dice": 0.0, "hd95_mm": None, "reason": "</script><b>other grid</b>"}
    summary = pd.DataFrame({"label": ["one", "two", "mean"], "scored": [12, 12, 24], "missed": [0, 1, 1]})
    return Report(
        kind="Evaluation",
        title="</script> 12 cases & more",
        tiles=(Tile("mean Dice", "0.7"), Tile("missed", "1", alarm=True)),
        facts=(("volseg", "0"), ("model", "<i>abc</i>")),
        rows=pd.DataFrame(rows),
        numbers=(Number("dice", "2 tp / ...", "higher"), Number("hd95_mm", "far", "lower")),
        table=("dice", "hd95_mm"),
        sort="dice",
        summary=summary.assign(dice_mean=[0.7, 0.6, 0.65], dice_ci95_low=0.5, dice_ci95_high=0.8),
        means=("dice_mean",),
        policy="as it is",
        history=pd.DataFrame({"epoch": [1, 2], "loss": [math.inf, 0.5], "dice": [None, 0.6], "fold": ["", ""]}),
        pictures={f"case_{n:02}": draw(REFERENCE, PREDICTION, IMAGE) for n in range(11)},
    )


def test_names_cannot_leave_the_data(report: Report) -> None:
    page = render(report)
    assert page.count("</script>") == 3
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["title"] == report.title
    assert data["rows"]["reason"][7] == "</script><b>other grid</b>"
    assert data["rows"]["hd95_mm"][7] is None
    assert "<b>other grid" not in page
    assert data["summary"][0]["dice_mean_ci95"] == [0.5, 0.8]


def test_a_page_is_written_whole_and_the_same_again(report: Report, tmp_path: Path) -> None:
    first = write_report(report, tmp_path / "a").read_bytes()
    assert write_report(report, tmp_path / "b").read_bytes() == first
    assert [file.name for file in (tmp_path / "a").glob("[!.]*")] == ["report.html"]


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the report in")
    from playwright.sync_api import sync_playwright

    software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # 3D without a GPU
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *software])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, report: Report, tmp_path: Path):
    """The report, offline; at the end nobody has complained and nothing was asked of a network."""
    file = write_report(report, tmp_path)
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1366, "height": 860}, color_scheme="light", offline=True)
    opened = context.new_page()
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
    opened.goto(f"file://{file}")
    yield opened
    assert complaints == []
    context.close()


def first_column(page) -> list[str]:
    return page.locator("#cases tbody tr td.case_id").all_inner_texts()


def test_the_worst_case_is_on_top(page) -> None:
    assert page.title() == "</script> 12 cases & more - volseg"
    assert first_column(page)[:2] == ["case_02", "case_03"]
    assert page.locator("#count").inner_text() == "24 of 24 rows"
    assert page.locator(".tile.alarm").inner_text().split("\n") == ["1", "missed"]
    assert "other grid" in page.locator("#cases").inner_text()


def test_columns_sort_both_ways(page) -> None:
    page.get_by_role("button", name="case", exact=True).click()
    assert first_column(page)[0] == "case_00"
    page.get_by_role("button", name="case", exact=True).click()
    assert first_column(page)[0] == "case_11"
    page.get_by_role("button", name="HD95 [mm]").click()
    values = [float(cell) for cell in page.locator("#cases tbody tr td:nth-child(6)").all_inner_texts() if cell]
    assert values == sorted(values, reverse=True)
    assert len(values) == 23
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("HD95")


def test_rows_are_filtered(page) -> None:
    page.locator("#search").fill("CASE_03")
    assert first_column(page) == ["case_03", "case_03"]
    page.locator("#search").fill("other grid")
    assert first_column(page) == ["case_03"]
    page.locator("#search").fill("")
    page.locator("#status-filter").select_option("missed")
    assert page.locator("#count").inner_text() == "1 of 24 rows"
    page.locator("#status-filter").select_option("")
    page.locator("#label-filter").select_option("two")
    assert len(first_column(page)) == 12


def test_keys_alone_lead_to_a_case_and_back(page) -> None:
    page.locator("#cases tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.locator("#case-title").inner_text() == "case_03"
    assert page.locator("#case .view canvas").count() == 3
    page.wait_for_selector("#scene canvas", state="attached")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#case-title").inner_text() == "case_02"
    page.keyboard.press("ArrowRight")
    assert page.locator("#case-title").inner_text() == "case_03"
    page.keyboard.press("Escape")
    assert not page.locator("#case").is_visible()
    assert page.evaluate("document.activeElement.dataset.case") == "case_03"


def painted(page) -> None:
    """Wait until the slices are drawn."""
    page.wait_for_function("document.querySelectorAll('#case .view svg g').length > 0")
    page.evaluate("painted")


def pixel(page, x: float, y: float, view: str = "axial") -> list[int]:
    """The colour at a place of a slice, as shares of its width and height."""
    return page.evaluate(
        """([view, x, y]) => { const canvas = document.querySelector(`[data-view=${view}] canvas`);
        const [column, row] = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
        return [...canvas.getContext('2d').getImageData(column, row, 1, 1).data]; }""",
        [view, x, y],
    )


def box_of(path: str) -> list[float]:
    """The left, right, upper and lower end of an outline."""
    numbers = np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2)
    return [*np.ravel([numbers.min(axis=0), numbers.max(axis=0)], order="F").tolist()]


def test_slices_show_both_outlines_and_what_lies_between(page) -> None:
    page.locator("#cases tbody tr").first.click()
    painted(page)
    reference, prediction = (page.locator(f"[data-view=axial] path.{side}") for side in ("reference", "prediction"))
    assert box_of(reference.get_attribute("d")) == [4, 12, 6, 14]
    assert box_of(prediction.get_attribute("d")) == [4, 12, 6, 18]
    assert (
        reference.get_attribute("stroke")
        == prediction.get_attribute("stroke")
        == "#{:02x}{:02x}{:02x}".format(*default_color(1))
    )
    added = pixel(page, 8 / 20, 16 / 24)
    grey = pixel(page, 8 / 20, 10 / 24)
    assert added[0] > added[2] + 60  # vermilion
    assert grey[0] == grey[1] == grey[2]
    # Coronal and sagittal slices are put together of axial ones: 4 to 10 of 16 slices from the feet are 6 to 12 down.
    assert box_of(page.locator("[data-view=coronal] path.prediction").get_attribute("d")) == [4, 12, 6, 12]
    assert box_of(page.locator("[data-view=sagittal] path.prediction").get_attribute("d")) == [6, 18, 6, 12]


def test_the_image_is_the_same_in_all_three_views(browser, report: Report, tmp_path: Path) -> None:
    """A bright block, beside nothing else, is bright at its place in each."""
    array = np.zeros((1, *SHAPE), np.float32)
    array[0, 2:6, 14:20, 1:4] = 100
    shown = {"case_02": draw(REFERENCE, REFERENCE, Volume(array, GEOMETRY))}
    opened = browser.new_page()
    opened.goto(f"file://{write_report(replace(report, pictures=shown), tmp_path)}")
    opened.locator("#cases tbody tr").first.click()
    painted(opened)
    opened.evaluate("state.position = [4, 17, 13]; paintViews()")
    painted(opened)
    places = {"axial": (4.5 / 20, 17.5 / 24), "coronal": (4.5 / 20, 13.5 / 16), "sagittal": (17.5 / 24, 13.5 / 16)}
    for view, (x, y) in places.items():
        assert min(pixel(opened, x, y, view)) > 120
        assert max(pixel(opened, 1 - x, 1 - y, view)[:3]) < 60
    opened.close()


def test_slices_are_scrolled_through(page) -> None:
    page.locator("#cases tbody tr").first.click()
    painted(page)
    axial, number = page.locator("[data-view=axial]"), page.locator("[data-view=axial] output")
    first = int(number.inner_text())  # counted from the feet
    assert 4 <= first < 10
    axial.locator(".plane").hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"document.querySelector('[data-view=axial] output').textContent === '{first - 1}'")
    slider = axial.locator("input")
    slider.fill("12")
    painted(page)
    assert number.inner_text() == "12"
    assert axial.locator("path.outline").count() == 0  # above the block
    slider.fill("9")
    painted(page)
    assert axial.locator("path.outline").count() == 2
    # A click moves the other two.
    box = axial.locator(".plane").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 2.5 / 20, box["y"] + box["height"] * 20.5 / 24)
    painted(page)
    assert page.locator("[data-view=sagittal] output").inner_text() == str(20 - 1 - 2)  # from the patient's left
    assert page.locator("[data-view=coronal] output").inner_text() == str(24 - 1 - 20)  # from the back


def test_a_case_opens_where_its_label_is_least_sure(browser, report: Report, tmp_path: Path) -> None:
    numbers = (*report.numbers, Number("least_sure_slice", "counted from the lowest one, which is 0"))
    opened = browser.new_page()
    rows = report.rows.assign(least_sure_slice=5)
    opened.goto(f"file://{write_report(replace(report, rows=rows, numbers=numbers), tmp_path)}")
    opened.locator("#cases tbody tr").first.click()
    painted(opened)
    assert opened.locator("[data-view=axial] output").inner_text() == "5"
    opened.close()


def test_what_is_drawn_over_a_slice_can_be_hidden(page) -> None:
    page.locator("#cases tbody tr").first.click()
    painted(page)
    lines = page.locator("#case .view path.outline")
    assert lines.count() == 5  # the coronal slice lies in what was added
    page.get_by_role("button", name="Errors").click()
    painted(page)
    added = pixel(page, 8 / 20, 16 / 24)
    assert added[0] == added[1] == added[2]
    page.get_by_role("button", name="Outlines").click()
    painted(page)
    page.wait_for_function("document.querySelectorAll('#case .view path.outline').length === 0")
    # What is hidden stays so in the next case, and keys go on working.
    page.keyboard.press("ArrowRight")
    painted(page)
    assert page.locator("#case-title").inner_text() == "case_03"
    assert lines.count() == 0
    assert page.locator("[data-hides=errors]").get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.dataset.hides") == "outlines"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#case-title").inner_text() == "case_02"


def test_a_label_is_hidden_by_its_color(page) -> None:
    page.locator("#cases tbody tr").first.click()
    painted(page)
    page.get_by_role("button", name="show one").click()
    page.wait_for_function("document.querySelectorAll('#case .view path.outline').length === 0")


def test_a_row_has_a_picture_of_its_label(page) -> None:
    first = page.locator("#cases tbody tr[data-label=one]").first
    first.locator(".thumbnail path.prediction").wait_for(state="attached")
    assert first.locator(".thumbnail path").count() == 2
    assert page.locator("#cases tbody tr[data-case=case_11] .thumbnail").count() == 0
    assert page.locator("#cases tbody tr[data-label=two] .thumbnail").count() == 0  # neither mask has it


def test_paper_shows_titles_the_worst_cases_and_no_buttons(page) -> None:
    page.wait_for_selector(".printed:nth-of-type(11)", state="attached")
    page.locator("#theme").click()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator("#cases th button").first.is_visible()
    assert not page.locator("#theme").is_visible()
    assert not page.locator("#search").is_visible()
    assert page.locator(".printed h3").all_inner_texts()[:2] == ["case_02", "case_03"]
    assert page.locator(".printed canvas").first.is_visible()
    assert len(page.pdf(format="A4")) > 10_000
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not page.locator(".printed").first.is_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_any_name_can_be_a_case(browser, report: Report, tmp_path: Path) -> None:
    rows = report.rows.replace({"case_id": {"case_00": "constructor"}, "label": {"two": None}})
    opened = browser.new_page()
    opened.goto(f"file://{write_report(replace(report, rows=rows), tmp_path)}")
    opened.locator("#search").fill("constructor")
    opened.locator("#cases tbody tr").first.click()
    assert opened.locator("#case-title").inner_text() == "constructor"
    assert opened.locator("#label-filter option").all_inner_texts() == ["all", "one"]
    opened.close()


def test_a_case_that_was_not_drawn_says_so(page) -> None:
    page.locator("#search").fill("case_11")
    page.locator("#cases tbody tr").first.click()
    assert "Nothing was drawn" in page.locator("#case-body").inner_text()
    assert page.locator("#scene").count() == 0


def test_charts_follow_what_is_chosen(page) -> None:
    page.wait_for_selector("#box .boxlayer .trace")
    assert page.locator("#box .boxlayer .trace").count() == 2
    page.locator("#metric").select_option("hd95_mm")
    assert page.locator("#definition").inner_text() == "far"
    assert "HD95 [mm]" in page.locator("#box").inner_text()
    assert page.locator("#agreement .scatterlayer .point").count() == 12
    page.locator("#agreement-label").select_option("two")
    assert page.locator("#agreement .scatterlayer .point").count() == 12
    assert page.locator("#curves .scatterlayer .trace").count() == 3  # Dice, its best, and the loss


def test_light_and_dark(page) -> None:
    def background() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    page.locator("#theme").click()
    assert background() != light
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_nothing_is_wider_than_a_phone(page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


@pytest.fixture
def phone(browser, report: Report, tmp_path: Path):
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, offline=True)
    opened = context.new_page()
    opened.goto(f"file://{write_report(report, tmp_path)}")
    opened.wait_for_selector("#box .boxlayer .trace", state="attached")
    yield opened
    context.close()


def test_a_phone_is_told_of_no_keys_and_its_charts_are_tapped(phone) -> None:
    assert not phone.locator("#cases-section .keys").is_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    row = phone.locator("#cases tbody tr[data-case=case_03]").first
    assert row.locator(".below").inner_text().startswith("two")  # there is no room for columns of their own
    assert not row.locator("td.label").is_visible()
    point = phone.locator("#agreement .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    phone.wait_for_selector("#case[open]")
    assert phone.locator("#case-title").inner_text() == "case_00"
    painted(phone)
    assert not phone.locator("#case .keys").is_visible()
    assert phone.evaluate("document.querySelector('#case').scrollWidth") <= 390


def test_ticks_are_round(page) -> None:
    page.wait_for_selector("#curves .xtick text")
    epochs = [float(text) for text in page.locator("#curves .xtick text").all_text_contents()]
    assert epochs == [0, 1, 2]
    dice = [float(text) for text in page.locator("#curves .ytick text").all_text_contents()]
    assert dice == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for span, step in ((3, 1), (12, 2), (47, 10), (400, 50), (401, 100), (1000, 200)):
        assert page.evaluate(f"wholeStep({span})") == step


def test_a_picture_has_no_directions_and_areas_in_pixels(browser, report: Report, tmp_path: Path) -> None:
    grid = Geometry.of_picture(*SHAPE[:2])
    drawn = [Mask(np.ascontiguousarray(mask.array[:, :, 2:3]), grid, LABELS) for mask in (REFERENCE, PREDICTION)]
    picture = draw(*drawn, Volume(IMAGE.array[..., 2:3], grid))
    rows = report.rows.rename(columns=lambda name: name.replace("_ml", "_px2").replace("_mm", "_px"))
    numbers = (Number("dice", "2 tp / ...", "higher"), Number("hd95_px", "far", "lower"))
    flat = replace(report, rows=rows, numbers=numbers, table=("dice", "hd95_px"), pictures={"case_02": picture})
    opened = browser.new_page()
    opened.goto(f"file://{write_report(flat, tmp_path)}")
    opened.wait_for_selector("#agreement .xtitle")
    assert "Areas of" in opened.locator("#agreement-figure").inner_text()
    assert "[px²]" in opened.locator("#agreement").inner_text()
    opened.locator("#cases tbody tr").first.click()
    assert opened.locator("#case .view").count() == 1
    assert opened.locator("#case .view span, #case .view input, [data-hides=cross]").count() == 0
    assert "undefined" not in opened.locator("#case-body").inner_text()
    painted(opened)
    opened.locator("#case .plane").hover()
    opened.mouse.wheel(0, -100)
    opened.wait_for_function("document.querySelector('#case canvas').width === 16")  # 0.8 of 20 columns
    opened.close()


def test_an_old_browser_shows_the_tables_and_says_what_it_lacks(browser, report: Report, tmp_path: Path) -> None:
    complaints: list[str] = []
    opened = browser.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.add_init_script("delete window.DecompressionStream")
    opened.goto(f"file://{write_report(report, tmp_path)}")
    assert opened.locator("#old").is_visible()
    opened.locator("#cases tbody tr").first.click()
    assert opened.locator("#case-title").inner_text() == "case_02"
    assert opened.locator("#case-labels tbody tr").count() == 2
    assert complaints == []
    opened.close()


def test_a_page_of_nothing_opens(browser, tmp_path: Path) -> None:
    complaints: list[str] = []
    opened = browser.new_page()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"file://{write_report(Report('Evaluation', 'nothing'), tmp_path)}")
    assert opened.locator("#title").inner_text() == "nothing"
    assert complaints == []


# What somebody should look at, where no reference says what is right

RANGES = {"one": VolumeRange(20, 0.3, 0.4, 0.5), "two": VolumeRange(20, 1.0, 2.0, 3.0)}


def findings(mask: Mask, probabilities=None) -> list[ReviewRow]:
    return list(review("case", mask, LABELS, RANGES, probabilities))


def test_only_an_unusual_mask_gives_a_reason() -> None:
    # 8 x 8 x 6 voxels of 6 mm3 are 2.304 ml; within 0.1 - 1.5 * 0.2 to 0.5 + 1.5 * 0.2 ml the first is too large
    large, missing = findings(REFERENCE)
    assert (large.status, large.predicted_ml, large.usual_ml, large.parts) == ("check", pytest.approx(2.304), 0.4, 1)
    assert large.reason == "2.3 ml; half of the model's cases have 0.3 to 0.5 ml"
    assert (missing.status, missing.reason) == ("check", "not found; 20 of the model's cases have it")
    swapped = mask_of(np.s_[4:8, 6:10, 4:8], np.s_[10:18, 6:14, 4:10])
    assert [(finding.status, finding.reason) for finding in findings(swapped)] == [("ok", ""), ("ok", "")]


def test_fences_are_tukeys_and_need_cases() -> None:
    usual = VolumeRange.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    assert (usual.q1_ml, usual.median_ml, usual.q3_ml) == (3.0, 5.0, 7.0)
    assert not usual.is_unusual(13.0)
    assert usual.is_unusual(13.1)
    assert not VolumeRange(3, 3.0, 5.0, 7.0).is_unusual(100.0)


def test_an_edge_is_called_by_the_side_of_the_patient() -> None:
    # The first axis runs to the left, the second to the back, the third upwards.
    first, _ = findings(mask_of(np.s_[0:4, 6:10, 12:16]))
    assert "cut off at the right edge; cut off at the superior edge" in first.reason
    through, _ = findings(mask_of(np.s_[6:8, :, 4:6]))
    assert "cut off at the posterior and anterior edge" in through.reason


def test_parts_are_counted() -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[2, 2, 2] = array[3, 3, 3] = array[8, 8, 8] = 1
    assert findings(Mask(array, GEOMETRY, LABELS))[0].parts == 2


def test_the_least_sure_slice_is_found() -> None:
    likely = np.full((*SHAPE, 2), 0.9, np.float32)
    likely[:, :, 7] = 0.6
    first, second = findings(REFERENCE, likely)
    assert (first.least_sure_slice, first.least_confidence) == (7, pytest.approx(0.6))
    assert first.confidence == pytest.approx((5 * 0.9 + 0.6) / 6)
    assert math.isnan(second.confidence)


# From the command line


def test_a_batch_is_reviewed(volseg, dataset: Path, trained_run: Path, tmp_path: Path) -> None:
    patients, masks = tmp_path / "patients", tmp_path / "masks"
    shutil.copytree(dataset / "images", patients)
    (patients / "broken.nii.gz").write_bytes(b"no image")
    words = ("predict", patients, "--model", trained_run, "--output", masks, "--report", "--probabilities")
    assert volseg(*words)[0] == 3
    table = pd.read_csv(masks / "review.csv")
    assert len(table) == 12
    assert table["usual_ml"].notna().all()  # the model remembers its own cases
    assert table["confidence"].between(0.5, 1).all()
    page = (masks / "report.html").read_bytes()
    assert b"broken" in page
    assert str(tmp_path).encode() not in page
    assert volseg("report", masks)[0] == 0
    assert (masks / "report.html").read_bytes() == page
    assert volseg(*words)[0] == 3  # goes on where it was: nothing is segmented, and all is reviewed again
    assert len(pd.read_csv(masks / "review.csv")) == 12
    code, _, err = volseg("evaluate", masks, dataset, "--output", tmp_path / "scores", "--report")
    assert code == 0, err
    assert "masks: model 1" in (tmp_path / "scores" / "about.json").read_text()


def test_a_batch_that_cannot_be_reviewed_whole_has_a_report(
    volseg, dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    words = ("predict", dataset / "images", "--model", trained_run, "--output", masks, "--report")
    assert volseg(*words)[0] == 0
    stored = (masks / "case_1.nii.gz").read_bytes()
    (masks / "case_1.nii.gz").write_bytes(stored[:-200])
    code, out, _ = volseg(*words)  # nothing is segmented again
    assert code == 0
    assert "6 segmented" in out
    table = pd.read_csv(masks / "review.csv", dtype={"label": str}).set_index("case_id")
    assert table.loc["case_1", "reason"].startswith("not reviewed: case_1.nii.gz")
    assert len(table.loc["case_0"]) == 2
    page = (masks / "report.html").read_text(encoding="utf-8")
    assert "predicted without --probabilities" in page
    assert volseg(*words[:-1])[0] == 0  # nothing has changed
    assert (masks / "report.html").exists()
    (masks / "case_2.nii.gz").unlink()
    code, _, err = volseg(*words[:-1])
    assert (code, "report.html of earlier results is removed" in err) == (0, True)
    assert not (masks / "report.html").exists()
    assert not (masks / "review.csv").exists()
    assert "model 1" in (masks / "about.json").read_text()


def test_a_batch_of_dicom_objects_is_reviewed_on_its_images(volseg, trained_run: Path, tmp_path: Path) -> None:
    write_series(make_case(0)[0], tmp_path / "in" / "p1")
    words = ("predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out", "--report")
    assert volseg(*words, "--format", "dicom-seg")[0] == 0
    assert pd.read_csv(tmp_path / "out" / "review.csv")["predicted_ml"].notna().all()
    assert json.loads((tmp_path / "out" / "pictures" / "p1.json").read_text())["image"]
    assert volseg(*words[:5], tmp_path / "meshes", "--report", "--format", "stl")[0] == 0
    (row,) = pd.read_csv(tmp_path / "meshes" / "review.csv").to_dict("records")
    assert row["reason"] == "not reviewed: none of the files that were written is a mask; --format nifti makes one"


def test_fifty_cases_of_twenty_labels_fit_into_a_mail(report: Report) -> None:
    rng = np.random.default_rng(0)
    shape, labels = (150, 120, 90), tuple(Label(n, f"organ_{n}") for n in range(1, 21))
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    masks = []
    for shift in (0, 2):
        array, organs = np.zeros(shape, np.uint8), np.random.default_rng(1)
        for label in labels:
            center, radii = organs.uniform(20, np.subtract(shape, 20)), organs.uniform(8, 25, 3)
            array[(((places - center - shift) / radii) ** 2).sum(axis=-1) < 1] = label.value
        masks.append(Mask(array, Geometry(shape, np.diag([2.0, 2.0, 3.0, 1.0])), labels))
    noise = rng.normal(scale=20, size=shape) + 60.0 * (masks[0].array > 0)
    image = Volume(noise[np.newaxis].astype(np.float32), masks[0].geometry)
    full = draw(*masks, image, _detail(50))
    assert len(full.labels) >= 15
    rows = pd.concat([report.rows] * 42)  # a thousand rows
    page = render(replace(report, rows=rows, pictures={f"case_{n:02}": full for n in range(50)}))
    assert len(page) < 15e6


def test_evaluate_writes_a_report_that_can_be_made_again(volseg, dataset: Path, tmp_path: Path) -> None:
    masks, scores = tmp_path / "masks", tmp_path / "scores"
    shutil.copytree(dataset / "labels", masks)
    code, out, _ = volseg("evaluate", masks, dataset, "--output", scores, "--report")
    assert code == 0
    assert "report.html" in out
    page = (scores / "report.html").read_bytes()
    assert len(list((scores / "pictures").glob("*.json"))) == 6
    assert volseg("report", scores)[0] == 0
    assert (scores / "report.html").read_bytes() == page
    assert b"max of directed" in page


def test_a_report_of_label_maps_alone_says_where_images_come_from(volseg, dataset: Path, tmp_path: Path) -> None:
    masks, scores = tmp_path / "masks", tmp_path / "scores"
    shutil.copytree(dataset / "labels", masks)
    code, _, err = volseg("evaluate", masks, dataset / "labels", "--output", scores, "--report")
    assert code == 0
    assert "shows 6 cases without an image; --images names" in err
    assert json.loads((scores / "pictures" / "case_0.json").read_text())["image"] == ""
    (masks / "case_0.nii.gz").unlink()
    words = ("--output", scores, "--report", "--only-predicted", "--images", dataset / "images")
    assert "--images" not in volseg("evaluate", masks, dataset / "labels", *words)[2]
    assert not (scores / "pictures" / "case_0.json").exists()
    assert json.loads((scores / "pictures" / "case_1.json").read_text())["image"]


def test_images_beside_references_in_folders_of_cases_are_drawn(volseg, dataset: Path, tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "data" / f"p{number}"
        folder.mkdir(parents=True)
        shutil.copy(dataset / "images" / f"case_{number}.nii.gz", folder / "T1.nii.gz")
        shutil.copy(dataset / "labels" / f"case_{number}.nii.gz", folder / "T1_mask.nii.gz")
    masks, scores = tmp_path / "masks", tmp_path / "scores"
    masks.mkdir()
    for number in range(3):
        shutil.copy(dataset / "labels" / f"case_{number}.nii.gz", masks / f"p{number}_T1.nii.gz")
    code, _, err = volseg("evaluate", masks, tmp_path / "data", "--output", scores, "--report")
    assert (code, "without an image" in err) == (0, False)
    assert all(json.loads((scores / "pictures" / f"p{n}.json").read_text())["image"] for n in range(3))


def test_masks_are_drawn_without_an_image_that_cannot_be_read(volseg, dataset: Path, tmp_path: Path) -> None:
    masks, images, scores = tmp_path / "masks", tmp_path / "images", tmp_path / "scores"
    shutil.copytree(dataset / "labels", masks)
    shutil.copytree(dataset / "images", images)
    stored = (images / "case_0.nii.gz").read_bytes()
    (images / "case_0.nii.gz").write_bytes(stored[:-200])
    (images / "case_1.nii.gz").unlink()
    write_volume(IMAGE, images / "case_1.nii.gz")
    words = ("evaluate", masks, dataset / "labels", "--output", scores)
    code, _, err = volseg(*words, "--report", "--images", images)
    assert code == 0
    assert "drawn without its image: case_0" in err
    assert "drawn without its image, which lies on another grid: case_1" in err
    drawn = {file.stem: json.loads(file.read_text())["image"] for file in scores.glob("pictures/*.json")}
    assert [bool(drawn[f"case_{n}"]) for n in range(6)] == [False, False, True, True, True, True]
    assert "report.html of earlier results is removed" in volseg(*words)[2]  # of other masks, for all it knows
    assert not (scores / "report.html").exists()
    assert not list(scores.glob("pictures/*.json"))


def test_a_run_has_a_report(volseg, trained_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    assert volseg("report", run)[0] == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "validation Dice" in page
    assert "torch" in page
    assert str(tmp_path) not in page
    (run / "model.pt").unlink()
    assert volseg("report", run)[0] == 0
    assert '"history":[{' in (run / "report.html").read_text(encoding="utf-8")


def test_what_holds_no_results_is_said(volseg, tmp_path: Path) -> None:
    code, _, err = volseg("report", tmp_path)
    assert code == 2
    assert "holds no results to report" in err


def test_a_damaged_picture_is_named(volseg, dataset: Path, tmp_path: Path) -> None:
    from volseg.reporting.folder import report_folder

    masks, scores = tmp_path / "masks", tmp_path / "scores"
    shutil.copytree(dataset / "labels", masks)
    volseg("evaluate", masks, dataset, "--output", scores, "--report")
    (scores / "pictures" / "case_0.json").write_text("{}")
    with pytest.raises(DataError, match=r"case_0\.json is damaged"):
        report_folder(scores)
