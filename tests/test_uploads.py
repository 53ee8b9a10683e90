"""What people upload: images, archives of them, and what is made to do damage."""

from __future__ import annotations

import gzip
import io
import os
import random
import socket
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import make_case, mounted_disk
from pydicom.uid import DeflatedExplicitVRLittleEndian
from web_side import Client, WebSide, form, serving

from volseg.io import write_volume
from volseg.io.dicom import write_series
from volseg.serving.store.jobs import Job, Result, add_job, claim_job, finish_job

SECRET = b"S" * 100_000


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSide]:
    """A server for whoever sits at the machine, with uploads of up to 8 MB that unpack to 32."""
    folder = tmp_path_factory.mktemp("uploads")
    (folder / "secret.raw").write_bytes(SECRET)
    with serving(folder / "store", {"largest_upload_gb": 0.008}) as running:
        yield running


@pytest.fixture
def page(side: WebSide) -> Client:
    return side.client.page()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small NIfTI file."""
    path = tmp_path_factory.mktemp("image") / "image.nii.gz"
    write_volume(make_case(0)[0], path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def slice_(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A slice of a series."""
    folder = tmp_path_factory.mktemp("series")
    write_series(make_case(0)[0], folder, modality="MR")
    return min(folder.glob("*")).read_bytes()


@pytest.fixture
def unchanged(side: WebSide) -> Iterator[None]:
    """Nothing is kept of what is refused: no file, no row."""
    before = everything(side)
    yield
    assert everything(side) == before


def everything(side: WebSide) -> tuple[set[Path], list[str]]:
    files = {path for path in side.store.folder.parent.rglob("*") if "store.sqlite" not in path.name}
    return files, [row["id"] for row in side.store.rows("SELECT id FROM cases ORDER BY id")]


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return made.getvalue()


def refusal(page: Client, name: str, content: bytes) -> str:
    answer = page.upload([(name, content)])
    assert answer.status == 400, answer.body
    return str(answer.json["detail"])


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../../x.nii.gz",
        "C:\\evil.nii.gz",
        "/etc/cron.d/x.nii.gz",
        "..\\..\\x.nii.gz",
        "a\0b.nii.gz",
        "x" * 3000 + ".nii.gz",
    ],
)
def test_a_file_name_never_becomes_a_path(side: WebSide, page: Client, image: bytes, name: str) -> None:
    answer = page.upload([(name, image)])
    assert answer.status == 200, answer.body
    (case_id,) = answer.json["case_ids"]
    assert [path.name for path in side.store.case_folder(case_id).iterdir()] == ["image.nii.gz"]
    assert not list(side.store.folder.parent.glob("*.nii*"))
    assert not list(side.store.folder.glob("*.nii*"))


def test_a_download_is_not_called_what_an_upload_was(page: Client, image: bytes) -> None:
    assert page.upload([('x"\r\nSet-Cookie: a=b;.nii.gz', image)]).status == 400
    (case_id,) = page.upload([("x%22%0D%0ASet-Cookie: a=b; filename=evil.nii.gz", image)]).json["case_ids"]
    answer = page.get(f"/api/cases/{case_id}/image.nii.gz")
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Content-Disposition"] == 'attachment; filename="image.nii.gz"'


@pytest.mark.parametrize("name", ["../../../evil.nii.gz", "/evil.nii.gz", "C:\\evil.nii.gz", "a/../../../evil.nii.gz"])
def test_an_entry_of_an_archive_never_becomes_a_path(side: WebSide, page: Client, image: bytes, name: str) -> None:
    assert page.upload([("all.zip", archive((name, image)))]).status == 200
    assert not list(side.store.folder.parent.rglob("evil*"))
    assert not Path("/evil.nii.gz").exists()


def test_a_link_in_an_archive_is_not_followed(side: WebSide, page: Client) -> None:
    link = zipfile.ZipInfo("link.nii.gz")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    (case_id,) = page.upload([("all.zip", archive((link, b"/etc/passwd")))]).json["case_ids"]
    (kept,) = side.store.case_folder(case_id).iterdir()
    assert not kept.is_symlink()
    assert kept.read_bytes() == b"/etc/passwd"
    assert page.get(f"/api/cases/{case_id}/image.nii.gz").status == 400


