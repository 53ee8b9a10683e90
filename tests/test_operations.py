"""docs/operations.md: every example runs, or is checked by the program that it is for."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, make_case
from orthanc import Orthanc, running, tool

from volseg.cli import options
from volseg.exporting import output_path
from volseg.exporting.write import write_all
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, discover, write_volume
from volseg.io.dicom import write_series

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def example(beginning: str, language: str = "bash") -> str:
    """The one example that holds some words."""
    (found,) = (text for kind, text in BLOCKS if kind == language and beginning in text)
    return found


class Place:
    """A machine as the document has it, in a folder."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.scans, self.masks, self.log = folder / "scans", folder / "srv" / "masks", folder / "log" / "nightly.log"
        for path in (self.scans, self.masks, self.log.parent, folder / "bin", folder / "opt"):
            path.mkdir(parents=True)
        (folder / "srv" / "model").symlink_to(model)
        self.volseg = folder / "bin" / "volseg"
        self.program("volseg", f'exec "{sys.executable}" -m volseg "$@"')

    def program(self, name: str, line: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)

    def adapted(self, text: str) -> str:
        for path, here in (
            ("/opt/volseg/bin/volseg", self.volseg),
            ("/opt/volseg", self.folder / "opt"),
            ("/srv/volseg", self.folder / "srv"),
            ("/archive/scans", self.scans),
            ("/var/log/volseg", self.log.parent),
        ):
            text = text.replace(path, str(here))
        return text

    def script(self, text: str) -> Path:
        path = self.folder / "script"
        path.write_text(self.adapted(text))
        subprocess.run(["bash", "-n", path], check=True)
        return path

    @property
    def environment(self) -> dict[str, str]:
        # In an environment, pynetdicom has put programs with the names of DCMTK's.
        folders = os.environ["PATH"].split(os.pathsep)
        paths = [
            str(self.folder / "bin"),
            *(each for each in folders if not (Path(each).parent / "pyvenv.cfg").exists()),
        ]
        return os.environ | {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}

    def run(self, words: Sequence[object], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = list(map(str, words))
        return subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=folder or self.folder, env=self.environment
        )


@pytest.fixture
def place(tmp_path: Path, trained_run: Path) -> Place:
    place = Place(tmp_path / "place", trained_run)
    write_volume(make_case(0)[0], place.scans / "p0.nii.gz")
    return place


def test_every_example_is_looked_at() -> None:
    assert sorted(kind for kind, _ in BLOCKS) == sorted(
        ["", "", "", "", "crontab", "ini", "ini", "logrotate", *["bash"] * 5]
    )


def test_the_command_says_what_the_document_says_it_does(place: Place) -> None:
    done = place.run(shlex.split(place.adapted(example("/opt/volseg/bin/volseg predict", ""))))
    assert done.returncode == 0, done.stderr
    closing = example("unchanged; see", "")
    assert re.sub(r"\d+", "#", done.stdout) == re.sub(r"\d+", "#", place.adapted(closing))


def test_the_example_of_a_log_looks_like_one(place: Place) -> None:
    done = place.run(shlex.split(place.adapted(example("/opt/volseg/bin/volseg predict", ""))))
    assert done.returncode == 0
    head = r"[-\d]{10}T[:\d]{8}[+-]\d\d:\d\d (INFO|WARNING|ERROR) volseg\[\d+\]: "
    shown, written = example("predict begins", "").splitlines(), place.log.read_text().splitlines()
    assert all(re.match(head, line) for line in [*shown, *written])
    ends = (re.sub(r"[\d.]+", "#", lines[-1].partition("]: ")[2]) for lines in (shown, written))
    assert len(set(ends)) == 1


