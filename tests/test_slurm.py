"""docs/cluster.md on a real SLURM: one machine with two nodes, started for these tests. They need root."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import make_case
from ports import free_port
from test_cluster import check_equal, wait_for

import volseg
from volseg.io import write_volume

TEXT = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0, reason="slurm-wlm and munge are missing, or not root"
    ),
]


def example(beginning: str) -> str:
    """The one example that begins with some words, after its first line if that names the interpreter."""
    (found,) = (
        text
        for text in re.findall(r"^```(?:bash|yaml)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
        if text.removeprefix("#!/bin/bash\n").startswith(beginning)
    )
    return found


CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdTimeout=10
KillWait=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=65000 Gres=gpu:1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=65000 Gres=gpu:1 State=UNKNOWN
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A batch system whose nodes can be killed."""

    def __init__(self, folder: Path) -> None:
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(parents=True)
        host, ports = socket.gethostname().split(".")[0], [free_port() for _ in range(3)]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        program = folder / "bin" / "volseg"
        program.parent.mkdir()
        program.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m volseg "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(program.parent), os.environ["PATH"]]),
        }
        self.run("slurmctld")
        for name in ("n1", "n2"):
            self.start_node(name)
        wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t").split("\n")[0] == "2 idle")

    def run(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def start_node(self, name: str) -> None:
        self.run("slurmd", "-N", name)

    def processes_of(self, name: str) -> list[psutil.Process]:
        """Everything that runs on a node."""
        found = []
        for process in psutil.process_iter():
            try:
                own = process.environ()
                is_ours = own.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                is_daemon = "slurmd" in process.name() and process.cmdline()[-1] == name
            except (psutil.Error, IndexError):
                continue
            if is_ours and (own.get("SLURMD_NODENAME") == name or is_daemon):
                found.append(process)
        return found

    def kill_node(self, name: str) -> None:
        for process in self.processes_of(name):
            process.kill()

    def stop(self) -> None:
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    process.kill()
            except psutil.Error:
                continue


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if not any(process.name() == "munged" for process in psutil.process_iter()):
        subprocess.run(
            "mkdir -p /run/munge && chown munge: /run/munge && "
            "{ test -s /etc/munge/munge.key || /usr/sbin/mungekey --create --keyfile /etc/munge/munge.key; } && "
            "chown munge: /etc/munge/munge.key && runuser -u munge -- /usr/sbin/munged",
            shell=True,
            check=True,
        )
    system = Slurm(tmp_path_factory.mktemp("slurm"))
    yield system
    system.stop()


@pytest.fixture
def place(tmp_path: Path, trained_run: Path) -> Path:
    """/data of the document: scans and a model."""
    for seed in range(16):
        write_volume(make_case(seed, (60, 60, 40))[0], tmp_path / "scans" / f"case_{seed:02d}.nii.gz")
    shutil.copytree(trained_run, tmp_path / "model")
    volseg.load(tmp_path / "model").predict_folder(tmp_path / "scans", tmp_path / "alone")
    return tmp_path


def script(place: Path, name: str) -> Path:
    path = place / name
    path.write_text(example(f"# {name}").replace("/data/", f"{place}/"))
    return path


def test_the_job_array_completes_in_spite_of_killed_tasks_and_nodes(slurm: Slurm, place: Path) -> None:
    script(place, "predict.sbatch")
    command = ["bash", str(script(place, "segment.sh"))]
    with subprocess.Popen(
        command, cwd=place, env=slurm.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        wait_for(lambda: any((place / "masks" / "parts").glob("*-of-8.json")), 120)
        slurm.kill_node("n2")
        (victim, *_) = (each for each in slurm.processes_of("n1") if "--part" in each.cmdline())
        victim.kill()
        time.sleep(15)  # until the node is missed
        slurm.start_node("n2")
        out = process.communicate(timeout=600)[0]
    assert out.count("Submitted batch job") >= 2, out
    assert "is not finished" in out or "has not begun" in out
    assert volseg.merge(place / "masks").undone == ()
    check_equal(place / "masks", place / "alone")


def test_jobs_end_with_their_command_and_are_replaced_if_a_node_dies(slurm: Slurm, place: Path) -> None:
    jobs = script(place, "slurm.yaml")
    jobs.write_text(jobs.read_text().replace("jobs: 10 ", "jobs: 2 "))
    command = ["volseg", "predict", "scans", "--model", "model", "--output", "masks", "--cluster", str(jobs)]
    with subprocess.Popen(command, cwd=place, env=slurm.environment, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: any((place / "masks").glob("case_*")), 120)
        process.kill()
    wait_for(lambda: slurm.run("squeue", "-h", "-t", "RUNNING,PENDING") == "", 90)
    assert volseg.merge(place / "masks").counts["segmented"] > 0
    for path in (place / "masks").iterdir():
        if path.name.startswith("case_0"):
            path.unlink()
    with subprocess.Popen(
        command, cwd=place, env=slurm.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        wait_for(lambda: any((place / "masks").glob("case_0*")), 120)
        slurm.kill_node("n1")
        time.sleep(12)
        slurm.start_node("n1")
        out = process.communicate(timeout=600)[0]
    assert process.returncode == 0, out
    check_equal(place / "masks", place / "alone")
    wait_for(lambda: slurm.run("squeue", "-h", "-t", "RUNNING,PENDING") == "", 60)
    assert not list((Path.home() / ".cache" / "volseg").glob("cluster-*")), (
        "certificates of killed commands are gone, too"
    )