@pytest.mark.parametrize("uid", ["../../../etc/evil", "/etc/evil", "1.2\\3", "..", "", "1" * 5000, "1.2\n3", "è"])
def test_a_uid_never_becomes_a_path(side: WebSide, page: Client, slice_: bytes, uid: str) -> None:
    dataset = pydicom.dcmread(io.BytesIO(slice_))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        dataset[keyword]._value = uid
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
        dataset.save_as(file)
    answer = page.upload([("all.zip", archive(("../../DICOM/1", file.getvalue()), ("DICOMDIR", b"../../x")))])
    assert answer.status in {200, 400}, answer.body
    assert not list(side.store.folder.parent.rglob("*evil*"))
    for case_id in answer.json.get("case_ids", []):
        assert {path.parent for path in side.store.case_folder(case_id).rglob("*.dcm")} == {
            side.store.case_folder(case_id)
        }
        assert page.get(f"/api/cases/{case_id}").status == 200


# Headers that name other files

_NRRD = (
    b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 10 10 10\nspace: left-posterior-superior\nencoding: raw\n"
    b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\n%b\n%b"
)
_META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nOffset = 0 0 0\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 1 1 1\nDimSize = 10 10 10\nElementType = MET_UCHAR\n%b%b"
)
#: Lines that let ITK read another file, in plain sight or where a careless reader does not look.
_HIDDEN = {
    "plain.nrrd": _NRRD % (b"data file: %b\n", b""),
    "capital.nhdr": _NRRD % (b"Data File: %b\n", b""),
    "after a carriage return.nrrd": _NRRD % (b"# x\rdata file: %b\n", b"L" * 1000),
    "pair.nrrd": _NRRD % (b"key:=value\rdatafile: %b\n", b"L" * 1000),
    "list.nrrd": _NRRD % (b"data file: LIST\n%b\n", b""),
    "plain.mha": _META % (b"ElementDataFile = %b\n", b""),
    "list.mhd": _META % (b"ElementDataFile = LIST\n%b\n", b""),
    "comment.mha": _META % (b"Comment = ElementDataFile = LOCAL\nElementDataFile = %b\n", b"L" * 1000),
    "after a carriage return.mha": _META % (b"Comment = x\rElementDataFile = %b\n", b"ElementDataFile = LOCAL\n"),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", _HIDDEN)
@pytest.mark.parametrize("target", ["../../../secret.raw", "{folder}/secret.raw", "../../store.sqlite"])
def test_a_header_cannot_make_the_server_read_another_file(side: WebSide, page: Client, name: str, target: str) -> None:
    content = _HIDDEN[name].replace(b"%b", target.format(folder=side.store.folder.parent).encode())
    assert "has its voxels in another file" in refusal(page, name, content)


@pytest.mark.parametrize(("head", "name"), [(_NRRD, "own.nrrd"), (_META, "own.mha")])
def test_a_header_with_its_voxels_behind_it_is_kept(page: Client, head: bytes, name: str) -> None:
    own = b"" if name.endswith("nrrd") else b"ElementDataFile = LOCAL\n"
    answer = page.upload([(name, head % (own, b"L" * 1000))])
    assert answer.status == 200, answer.body
    shown = page.get(f"/api/cases/{answer.json['case_ids'][0]}/image.nii.gz")
    assert gzip.decompress(shown.body).endswith(np.full(1000, ord("L"), np.float32).tobytes())


# Bombs


@pytest.mark.usefixtures("unchanged")
def test_an_archive_that_unpacks_to_too_much_is_refused(page: Client) -> None:
    bomb = archive(("a.nii", bytes(33_000_000)))
    assert len(bomb) < 40_000
    assert "more than is allowed" in refusal(page, "bomb.zip", bomb)


@pytest.mark.usefixtures("unchanged")
def test_entries_count_together(page: Client) -> None:
    assert "more than is allowed" in refusal(
        page, "bomb.zip", archive(*((f"{number}.nii", bytes(4_000_000)) for number in range(9)))
    )


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("stated", [0, 10, 2**31])
def test_an_archive_that_lies_about_its_sizes_is_refused(page: Client, stated: int) -> None:
    bomb = bytearray(archive(("a.nii", bytes(33_000_000))))
    directory = bomb.index(b"PK\1\2")
    for place in (22, directory + 24):  # the size when unpacked: PKWARE APPNOTE sections 4.3.7 and 4.3.12
        struct.pack_into("<I", bomb, place, stated)
    assert refusal(page, "bomb.zip", bytes(bomb))


@pytest.mark.usefixtures("unchanged")
def test_an_archive_in_an_archive_is_not_unpacked(page: Client, image: bytes) -> None:
    inner = archive(("a.nii.gz", image))
    assert "inner.zip is no image" in refusal(page, "outer.zip", archive(("inner.zip", inner)))


@pytest.mark.usefixtures("unchanged")
def test_an_archive_whose_entries_overlap_is_refused(page: Client) -> None:
    packed = archive(("a.nii", bytes(1_000_000)))
    directory, end = packed.index(b"PK\1\2"), packed.index(b"PK\5\6")
    entry, count = packed[directory:end], 200
    tail = bytearray(packed[end:])
    struct.pack_into("<HHI", tail, 8, count, count, len(entry) * count)
    assert refusal(page, "overlapping.zip", packed[:directory] + entry * count + bytes(tail))


@pytest.mark.usefixtures("unchanged")
def test_an_archive_of_too_many_files_is_refused_before_they_are_listed(
    page: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.serving.uploads._LONGEST_LIST", 2**20)
    entry = archive(("a.nii", b""))
    directory, end = entry.index(b"PK\1\2"), entry.index(b"PK\5\6")
    listed = entry[directory:end] * 100_000
    tail = bytearray(entry[end:])
    struct.pack_into("<HHI", tail, 8, 1, 1, len(listed))  # it says that there is one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", None)
        assert "more than 50000 files" in refusal(page, "many.zip", entry[:directory] + listed + bytes(tail))


@pytest.mark.usefixtures("unchanged")
def test_a_deflated_object_that_unpacks_to_too_much_is_refused(
    page: Client, slice_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volseg.serving.dicom.objects._LARGEST_INFLATED", 2**24)
    dataset = pydicom.dcmread(io.BytesIO(slice_))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.add_new(0x00091010, "OB", bytes(2**25))
    file = io.BytesIO()
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    assert len(file.getvalue()) < 2**20
    assert "unpacks to more than" in refusal(page, "bomb.dcm", file.getvalue())


def test_an_image_of_absurd_size_does_not_end_the_server(page: Client, image: bytes) -> None:
    head = bytearray(gzip.decompress(image))
    struct.pack_into("<3h", head, 42, 30000, 30000, 30000)
    (case_id,) = page.upload([("huge.nii", bytes(head))]).json["case_ids"]
    answer = page.get(f"/api/cases/{case_id}/image.nii.gz")
    assert answer.status == 400
    assert "do not fit into memory" in answer.json["detail"]


# What is no image


@pytest.mark.usefixtures("unchanged")
def test_what_is_no_image_is_refused(page: Client, image: bytes) -> None:
    assert "no image" in refusal(page, "model.pt", b"PK\3\4")
    assert "no image" in refusal(page, "page.html", b"<script>alert(1)</script>")
    assert "does not state its study" in refusal(page, "short.dcm", bytes(128) + b"DICM" + b"\1\2\3")
    assert "no image" in refusal(page, "empty.zip", archive())
    assert "cannot be unpacked" in refusal(page, "no.zip", b"PK\3\4 and no more")
    assert page.post("/api/cases", form([], {})[1], Content_Type=form([], {})[0]).status == 400


def test_what_comes_along_with_images_is_left_out_and_named(side: WebSide, page: Client, image: bytes) -> None:
    packed = archive(("1.nii.gz", image), ("viewer.exe", b"MZ"), ("2.nii.gz", image + b"\0"), ("README", b"Hello"))
    answer = page.upload([("disc.zip", packed)]).json
    assert len(answer["case_ids"]) == 2
    assert [reason.split(" is ")[0] for reason in answer["left_out"]] == ["viewer.exe", "README"]
    assert not list(side.store.folder.rglob("*viewer*"))


def test_two_images_of_one_name_are_two_cases_and_one_image_is_one(page: Client, image: bytes) -> None:
    (first,) = page.upload([("C:\\scans\\scan.nii.gz", image)]).json["case_ids"]
    (again,) = page.upload([("scan.nii.gz", image)]).json["case_ids"]
    (other,) = page.upload([("scan.nii.gz", image + b"\0")]).json["case_ids"]
    assert first == again != other
    titles = {row["id"]: row["title"] for row in page.get("/api/cases").json}
    assert (titles[first], titles[other]) == ("scan.nii.gz", "2 scan.nii.gz")


def test_the_server_says_nothing_of_where_its_store_is(side: WebSide, page: Client) -> None:
    (case_id,) = page.upload([("broken.nii", b"\0" * 400)]).json["case_ids"]
    answer = page.get(f"/api/cases/{case_id}/image.nii.gz")
    assert answer.status == 400
    assert str(side.store.folder) not in answer.json["detail"]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_archives_and_objects_are_refused_in_a_sentence(
    page: Client, image: bytes, slice_: bytes, seed: int
) -> None:
    packed = archive(("a/b.nii.gz", image[:2000]), ("c", slice_[:3000]))
    more = archive(("c.nii", image[:2000]), kind=zipfile.ZIP_LZMA), archive(("d.nii", image), kind=zipfile.ZIP_BZIP2)
    chance = random.Random(seed)
    for number in range(40):
        name, content = chance.choice([("x.zip", packed), ("x.zip", more[0]), ("x.zip", more[1]), ("x", slice_[:3000])])
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            low = max(0, len(damaged) - 150) if chance.random() < 0.3 else 0
            damaged[chance.randrange(low, len(damaged))] = chance.choice([0, 255, chance.randrange(256)])
        answer = page.upload(
            [(name, bytes(damaged[: chance.randrange(200, len(damaged))] if number % 9 == 0 else damaged))]
        )
        assert answer.status in {200, 400}, (name, answer.body)
    assert all(page.get(f"/api/cases/{row['id']}").status == 200 for row in page.get("/api/cases").json)


# Transport


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_is_cut_off_leaves_nothing(side: WebSide, page: Client, image: bytes) -> None:
    kind, body = form([("half.nii.gz", image * 200)], {})
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(request_head(page, kind, len(body)) + body[: len(body) // 2])
        time.sleep(0.3)
    time.sleep(0.3)
    assert page.get("/healthz").status == 200


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(page: Client) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(request_head(page, "multipart/form-data; boundary=x", 8_000_001))
        assert connection.recv(2000).startswith(b"HTTP/1.1 413")


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_does_not_say_how_long_it_is_is_refused(page: Client) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        head = request_head(page, "multipart/form-data; boundary=x", 0)
        connection.sendall(head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        assert connection.recv(2000).startswith(b"HTTP/1.1 411")


@pytest.mark.usefixtures("unchanged")
def test_a_form_with_too_many_fields_is_refused(page: Client) -> None:
    kind, body = form([], {f"field{number}": "x" for number in range(5000)})
    assert page.post("/api/cases", body, Content_Type=kind).status == 400


def request_head(page: Client, kind: str, length: int) -> bytes:
    lines = [
        "POST /api/cases HTTP/1.1",
        f"Host: 127.0.0.1:{page.port}",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in page.headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("pack", [lambda content: content, lambda content: archive(("big.nii", content))])
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    with mounted_disk(tmp_path / "disk", "4m") as disk, serving(disk / "store") as side:
        page = side.client.page()
        page.get("/api/cases")
        name = "big.nii" if pack(b"") == b"" else "big.zip"
        # What is announced fits, but somebody else fills the disk meanwhile.
        content = pack(os.urandom(1_200_000))
        filler = disk / "filler"
        filler.write_bytes(bytes(1_200_000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("volseg.serving.store.Store.free_bytes", 10**9)
            answer = page.upload([(name, content), ("big2.nii", content)])
        assert answer.status == 507, answer.body
        assert not list((side.store.folder / "cases").iterdir())
        assert not list(side.store.work.iterdir())
        filler.unlink()
        assert page.upload([("small.nii", b"\0" * 400)]).status == 200


def test_the_work_list_shows_the_volumes_of_one_mask_and_counts_several(
    side: WebSide, page: Client, image: bytes
) -> None:
    ids = page.upload([("one.nii.gz", image)]).json["case_ids"] + page.upload([("two.nii.gz", image)]).json["case_ids"]
    labels = '[{"value": 1, "name": "ball", "color": "#ff0000", "volume_ml": 1.5}]'
    for case_id, volumes in zip(ids, (["arterial"], ["arterial", "venous"]), strict=True):
        add_job(side.store, Job(case_id, "ball", ("nifti",)))
        job = claim_job(side.store)
        assert job is not None
        finish_job(
            side.store,
            job,
            [
                Result(volume, labels, "", 1.0, kind, f"{volume}.{kind}")
                for volume in volumes
                for kind in ("nifti", "nrrd")
            ],
        )
    shown = {row["id"]: row for row in page.get("/api/cases").json}
    assert [shown[each]["segmented"] for each in ids] == [1, 2]
    assert [[label["volume_ml"] for label in shown[each]["labels"]] for each in ids] == [[1.5], []]
