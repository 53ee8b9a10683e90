from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from volseg.cases.download import download
from volseg.errors import ConfigError, DataError, OutputError

TASK = "Task99_Pebble"
FILES = {
    f"{TASK}/dataset.json": b'{"name": "Pebble"}',
    f"{TASK}/imagesTr/one.nii.gz": bytes(range(256)) * 12_000,  # 3 MB: more than one read
    f"{TASK}/imagesTr/._one.nii.gz": b"a Mac's notes on the file",
    f"{TASK}/labelsTr/one.nii.gz": b"label",
}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "pebble.tar", FILES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


class Steps(list[tuple[str, int, int]]):
    """Listens to progress."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.append((stage, done, total))


class Server(ThreadingHTTPServer):
    """Serves one body at every path, on the loopback interface."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.ranges = True
        self.breaks_after: int | None = None
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/pebble.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body, asked = self.server.body, self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.breaks_after])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name of the base class
        pass


@pytest.fixture
def server(archive: Path) -> Iterator[Server]:
    with Server(archive.read_bytes()) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def assert_unpacked(folder: Path) -> None:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if "/._" not in name}


def test_an_archive_becomes_a_folder(archive: Path, folder: Path):
    steps = Steps()
    result = download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive), progress=steps)
    assert result == folder / TASK
    assert_unpacked(folder)
    size = archive.stat().st_size
    assert steps[-3:] == [("download", size, size), ("extract", 0, 1), ("extract", 1, 1)]
    assert len(steps) > 3
    assert [step[1] for step in steps[:-2]] == sorted(step[1] for step in steps[:-2])


@pytest.mark.parametrize("name", ["pebble.tar.gz", "a name with spaces & ü.tar"])
def test_compressed_archives_and_odd_names(tmp_path: Path, folder: Path, name: str):
    archive = write_archive(tmp_path / name, FILES)
    download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive).upper())
    assert_unpacked(folder)


def test_an_archive_without_a_folder_of_its_own(tmp_path: Path, folder: Path):
    archive = write_archive(tmp_path / "flat.tar", {"dataset.json": b"{}", "imagesTr/one.nii": b"1"})
    assert names(download(TASK, folder, url=archive.as_uri())) == {"dataset.json", "imagesTr"}


def test_what_is_there_is_not_fetched_again(archive: Path, folder: Path):
    first = download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive))
    archive.unlink()
    steps = Steps()
    assert download(TASK, folder, url=archive.as_uri(), md5="0" * 32, progress=steps) == first
    assert steps == []


def test_a_partial_file_is_resumed(archive: Path, folder: Path):
    folder.mkdir()
    whole = archive.read_bytes()
    (folder / f".volseg-{TASK}.tar.part").write_bytes(whole[:2_000_000])
    steps = Steps()
    download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive), progress=steps)
    assert_unpacked(folder)
    assert steps[0][1] > 2_000_000


def test_a_partial_file_of_something_else_fails_and_goes(archive: Path, folder: Path):
    folder.mkdir()
    (folder / f".volseg-{TASK}.tar.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="checksum"):
        download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive))
    assert names(folder) == set()
    download(TASK, folder, url=archive.as_uri(), md5=md5_of(archive))
    assert_unpacked(folder)


def test_without_a_checksum_a_partial_file_is_not_trusted(archive: Path, folder: Path):
    folder.mkdir()
    (folder / f".volseg-{TASK}.tar.part").write_bytes(b"x" * 1000)
    download(TASK, folder, url=archive.as_uri())
    assert_unpacked(folder)


def test_a_wrong_checksum_is_an_error(archive: Path, folder: Path):
    with pytest.raises(DataError, match=f"{md5_of(archive)}, not {'0' * 32}") as caught:
        download(TASK, folder, url=archive.as_uri(), md5="0" * 32)
    assert caught.value.hint
    assert names(folder) == set()


def test_a_listed_task_is_checked_against_the_list(archive: Path, folder: Path):
    with pytest.raises(DataError, match="not 9d24dba78a72977dbd1d2e110310f31b"):
        download("Task04_Hippocampus", folder, url=archive.as_uri())


