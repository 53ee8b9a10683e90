"""The same work on a Dask cluster: equal results, deaths, refusals and certificates. Real workers, on this machine."""

from __future__ import annotations

import filecmp
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import make_case
from ports import free_port
from test_job_array import files, table

import volseg
import volseg.cluster
from volseg.cluster.config import check_address, parse_cluster
from volseg.cluster.jobs import _options as job_options
from volseg.cluster.paths import checked_path_map, existing_files, inverse, mapped
from volseg.cluster.work import Pace, Piece
from volseg.cluster.worker import Outcome
from volseg.errors import ConfigError, DataError, OutputExistsError, UnfitWorkerError, WorkerError, WorkerLostError
from volseg.io import write_volume

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Cli = Callable[..., tuple[int, str, str]]
#: In this process a case of that name ends it, and another one takes all memory.
POISON = """
import os
def poisoned(prepare):
    def work(self, case):
        if case.case_id == "case_02":
            os._exit(1)
        if case.case_id == "case_05":
            hold = []
            while True:
                hold.append(bytearray(os.urandom(1)) * 50_000_000)
        return prepare(self, case)
    return work
import importlib.abc, sys
class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "volseg.prediction.tasks":
            sys.meta_path.remove(self)
            from volseg.prediction.predictor import Predictor
            Predictor.prepare = poisoned(Predictor.prepare)
        return None
sys.meta_path.insert(0, Hook())
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(12):
        write_volume(make_case(seed)[0], folder / f"case_{seed:02d}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def alone(trained_run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine writes."""
    output = tmp_path_factory.mktemp("alone")
    volseg.load(trained_run).predict_folder(images, output)
    return output


def check_equal(output: Path, alone: Path) -> None:
    assert files(output) == files(alone)
    masks = [name for name in files(alone) if name.endswith(".nii.gz")]
    assert not any(filecmp.cmpfiles(alone, output, masks, shallow=False)[1:])
    pd.testing.assert_frame_equal(table(output), table(alone))


