"""A real server for tests: `volseg serve` in a process of its own, on free ports of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml
from ports import free_port

_SECONDS_TO_START, _SECONDS_TO_END = 180, 60


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: Of the web side, such as http://127.0.0.1:8000.
        dicom_port: Where it receives DICOM objects, called VOLSEG.
        store: Its folder.
        process: It.
        log: What it says.
    """

    url: str
    dicom_port: int
    store: Path
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> Any:
        """Return what it answers to a program without a user, from JSON."""
        with urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any = None) -> Any:
        """Ask for a change as the page does, where nobody has to log in."""
        headers = {"X-CSRF-Token": self.get("/api/session")["csrf"], "Content-Type": "application/json"}
        with urlopen(Request(self.url + path, json.dumps(body).encode(), headers), timeout=60) as answer:
            return json.load(answer)


@contextmanager
def running_server(
    folder: Path, models: Mapping[str, Path], config: Mapping[str, Any] | None = None, *, ready: bool = True
) -> Iterator[Server]:
    """Start a server, and end it afterwards.

    Args:
        folder: Where its store, its configuration and its log are; an existing store is used again.
        models: Name -> run.
        config: What else the YAML file states; ports that it states are kept.
        ready: Whether to wait until every process of it works, and not only the web side.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tree = dict(config or {})
    tree["models"] = {name: str(path) for name, path in models.items()}
    tree.setdefault("store", str(folder / "store"))
    tree["web"] = {"port": free_port(), **tree.get("web", {})}
    # A study is complete soon after its last object, so that tests need not wait a minute for that.
    tree["dicom"] = {"port": free_port(), "quiet_seconds": 1.0, **tree.get("dicom", {})}
    path, log = folder / "server.yaml", folder / "server.log"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [sys.executable, "-m", "volseg", "serve", "--config", str(path)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
        )
    scheme = "https" if tree["web"].get("tls") else "http"
    server = Server(
        f"{scheme}://127.0.0.1:{tree['web']['port']}", tree["dicom"]["port"], Path(tree["store"]), process, log
    )
    try:
        wait_for(lambda: _works(server, ready), _SECONDS_TO_START, "the server did not start", log)
        yield server
    finally:
        process.terminate()  # SIGINT is ignored by what a shell has started in the background
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for(is_so: Callable[[], Any], seconds: float, complaint: str, log: Path | None = None) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := is_so()):
        said = log.read_text(encoding="utf-8", errors="replace") if log else ""
        assert time.monotonic() < end, f"{complaint}\n{said}"
        time.sleep(0.1)
    return found


def _works(server: Server, ready: bool) -> bool:
    said = server.log.read_text(encoding="utf-8", errors="replace")
    assert server.process.poll() is None, said
    try:
        with urlopen(f"{server.url}/healthz", timeout=5) as answer:
            is_well = answer.status == 200
    except (URLError, ConnectionError, TimeoutError):
        return False
    # The last line that the command prints, once all processes have said that they are ready.
    return is_well and (not ready or "next:" in said)