def test_the_example_of_a_training_looks_like_one(trained_run: Path) -> None:
    shown = example("training cases", "").splitlines()
    written = (trained_run / "train.log").read_text().splitlines()
    forms = [
        {re.sub(r"\d+", "#", re.sub(r", val Dice [\d.]+", "", line)) for line in lines} for lines in (shown, written)
    ]
    assert forms[0] <= forms[1]


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, flags=re.MULTILINE)}
    known = {value for name, value in vars(options).items() if name.startswith("EXIT_")}
    assert stated == known | {128 + signal.SIGKILL}


def test_cron_is_silent_where_nobody_has_to_look(place: Place) -> None:
    script = place.script(example("nightly.sh"))
    silent = place.run(["bash", script])
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    assert (place.masks / "p0.nii.gz").is_file()
    (place.scans / "p1.nii.gz").write_bytes(b"damaged")
    mailed = place.run(["bash", script])
    assert mailed.returncode == 3
    assert mailed.stdout.startswith("exit code 3\n")
    assert "failed: p1: " in mailed.stdout
    with (place.folder / "srv" / "nightly.lock").open("w") as lock:
        subprocess.run(["flock", "--nonblock", str(lock.fileno())], check=True, pass_fds=[lock.fileno()])
        overlapping = place.run(["bash", script])
    assert (overlapping.returncode, overlapping.stdout, overlapping.stderr) == (0, "", "")
    assert place.log.read_text().count("predict begins") == 2


def test_the_crontab_runs_the_script() -> None:
    *settings, job = example("MAILTO", "crontab").splitlines()
    assert all(re.fullmatch(r"[A-Z]+=\S+", line) for line in settings)
    minute, hour, *days, command = job.split(maxsplit=5)
    assert 0 <= int(minute) < 60
    assert 0 <= int(hour) < 24
    assert days == ["*"] * 3
    assert "%" not in command  # which cron takes for the end of a line
    assert f"# {command}\n" in example("nightly.sh")


def test_the_units_of_systemd_are_valid(place: Place) -> None:
    analyze = tool("systemd-analyze")
    units = []
    for kind in ("service", "timer"):
        text = place.adapted(example(f"/volseg.{kind}\n", "ini"))
        unit = place.folder / f"volseg.{kind}"
        unit.write_text(text)
        units.append(unit)
    done = place.run([analyze, "verify", *units])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_writes_only_where_it_may(place: Place) -> None:
    """ProtectSystem=strict, by hand: all is read-only but what the unit lists."""
    service = dict(line.split("=", 1) for line in example("[Service]", "ini").splitlines() if re.match(r"\w+=", line))
    assert service["ProtectSystem"] == "strict"
    cache, private = place.folder / "cache", place.folder / "tmp"
    writable = [Path(place.adapted(service["ReadWritePaths"])), place.log.parent, cache, private]
    for path in writable:
        path.mkdir(exist_ok=True)
    mounts = [f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(path))}" for path in writable]
    program = " && ".join(["mount --make-rprivate /", *mounts, "mount -o remount,bind,ro /", "exec " + "{command}"])
    isolated = ["unshare", "--mount", "--net", "bash", "-c"]
    if place.run([*isolated, program.format(command="true")]).returncode != 0:
        pytest.skip("mounts of its own are only for root")
    setting = f"env HOME={shlex.quote(str(cache))} TMPDIR={shlex.quote(str(private))} "
    done = place.run([*isolated, program.format(command=setting + place.adapted(service["ExecStart"]))])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 segmented")
    assert place.run([*isolated, program.format(command=f"touch {place.scans}/new")]).returncode != 0


def test_the_command_of_docker_is_one_of_volseg_and_its_options_are_known(place: Place) -> None:
    run, stop = re.split(r"(?=^docker stop)", example("docker run").replace("\\\n", " "), flags=re.MULTILINE)
    before, after = run.split(" volseg:cpu ")
    done = place.run([place.volseg, *shlex.split(after.replace("/scans", str(place.scans)))], place.masks.parent)
    assert done.returncode == 0, done.stderr
    assert (place.masks.parent / "nightly.log").is_file()
    docker = tool("docker")
    for line, verb in ((before, "run"), (stop, "stop")):
        known = place.run([docker, verb, "--help"]).stdout
        for option in re.findall(r"--[a-z-]+", line):
            assert option in known or (option, verb) == ("--time", "stop"), option