def predict(images: Path, run: Path, output: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "volseg", "predict", str(images), "--model", str(run), "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [*command, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def workers_of(process: int) -> list[psutil.Process]:
    """The processes that do the work: those that were copied from the one that has imported everything."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with_parent = [parent for parent in child.parents() if "forkserver" in " ".join(parent.cmdline())]
        if with_parent and child.memory_info().rss > 100e6:
            found.append(child)
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.1)


# --- what --cluster says


def test_a_cluster_is_a_number_an_address_or_a_file(tmp_path: Path) -> None:
    assert parse_cluster("local:4").local == 4
    assert parse_cluster("tls://station1:8786").address == "tls://station1:8786"
    path = tmp_path / "cluster.yaml"
    path.write_text("jobs: 3\njobqueue:\n  slurm:\n    cores: 8\n    memory: 32GB\n")
    config = parse_cluster(str(path))
    assert (config.jobs, config.jobqueue) == (3, {"slurm": {"cores": 8, "memory": "32GB"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local", "there is no such file"),
        ("local:0", "greater than or equal to 1"),
        ("nowhere.yaml", "there is no such file"),
        ("http://host:80", "not the address of a scheduler"),
        ("tls://host", "not the address of a scheduler"),
        ("tls://host:port", "not the address of a scheduler"),
        ("tcp://10.0.0.5:8786", "anybody on the network could run programs"),
        ("tcp://[::]:8786", "anybody on the network could run programs"),
        ("tcp://0.0.0.0:8786", "anybody on the network could run programs"),
    ],
)
def test_what_is_no_cluster_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_cluster(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no keys"),
        ("- local", "has no keys"),
        ("locl: 3", "locl"),
        ("local: 2\naddress: tls://a:1", "exactly one|one of local"),
        ("jobs: 4", "one of local"),
        ("jobqueue: {slurm: {}, pbs: {}}", "must name one batch system"),
        ("jobqueue: {cron: {}}", "jobqueue"),
        ("{", "not a YAML file"),
    ],
)
def test_a_file_that_describes_no_cluster_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        parse_cluster(str(path))


def test_only_this_machine_is_reached_without_certificates() -> None:
    for address in ("tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"):
        check_address(address, is_protected=False)
    with pytest.raises(ConfigError, match="needs certificates"):
        check_address("tls://station1:8786", is_protected=False)


# --- paths


@dataclass(frozen=True)
class Holder:
    path: Path
    others: tuple[Path, ...] = ()
    table: dict[str, Path] | None = None
    number: int = 3


def test_paths_are_mapped_wherever_they_are_and_back() -> None:
    there = checked_path_map({"/data": "/mnt/data", "/data/fast": "/fast"})
    value = partial(print, Holder(Path("/data/a"), (Path("/data/fast/b"), Path("/database/c")), {"d": Path("/data")}))
    moved = mapped(value, there)
    assert moved.args[0] == Holder(
        Path("/mnt/data/a"), (Path("/fast/b"), Path("/database/c")), {"d": Path("/mnt/data")}
    )
    assert mapped(moved, inverse(there)).args == value.args
    assert mapped(value, {}) is value


def test_a_path_map_names_whole_different_folders() -> None:
    with pytest.raises(ConfigError, match="not an absolute path"):
        checked_path_map({"data": "/mnt"})
    with pytest.raises(ConfigError, match="two folders have the same path"):
        checked_path_map({"/a": "/mnt", "/b": "/mnt"})


def test_files_of_the_last_argument_are_found_first(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    work = partial(print, Holder(tmp_path / "a"), Holder(tmp_path / "b", (tmp_path, tmp_path / "missing")))
    assert list(existing_files(work)) == [tmp_path / "b", tmp_path / "a"]


# --- the executor, on any client


def double(number: int) -> int:
    return 2 * number


def fail(kind: str) -> None:
    raise DataError(f"{kind} is broken", hint="repair it") if kind == "file" else ZeroDivisionError(kind)


def die(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def unfit_here(folder: Path) -> str:
    """The first process that does this is not fit."""
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        if (folder / "first").read_text() != str(os.getpid()):
            return "done"
    (folder / "first").write_text(str(os.getpid()))
    raise UnfitWorkerError("it lacks something", hint="give it")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[volseg.cluster.ClusterExecutor]:
    with volseg.cluster.connect("local:2") as executor:
        yield executor


@pytest.mark.slow
def test_calls_give_results_and_errors_in_their_order(two_workers: volseg.cluster.ClusterExecutor) -> None:
    assert list(two_workers.map(double, range(200))) == list(range(0, 400, 2))
    with pytest.raises(DataError, match="file is broken") as caught:
        two_workers.submit(fail, "file").result()
    assert caught.value.hint == "repair it"
    with pytest.raises(ZeroDivisionError) as defect:
        two_workers.submit(fail, "code").result()
    assert "in fail" in "".join(defect.value.__notes__), "where it happened on the worker"


@pytest.mark.slow
def test_what_ends_two_workers_is_named_and_nothing_else_is_lost(two_workers: volseg.cluster.ClusterExecutor) -> None:
    futures = [two_workers.submit(die, number) for number in range(40)]
    assert [future.result() for n, future in enumerate(futures) if n != 3] == [n for n in range(40) if n != 3]
    with pytest.raises(WorkerLostError, match="it ended two workers"):
        futures[3].result()


@pytest.mark.slow
def test_a_worker_that_is_not_fit_gets_no_more_work(
    two_workers: volseg.cluster.ClusterExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: two_workers.state.startswith("2 workers"))
    assert two_workers.submit(unfit_here, tmp_path).result(60) == "done"
    assert "is refused: it lacks something; give it" in caplog.text
    assert "1 refused" in two_workers.state


@pytest.mark.slow
def test_relative_paths_are_those_of_this_process(
    two_workers: volseg.cluster.ClusterExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("seen")
    assert two_workers.submit(Path.read_text, Path("here.txt")).result(60) == "seen"


@pytest.mark.slow
def test_any_client_of_dask_will_do(trained_run: Path, images: Path, alone: Path, tmp_path: Path) -> None:
    import distributed

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        volseg.cluster.on(client) as executor,
    ):
        volseg.load(trained_run).predict_folder(images, tmp_path / "masks", executor=executor)
        executor.shutdown()
        with pytest.raises(RuntimeError, match="was shut down"):
            executor.submit(double, 1)
    check_equal(tmp_path / "masks", alone)


def test_pieces_travel_together_only_if_each_is_short() -> None:
    pace = Pace()
    short, long = (Piece(partial(function), None) for function in (double, die))  # type: ignore[arg-type]
    assert pace.pieces_worth_sending(short.kind) == 1, "nothing is known yet"
    pace.learn(short, 0.001)
    pace.learn(long, 30.0)
    pace.learn_overhead(0.02)
    assert pace.pieces_worth_sending(short.kind) == 500
    assert pace.pieces_worth_sending(long.kind) == 1
    assert Outcome(1, None, 0.1).result == 1


# --- the command line


@pytest.mark.slow
def test_two_workers_write_what_one_process_writes_and_listen_to_this_machine_alone(
    trained_run: Path, images: Path, alone: Path, tmp_path: Path
) -> None:
    process = predict(images, trained_run, tmp_path / "masks", "--cluster", "local:2")
    wait_for(lambda: len(workers_of(process.pid)) == 2)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    hosts = {each.laddr.ip for one in family for each in one.net_connections() if each.status == psutil.CONN_LISTEN}
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 3, out
    assert "12 segmented, 0 skipped, 1 failed of 13 discovered; 12 new" in out
    assert "worker 2 on" in out
    assert hosts == {"127.0.0.1"}
    check_equal(tmp_path / "masks", alone)


@pytest.mark.slow
def test_cases_that_end_their_workers_are_named_and_the_others_finish(
    trained_run: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)
    process = predict(images, trained_run, tmp_path / "masks", "--cluster", "local:2", PYTHONPATH=str(tmp_path))
    out = process.communicate(timeout=400)[0]
    assert process.returncode == 3, out
    rows = table(tmp_path / "masks").set_index("case_id")
    assert dict(rows["status"].value_counts()) == {"segmented": 10, "failed": 3}
    for case_id in ("case_02", "case_05"):
        assert rows.loc[case_id, "reason"].startswith("it ended two workers (out of memory?)")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_costs_nothing(
    trained_run: Path, images: Path, alone: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    ttl = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}
    process = predict(images, trained_run, tmp_path / "masks", "--cluster", "local:2", **ttl)
    wait_for(lambda: len(workers_of(process.pid)) == 2)
    wait_for(lambda: any((tmp_path / "masks").glob("case_*")))
    victim = workers_of(process.pid)[0]
    victim.send_signal(ending)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 3, out
    check_equal(tmp_path / "masks", alone)
    assert not list((tmp_path / "masks").rglob(".volseg-part-*"))


@pytest.mark.slow
def test_a_coordinator_that_is_killed_goes_on_where_it_was(
    trained_run: Path, images: Path, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "masks"
    process = predict(images, trained_run, output, "--cluster", "local:2")
    wait_for(lambda: any((output / "rows").glob("case_*.json")))
    process.kill()
    process.communicate()
    merged = volseg.merge(output)
    assert merged.counts["segmented"] > 0
    process = predict(images, trained_run, output, "--cluster", "local:2")
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 3, out
    check_equal(output, alone)


@contextmanager
def running(*words: object, cwd: Path | None = None, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "volseg", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with subprocess.Popen(
        command, env=environment, text=True, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in (*psutil.Process(process.pid).children(recursive=True), process):
                    each.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_pool_works_from_any_folder_and_ends_with_its_scheduler(
    trained_run: Path, images: Path, alone: Path, tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    with running("cluster", "scheduler", address) as scheduler:
        wait_for(lambda: listens(port))
        (tmp_path / "elsewhere").mkdir()
        with running("worker", address, "--memory", "4", cwd=tmp_path / "elsewhere") as worker:
            process = predict(images, trained_run, tmp_path / "masks", "--cluster", address)
            out = process.communicate(timeout=300)[0]
            assert process.returncode == 3, out
            check_equal(tmp_path / "masks", alone)
            scheduler.kill()
            said = worker.communicate(timeout=60)[0]
            assert worker.returncode == 0
            assert f"the scheduler at {address} has ended" in said


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(trained_run: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import volseg.version\nvolseg.version.__version__ = '9.9.9'\n")
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    with running("cluster", "scheduler", address):
        wait_for(lambda: listens(port))
        with running("worker", address, PYTHONPATH=str(tmp_path)):
            process = predict(images, trained_run, tmp_path / "masks", "--cluster", address)
            out = process.communicate(timeout=300)[0]
    assert process.returncode == 2
    assert "no worker can be used: worker 1 is refused: it runs volseg 9.9.9, this batch " in out
    assert "install the same versions on every machine" in out


@pytest.mark.slow
def test_a_worker_sees_other_paths_through_its_map(
    trained_run: Path, images: Path, alone: Path, tmp_path: Path
) -> None:
    """The input lies elsewhere for the worker: the path that the command names is gone once it has begun."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "input").symlink_to(images)
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    with running("cluster", "scheduler", address):
        wait_for(lambda: listens(port))
        with running("worker", address, "--path-map", f"{images}={there / 'input'}") as worker:
            process = predict(images, trained_run, tmp_path / "masks", "--cluster", address)
            wait_for(lambda: any((tmp_path / "masks").glob("case_*")))
            opened = [each.open_files() for each in psutil.Process(worker.pid).children(recursive=True)]
            out = process.communicate(timeout=300)[0]
    assert process.returncode == 3, (out, opened)
    check_equal(tmp_path / "masks", alone)


@pytest.mark.slow
def test_a_batch_system_that_refuses_jobs_ends_the_command(trained_run: Path, images: Path, tmp_path: Path) -> None:
    sbatch, jobs = tmp_path / "bin" / "sbatch", tmp_path / "jobs.yaml"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: nope' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    jobs.write_text("jobs: 2\njobqueue: {slurm: {cores: 1, memory: 2GB, queue: nope}}\n")
    path = os.pathsep.join([str(sbatch.parent), os.environ["PATH"]])
    process = predict(images, trained_run, tmp_path / "masks", "--cluster", str(jobs), PATH=path)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 2, out
    assert "error: cannot submit jobs to slurm: sbatch: error: invalid partition specified: nope" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cores": 0}, "cores must be a whole number from 1"),
        ({"processes": "two"}, "processes must be a whole number from 1"),
        ({"cores": 1, "protocol": "tcp://"}, "protocol is chosen by volseg"),
    ],
)
def test_options_of_jobs_that_are_not_possible_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job_options(options)


