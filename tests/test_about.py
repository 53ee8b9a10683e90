"""about.json: what made a folder, read as any version wrote it."""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, train_folder

import volseg
from volseg.about import About, Hardware, Versions, made_now, read_about, write_about
from volseg.config import merge
from volseg.errors import DataError
from volseg.model.hardware import this_hardware

MACHINE = Hardware(
    device="cpu", processor="Test 1", cores=2, memory_gb=16.0, instructions="AVX512", bf16=True, processes=1
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    about = made_now((("licence", "CC BY 4.0"),), [MACHINE, MACHINE.model_copy(update={"gpu": "NVIDIA H200"})])
    write_about(about, tmp_path)
    assert read_about(tmp_path) == about
    tree = json.loads((tmp_path / "about.json").read_text())
    assert tree["versions"]["volseg"] == volseg.__version__
    assert tree["versions"]["python"] == platform.python_version()
    assert datetime.fromisoformat(tree["made"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert tree["facts"] == {"licence": "CC BY 4.0"}
    assert tree["hardware"][0] == {
        "device": "cpu",
        "gpu": None,
        "processor": "Test 1",
        "cores": 2,
        "memory_gb": 16.0,
        "instructions": "AVX512",
        "bf16": True,
        "processes": 1,
    }


def test_the_list_of_version_0_1_0_is_read(tmp_path: Path) -> None:
    pairs = [
        ["volseg", "0.1.0, torch 2.13.0+cpu, MONAI 1.6.1"],
        ["made", "2026-11-28 06:07 UTC"],
        ["masks: model 1", "0123456789abcdef"],
    ]
    (tmp_path / "about.json").write_text(json.dumps(pairs))
    about = read_about(tmp_path)
    assert about.versions == Versions(volseg="0.1.0", torch="2.13.0+cpu", monai="1.6.1")
    assert about.made == datetime(2026, 11, 28, 6, 7, tzinfo=UTC)
    assert about.facts == {"masks: model 1": "0123456789abcdef"}
    assert about.hardware == ()
    assert about.lines == tuple((name, value) for name, value in pairs)


def test_a_folder_that_does_not_say_is_known_to_be_one(tmp_path: Path) -> None:
    assert read_about(tmp_path) == About()
    assert About().lines == ()


@pytest.mark.parametrize(
    "content", ["[[1]]", "3", '{"hardware": [{"device": "cpu"}]}', '[["made", "yesterday"]]', "{", '{"other": 1}']
)
def test_a_damaged_file_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(content)
    with pytest.raises(DataError, match=r"about\.json is damaged") as caught:
        read_about(tmp_path)
    assert "\n" not in str(caught.value)


def test_this_machine_is_described_as_pytorch_sees_it() -> None:
    here = this_hardware(torch.device("cpu"))
    assert (here.device, here.gpu, here.processes) == ("cpu", None, 1)
    assert here.instructions == torch.backends.cpu.get_cpu_capability()
    assert 1 <= here.cores <= torch.get_num_threads()
    assert here.memory_gb > 0


@pytest.mark.gpu
def test_a_gpu_is_called_by_its_name() -> None:
    here = this_hardware(torch.device("cuda"))
    assert (here.device, here.gpu) == ("cuda", torch.cuda.get_device_name(0))


def test_a_run_tells_its_machine_and_nothing_of_whose_it_is(trained_run: Path) -> None:
    (machine,) = read_about(trained_run).hardware
    assert machine.device == "cpu"
    text = (trained_run / "about.json").read_text()
    assert not [
        word for word in (platform.node(), getpass.getuser(), str(trained_run), "case_") if word and word in text
    ]


@dataclass
class _StopAfterOne:
    """Ends a training after its first epoch."""

    def __call__(self, row: Mapping[str, Any]) -> None:
        raise volseg.Cancelled


def test_a_run_that_goes_on_elsewhere_tells_both_machines(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = merge(TINY, {"training": {"epochs": 2, "steps_per_epoch": 2}})
    with pytest.raises(volseg.Cancelled):
        train_folder(dataset, tmp_path / "run", tree, on_epoch_done=_StopAfterOne())
    (first,) = read_about(tmp_path / "run").hardware
    monkeypatch.setattr("volseg.training.run.this_hardware", lambda device, processes: MACHINE)
    train_folder(dataset, tmp_path / "run", tree, resume=True)
    assert read_about(tmp_path / "run").hardware == (first, MACHINE)
    other = MACHINE.model_copy(update={"processor": "Test 2"})
    monkeypatch.setattr("volseg.training.run.this_hardware", lambda device, processes: other)
    train_folder(dataset, tmp_path / "run", tree, resume=True)  # there is nothing left to do
    assert read_about(tmp_path / "run").hardware == (first, MACHINE)