def test_the_job_of_slurm_queues_again_and_goes_on(place: Place, dataset: Path) -> None:
    """Its shell gets the signal, as --signal=B: has it."""
    tiny = place.folder / "tiny.yaml"
    tiny.write_text(yaml.safe_dump(TINY))
    place.program("scontrol", f'echo "$@" >> {place.folder / "scontrol"}')
    text = example("train.sbatch").replace("data/hippocampus", str(dataset))
    script = place.script(text.replace("--epochs 300", f"--config {tiny} --epochs 12"))
    assert "#SBATCH --signal=B:TERM@120\n" in text
    environment = place.environment | {"SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "1"}
    words = ["bash", str(script)]
    with subprocess.Popen(words, cwd=place.folder, env=environment, stderr=subprocess.PIPE, text=True) as job:
        while not (place.folder / "runs" / "hippocampus" / "last.pt").exists():
            assert job.poll() is None, job.communicate()[1]
            time.sleep(0.02)
        job.terminate()
        _, err = job.communicate(timeout=120)
    assert job.returncode == 130, err
    assert (place.folder / "scontrol").read_text() == "requeue 77\n"
    done = subprocess.run(words, check=False, cwd=place.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (place.folder / "scontrol").read_text() == "requeue 77\n"
    assert "resumed after epoch" in (place.folder / "hippocampus.log").read_text()


@pytest.fixture
def series(tmp_path: Path) -> SeriesSource:
    image, _ = make_case(0)
    write_series(Volume(np.rint(image.array), image.geometry), tmp_path / "series")
    (source,) = discover(tmp_path / "series").sources
    assert isinstance(source, SeriesSource)
    return source


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc") as archive:
        yield archive


def test_what_is_exported_is_sent_as_the_document_says(
    place: Place, series: SeriesSource, orthanc: Orthanc, tmp_path: Path
) -> None:
    marks = make_case(0)[1]
    mask = Mask(marks.array, marks.geometry, (Label(1, "liver"), Label(2, "spleen")))
    for folder, encoding in (("binary", "binary"), ("labelmap", "labelmap")):
        masks = tmp_path / folder / "masks"
        paths = {form: output_path(masks, "p0", form) for form in ("dicom-seg", "rtstruct", "dicom-sr")}
        write_all(mask, series, paths, encoding)
    for program, folder in (("storescu", "binary"), ("dcmsend", "labelmap")):
        tool(program)
        words = shlex.split(example(program).replace("4242", str(orthanc.dicom_port)))
        for _ in range(2):  # sent again, they are the same
            done = place.run(words, tmp_path / folder)
            assert done.returncode == 0, done.stdout + done.stderr
        assert {found["00080060"]["Value"][0] for found in orthanc.find("series")} == {"SEG", "RTSTRUCT", "SR"}
        assert len(orthanc.find("instances")) == 3
        orthanc.clear()
    words = [word for word in shlex.split(example("storescu")) if word != "--required"]
    refused = place.run([word.replace("4242", str(orthanc.dicom_port)) for word in words], tmp_path / "binary")
    assert refused.returncode != 0
    assert "No presentation context for: (S" in refused.stderr


def test_logrotate_takes_its_configuration(place: Place) -> None:
    logrotate = tool("logrotate")
    place.log.touch()
    configuration = place.folder / "logrotate"
    configuration.write_text(place.adapted(example("monthly", "logrotate")))
    done = place.run([logrotate, "--debug", "--state", place.folder / "state", configuration])
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


def test_the_document_is_linked() -> None:
    for path in ("README.md", "ARCHITECTURE.md", "docker/README.md"):
        assert "operations.md" in (ROOT / path).read_text(encoding="utf-8"), path