def test_jobs_listen_to_nobody_but_the_cluster() -> None:
    stated = {"worker_extra_args": ["--nthreads", "4"], "scheduler_options": {"dashboard_address": ":8787", "port": 9}}
    options = job_options(stated)
    assert options["scheduler_options"] == {"dashboard_address": "127.0.0.1:0", "port": 9}
    assert options["worker_extra_args"][-4:] == ["--nthreads", "1", "--dashboard-address", "127.0.0.1:0"]


@pytest.mark.slow
def test_a_client_that_is_closed_fails_all_work_at_once() -> None:
    import distributed

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        client = distributed.Client(cluster)
        executor = volseg.cluster.on(client)
        futures = [executor.submit(time.sleep, 60), executor.submit(double, 2)]
        wait_for(futures[0].running)
        client.close()  # perhaps while the first one is being sent
        for future in futures:
            with pytest.raises(WorkerError):
                future.result(timeout=60)


# --- strangers


def test_certificates_are_private_and_never_replaced(tmp_path: Path, volseg_cli: Cli) -> None:
    code, out, _ = volseg_cli("cluster", "certificates", "--output", tmp_path / "own", "--days", 7)
    assert code == 0
    assert "certificates for 7 days" in out
    assert {(tmp_path / "own" / name).stat().st_mode & 0o777 for name in ("node.pem", "node-key.pem")} == {0o600}
    with pytest.raises(OutputExistsError, match="holds certificates already"):
        volseg.cluster.write_certificates(tmp_path / "own")
    with pytest.raises(ConfigError, match="holds no certificates"):
        volseg.cluster.run_worker("tls://127.0.0.1:1", tmp_path)


