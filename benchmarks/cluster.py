"""What a cluster costs: how fast it starts and hands out cases, and what more workers gain.

Run it with `python benchmarks/cluster.py`: it makes cases in a temporary folder, and prints the seconds of the same
work in one process and on workers of this machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import distributed
import numpy as np

import volseg
from volseg.cluster import ClusterConfig, ClusterExecutor, connect

#: Numbers of files in a folder whose record is timed.
RECORDED = (0, 1_000, 50_000)


def nothing(number: int) -> int:
    """A case that needs no time."""
    return number


def a_moment(seconds: float) -> float:
    """A case that needs some, so that each travels alone."""
    time.sleep(seconds)
    return seconds


def make_cases(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Noise with a ball in it, its mask, and a mask that is one voxel beside."""
    from volseg.image.geometry import Geometry
    from volseg.image.volume import Label, Mask, Volume
    from volseg.io import write_mask, write_volume

    rng = np.random.default_rng(0)
    grid = Geometry(shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    distance = np.linalg.norm(np.stack(np.indices(shape)).T - np.array(shape) / 2, axis=-1).T
    ball = (distance < min(shape) / 3).astype(np.uint8)
    labels = (Label(1, "ball"),)
    for number in range(count):
        array = rng.normal(100 * ball, 20).astype(np.float32)
        write_volume(Volume(array[None], grid), folder / "data" / "images" / f"case_{number:03}.nii.gz")
        write_mask(Mask(ball, grid, labels), folder / "data" / "labels" / f"case_{number:03}.nii.gz")
        write_mask(Mask(np.roll(ball, 1, 0), grid, labels), folder / "masks" / f"case_{number:03}.nii.gz")


@contextmanager
def cluster(workers: int) -> Iterator[ClusterExecutor]:
    """Workers of this machine that have all joined."""
    with connect(ClusterConfig(local=workers)) as executor:
        while not executor.state.startswith(f"{workers} worker") or "joining" in executor.state:
            time.sleep(0.02)
        yield executor


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tell_coordinator(executor: ClusterExecutor) -> None:
    """Print how many cases a coordinator hands out in a second, beside Dask's own way."""
    own = [seconds_of(lambda: list(executor.map(nothing, range(1000)))) for _ in range(3)]
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as workers,
        distributed.Client(workers) as client,
    ):
        peer = [seconds_of(lambda: client.gather(client.map(nothing, range(1000), pure=False))) for _ in range(3)]
    print(
        f"cases that do nothing, a second: volseg {1000 / median(own):,.0f}, Dask {1000 / median(peer):,.0f};", end=" "
    )
    print(f"Dask / volseg, seconds: {median(peer) / median(own):.2f}")
    alone = [seconds_of(lambda: list(executor.map(a_moment, [0.3] * 40))) / 20 - 0.3 for _ in range(3)]
    print(f"cases of 0.3 s, each sent alone to one of two workers: {1000 * median(alone):.0f} ms more for each")


def tell_record(folder: Path) -> None:
    """Print what it costs to write one more file into a folder that volseg has written many into."""
    from volseg.io.files import write_text
    from volseg.io.record import RECORD_FILE, Content, Record, as_text

    for count in RECORDED:
        place = folder / str(count)
        place.mkdir()
        written = {f"case_{number:06}.nii.gz": (Content("0" * 64, 1),) for number in range(count)}
        (place / RECORD_FILE).write_text(as_text(Record(written)))
        paths = [place / f"{number}.json" for number in range(9)]
        times = [seconds_of(partial(write_text, path, "x")) for path in paths]
        print(f"a file beside {count:,} others: {1000 * median(times):.1f} ms")


def tell_gain(name: str, work: Callable[[Executor | None], object]) -> None:
    """Print the seconds of some work in one process, on one worker and on two."""
    alone = seconds_of(lambda: work(None))
    on = {}
    for workers in (1, 2):
        with cluster(workers) as executor:
            on[workers] = seconds_of(lambda executor=executor: work(executor))
    print(f"{name:24} {alone:9.1f} {on[1]:9.1f} {on[2]:9.1f}   {on[1] / on[2]:.2f}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 96))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cases(folder, options.cases, tuple(options.shape))
        tell_record(folder)
        print(f"two workers are ready after {seconds_of(lambda: cluster(2).__enter__().shutdown()):.1f} s")
        with cluster(2) as executor:
            tell_coordinator(executor)
        print(f"\n{options.cases} cases, seconds {'threads':>9} {'1 worker':>9} {'2 workers':>9}   1 / 2")
        data = folder / "data"
        tell_gain("evaluate", lambda executor: volseg.evaluate(folder / "masks", data / "labels", executor=executor))
        tell_gain("inspect", lambda executor: volseg.inspect(data, executor=executor))


if __name__ == "__main__":
    main()
