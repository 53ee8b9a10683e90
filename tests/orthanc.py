"""A real archive for tests: Orthanc on this machine, spoken to as clinical programs do, by DIMSE and DICOMweb."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from ports import free_port

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: Where programs are that are not on the path: those of the system, and those that pip installed.
_FOLDERS = f"/usr/sbin{os.pathsep}{Path(sys.executable).parent}"
_SECONDS_TO_START = 20
#: Any transfer syntax: objects are wanted as they are kept.
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True)
class Orthanc:
    """A running archive.

    Attributes:
        http_port: Where it speaks REST and DICOMweb.
        dicom_port: Where it speaks DIMSE.
        log: What it says.
    """

    http_port: int
    dicom_port: int
    log: Path

    def store(self, paths: Sequence[Path]) -> None:
        """C-STORE, each object as it is. No UID checks: dcmsend of 2022 does not know the class of label maps."""
        options = ["--no-uid-checks", "--decompress-never", "--verbose"]
        command = [tool("dcmsend"), *options, "127.0.0.1", str(self.dicom_port), *paths]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        said = result.stdout + result.stderr
        assert result.returncode == 0, said
        assert re.findall(r"with status SUCCESS *: (\d+)", said) == [str(len(paths))], said

    def stow(self, paths: Sequence[Path]) -> None:
        """STOW-RS (PS3.18 section 10.5)."""
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + path.read_bytes() + b"\r\n" for path in paths) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
        answer = json.loads(self.request("dicom-web/studies", body, headers))
        assert len(answer["00081199"]["Value"]) == len(paths), answer  # ReferencedSOPSequence
        assert not answer.get("00081198", {}).get("Value"), answer  # FailedSOPSequence

    def find(self, level: str, **match: str) -> list[dict[str, Any]]:
        """QIDO-RS (PS3.18 section 10.6): what matches, as DICOM JSON."""
        answer = self.request(f"dicom-web/{level}?{urlencode(match)}", headers={"Accept": "application/dicom+json"})
        return list(json.loads(answer))

    def retrieve(self, study: str, series: str, instance: str) -> bytes:
        """WADO-RS (PS3.18 section 10.4): the one part of the answer, a DICOM file."""
        place = f"dicom-web/studies/{study}/series/{series}/instances/{instance}"
        answer = self.request(place, headers={"Accept": _AS_STORED})
        boundary = answer[: answer.index(b"\r\n")]
        (part,) = answer.removeprefix(boundary).removesuffix(b"\r\n" + boundary + b"--\r\n").split(boundary)
        return part.partition(b"\r\n\r\n")[2]

    def file(self, instance: str) -> bytes:
        """The file of an instance as Orthanc keeps it."""
        (place,) = json.loads(self.request("tools/lookup", instance.encode()))
        return self.request(place["Path"].removeprefix("/") + "/file")

    def clear(self) -> None:
        """Forget everything."""
        for study in json.loads(self.request("studies")):
            self.request(f"studies/{study}", method="DELETE")

    def request(
        self, place: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> bytes:
        """What the archive answers; an error status is an error."""
        request = Request(f"http://127.0.0.1:{self.http_port}/{place}", body, headers or {}, method=method)
        with urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


#: Sends whatever arrives on, as archives route what scanners send.
_ROUTING = "function OnStoredInstance(id, tags, metadata) SendToModality(id, 'volseg') end"


@contextmanager
def running(folder: Path, routes_to: int | None = None) -> Iterator[Orthanc]:
    """Start an archive that keeps its files in a folder, and end it.

    Args:
        folder: The folder.
        routes_to: Port of a DICOM node of this machine that whatever arrives is sent on to.
    """
    program = tool("Orthanc")
    if not _PLUGIN.is_file():
        pytest.skip("the DICOMweb plug-in of Orthanc is not installed")
    orthanc = Orthanc(free_port(), free_port(), folder / "orthanc.log")
    settings = _configuration(orthanc, folder)
    if routes_to is not None:
        (folder / "route.lua").write_text(_ROUTING)
        settings |= {"LuaScripts": ["route.lua"], "DicomModalities": {"volseg": ["VOLSEG", "127.0.0.1", routes_to]}}
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (
        orthanc.log.open("w") as log,
        subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log) as it,
    ):
        try:
            _wait(orthanc, it)
            yield orthanc
        finally:
            it.terminate()


def tool(name: str) -> str:
    """Where a program is, or the test is skipped."""
    path = shutil.which(name) or shutil.which(name, path=_FOLDERS)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def _configuration(orthanc: Orthanc, folder: Path) -> dict[str, Any]:
    return {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True},
        "HttpPort": orthanc.http_port,
        "DicomPort": orthanc.dicom_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "UnknownSopClassAccepted": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DefaultEncoding": "Utf8",  # of its answers, in which names of any language have room
        "StableAge": 1,
    }


def _wait(orthanc: Orthanc, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            orthanc.request("dicom-web/studies")
        except URLError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"Orthanc did not start: {orthanc.log.read_text()}")
