"""How long a DICOM node takes to receive a study of many small objects: volseg beside DCMTK's storescp.

    python benchmarks/receive.py [--objects 2000] [--rounds 3]

Both are sent the same objects by dcmsend, by turns. volseg writes, flushes to the disk and notes each object before it
answers; storescp writes, and leaves it to the system when the disk gets it. What flushing costs is measured beside
them. TCP_NODELAY is set for DCMTK's programs, which otherwise wait 40 ms for every answer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from volseg import Geometry, Volume
from volseg.io.dicom import write_series
from volseg.serving import read_server_config
from volseg.serving.dicom.receiver import Receiver
from volseg.serving.store import open_store
from volseg.system import flush

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def dcmtk(name: str) -> str:
    """Return where a program of DCMTK is; pynetdicom installs others of the same names."""
    path = shutil.which(name, path="/usr/bin:/usr/local/bin")
    if path is None:
        sys.exit(f"{name} is not installed (Debian package: dcmtk)")
    return path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def seconds_to_send(port: int, folder: Path) -> float:
    """Send a folder, and return how long that took."""
    began = time.perf_counter()
    subprocess.run([dcmtk("dcmsend"), "127.0.0.1", str(port), "+sd", folder], env=ENVIRONMENT, check=True)
    return time.perf_counter() - began


def by_volseg(folder: Path, target: Path) -> float:
    """Return how long volseg takes to receive a folder."""
    port, stop, listens = free_port(), threading.Event(), threading.Event()
    tree = {"models": {"none": "none"}, "store": target, "dicom": {"port": port}, "keep": {"reserve_gb": 0}}
    config = read_server_config(None, tree)
    receiver = Receiver(open_store(config.store), config)
    thread = threading.Thread(target=receiver.run, args=(stop, lambda _: listens.set()))
    thread.start()
    listens.wait()
    try:
        return seconds_to_send(port, folder)
    finally:
        stop.set()
        thread.join()


def by_storescp(folder: Path, target: Path) -> float:
    """Return how long storescp takes to receive a folder."""
    port = free_port()
    target.mkdir()
    with subprocess.Popen([dcmtk("storescp"), "-od", target, str(port)], env=ENVIRONMENT) as scp:
        time.sleep(1)
        try:
            return seconds_to_send(port, folder)
        finally:
            scp.terminate()


def flushing(folder: Path, target: Path) -> float:
    """Return how long the disk takes to flush the files of a folder and their names, one by one, as volseg does it."""
    contents = [path.read_bytes() for path in folder.iterdir()]
    target.mkdir()
    seconds = 0.0
    for number, content in enumerate(contents):
        path = target / str(number)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
        flush(target)
        seconds += time.perf_counter() - began
    return seconds


def main() -> None:
    """Send to both by turns, and print the medians."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--objects", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        room = Path(folder).absolute()
        values = np.random.default_rng(0).integers(0, 1000, (1, 64, 64, given.objects)).astype(np.float32)
        write_series(Volume(values, Geometry(values.shape[1:], np.eye(4))), room / "series", modality="CT")
        times = {"volseg": list[float](), "storescp": list[float](), "flushing alone": list[float]()}
        for number in range(given.rounds):  # all is kept to the end: deleting slows down what is written after it
            times["storescp"].append(by_storescp(room / "series", room / f"{number} storescp"))
            times["volseg"].append(by_volseg(room / "series", room / f"{number} volseg"))
            times["flushing alone"].append(flushing(room / "series", room / f"{number} flushed"))
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name}: {median:.1f} s, {1000 * median / given.objects:.1f} ms an object")
    ours, theirs, disk = times.values()
    print(f"volseg / storescp: {median_ratio(ours, theirs):.2f}")
    both = [receiving + flushed for receiving, flushed in zip(theirs, disk, strict=True)]
    print(f"volseg / (storescp + flushing): {median_ratio(ours, both):.2f}")


def median_ratio(first: list[float], second: list[float]) -> float:
    """Return the median of the ratios of two lists."""
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


if __name__ == "__main__":
    main()