@pytest.mark.parametrize("escape", ["../escaped.txt", f"{TASK}/../../escaped.txt"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, folder: Path, escape: str):
    archive = write_archive(tmp_path / "evil.tar", {**FILES, escape: b"gotcha"})
    with pytest.raises(DataError, match="escaped"):
        download(TASK, folder, url=archive.as_uri())
    assert names(folder) == set()
    assert not list(tmp_path.rglob("escaped.txt"))


def test_links_that_leave_the_folder_are_refused(tmp_path: Path, folder: Path):
    archive = write_archive(tmp_path / "evil.tar", FILES)
    with tarfile.open(archive, "a") as tar:
        link = tarfile.TarInfo(f"{TASK}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../elsewhere"
        tar.addfile(link)
    with pytest.raises(DataError, match="outside"):
        download(TASK, folder, url=archive.as_uri())
    assert names(folder) == set()


@pytest.mark.parametrize("name", ["cut.tar", "cut.tar.gz"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, folder: Path, name: str):
    archive = write_archive(tmp_path / name, FILES)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        download(TASK, folder, url=archive.as_uri())
    assert names(folder) == set()


def test_what_is_no_archive_is_refused(tmp_path: Path, folder: Path):
    page = tmp_path / "page.html"
    page.write_text("<html>Sign in first</html>")
    with pytest.raises(DataError, match="cannot be unpacked"):
        download(TASK, folder, url=page.as_uri())


def test_over_http(archive: Path, folder: Path, server: Server):
    download(TASK, folder, url=server.url, md5=md5_of(archive))
    assert_unpacked(folder)
    assert server.asked == [None]


def test_a_broken_connection_is_resumed(archive: Path, folder: Path, server: Server):
    server.breaks_after = 1_500_000
    with pytest.raises(DataError, match=f"1500000 of {archive.stat().st_size} bytes") as caught:
        download(TASK, folder, url=server.url, md5=md5_of(archive))
    assert "run the same command again" in caught.value.hint
    assert (folder / f".volseg-{TASK}.tar.part").stat().st_size == 1_500_000
    server.breaks_after = None
    download(TASK, folder, url=server.url, md5=md5_of(archive))
    assert_unpacked(folder)
    assert server.asked == [None, "bytes=1500000-"]


def test_a_server_without_ranges_starts_anew(archive: Path, folder: Path, server: Server):
    folder.mkdir()
    (folder / f".volseg-{TASK}.tar.part").write_bytes(archive.read_bytes()[:1000])
    server.ranges = False
    download(TASK, folder, url=server.url, md5=md5_of(archive))
    assert_unpacked(folder)


def test_a_whole_partial_file_needs_no_more(archive: Path, folder: Path, server: Server):
    folder.mkdir()
    (folder / f".volseg-{TASK}.tar.part").write_bytes(archive.read_bytes())
    download(TASK, folder, url=server.url, md5=md5_of(archive))
    assert_unpacked(folder)


def test_no_server_is_an_error_with_a_hint(archive: Path, folder: Path):
    with Server(b"") as gone:
        url = gone.url
    with pytest.raises(DataError, match="refused") as caught:
        download(TASK, folder, url=url, md5=md5_of(archive))
    assert "connection" in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path, folder: Path):
    with pytest.raises(DataError, match="No such file"):
        download(TASK, folder, url=(tmp_path / "absent.tar").as_uri())


def test_an_unknown_task_lists_those_there_are(folder: Path):
    with pytest.raises(ConfigError, match="Task04_Hipocampus") as caught:
        download("Task04_Hipocampus", folder)
    assert "Task04_Hippocampus" in caught.value.hint
    assert "Task10_Colon" in caught.value.hint


@pytest.mark.parametrize("url", ["ftp://example.org/a.tar", "/data/a.tar", "data:text/plain,x"])
def test_other_addresses_are_refused(folder: Path, url: str):
    with pytest.raises(ConfigError, match="cannot download"):
        download(TASK, folder, url=url)


@pytest.mark.parametrize("task", ["", "..", "../x", "a/b", "/abs", "a\\b"])
def test_a_task_is_a_plain_name(archive: Path, folder: Path, task: str):
    with pytest.raises(ConfigError, match="name of a folder"):
        download(task, folder, url=archive.as_uri())


def test_a_folder_that_cannot_be_made(archive: Path, folder: Path):
    folder.write_text("a file")
    with pytest.raises(OutputError):
        download(TASK, folder, url=archive.as_uri())