def ask(port: int, context: ssl.SSLContext) -> None:
    """Connect, and fail if the other side hangs up; with TLS 1.3 it does so only after the handshake."""
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as protected:
        protected.sendall(b"x" * 64)
        if protected.recv(1) == b"":
            raise ConnectionError


@pytest.mark.slow
def test_a_stranger_cannot_connect(tmp_path: Path, trained_run: Path, images: Path, alone: Path) -> None:
    own, other = (volseg.cluster.write_certificates(tmp_path / name) for name in ("own", "other"))
    address = f"tls://127.0.0.1:{(port := free_port())}"
    with running("cluster", "scheduler", address, "--certificates", own):
        wait_for(lambda: listens(port))
        unverified, foreign = ssl._create_unverified_context(), ssl._create_unverified_context()
        foreign.load_cert_chain(other / "node.pem", other / "node-key.pem")
        for context in (unverified, foreign):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(port, context)
        for config in (
            volseg.cluster.ClusterConfig(address=address, certificates=other),
            volseg.cluster.ClusterConfig(address=f"tcp://127.0.0.1:{port}"),
        ):
            with pytest.raises(WorkerError, match="cannot connect to the scheduler"), volseg.cluster.connect(config):
                pass
        with pytest.raises(ConfigError, match="needs certificates"), volseg.cluster.connect(address):
            pass
        with running("worker", address, "--certificates", other) as stranger:
            assert "cannot join the scheduler" in stranger.communicate(timeout=60)[0]
            assert stranger.returncode == 2
        with running("worker", address, "--certificates", own):
            file = tmp_path / "cluster.yaml"
            file.write_text(f"address: {address}\ncertificates: {own}\n")
            process = predict(images, trained_run, tmp_path / "masks", "--cluster", str(file))
            out = process.communicate(timeout=300)[0]
            assert process.returncode == 3, out
    check_equal(tmp_path / "masks", alone)
