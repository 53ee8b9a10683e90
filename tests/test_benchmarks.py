"""Benchmarks that travel: they run with few libraries, and must still run when a machine is there."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]
#: What benchmarks/gpu.py takes, beside what these take themselves.
CARRIED = ("torch", "numpy", "monai", "nibabel", "pydantic", "pyyaml")

#: As if nothing else were installed.
ALONE = """
import sys
from importlib.machinery import PathFinder

class CarriedFinder(PathFinder):
    carried = frozenset({carried})

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top in cls.carried or top.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if known else None

sys.meta_path[:] = [CarriedFinder if each is PathFinder else each for each in sys.meta_path]
"""


def carried_modules() -> set[str]:
    """The modules of the carried distributions and of all that they require."""
    wanted, distributions = list(CARRIED), set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # one for another platform
            continue
        if name not in distributions:
            distributions.add(name)
            needed = (line for line in requirements if "extra ==" not in line)
            wanted += [re.split(r"[^\w.-]", line)[0] for line in needed]
    return {
        module
        for module, names in metadata.packages_distributions().items()
        if distributions & {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    }


def run_gpu_benchmark(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run benchmarks/gpu.py, and the processes that it starts, with nothing but what it takes."""
    (folder / "sitecustomize.py").write_text(ALONE.format(carried=sorted({*carried_modules(), "volseg", "gpu"})))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_with_what_it_says_it_takes(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = run_gpu_benchmark(tmp_path, "--device", "cpu", "--quick", "--output", str(table))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in table.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows[2:]} == {5}
    parts = {row[0].removeprefix("| "): row[-1] for row in rows[2:]}
    left_out = {part for part, result in parts.items() if "left out" in result}
    assert left_out == {"copy of a batch", "cudnn.benchmark"}  # what a CPU has not
    assert parts.keys() >= {"training step", "a whole volume", "validation", "one process of torchrun", "torch.compile"}
    documented = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [part for part in parts if f"| {part} |" not in documented] == []


def test_nothing_else_is_there_for_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ALONE.format(carried=sorted(carried_modules())))
    code = "import importlib.util as u; print(*[n for n in ('numpy', 'yaml', 'pandas', 'scipy') if u.find_spec(n)])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["numpy", "yaml"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_that_there_is_no_gpu(tmp_path: Path) -> None:
    done = run_gpu_benchmark(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no GPU" in done.stderr


def race(module: ModuleType, data: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run benchmarks/training.py for a few seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, module.__file__, str(data), "--minutes", "0.2", "--output", str(output), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """benchmarks/training.py, which is no package."""
    spec = importlib.util.spec_from_file_location("training_race", ROOT / "benchmarks" / "training.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


def test_results_of_a_race_are_kept_and_compared_seed_by_seed(training: ModuleType, tmp_path: Path) -> None:
    reached = {("volseg", 0): 0.8, ("volseg", 1): 0.6, ("monai", 0): 0.4}
    for (contender, seed), dice in reached.items():
        own = training.Score(6.0, 5, {1: 0.1, 3: 0.3}, "validation")
        last = training.Score(12.0, 9, {1: dice - 0.1, 3: dice + 0.1})
        training.keep(training.Result(training.Entry("livers", contender, seed, 0.2), ["a.b=1"], [own, last]), tmp_path)
    results = training.kept(tmp_path)
    assert {(each.entry.contender, each.entry.seed): each.scores[-1].mean for each in results} == pytest.approx(reached)
    assert training.table(results).splitlines()[2:] == [
        "| livers | 0.2 | monai | 1 | 0.4000 | 0.4000, 0.4000 | 2.000 |",
        "| livers | 0.2 | volseg | 2 | 0.7000 | 0.6000, 0.8000 |  |",
    ]
    rows = training.curves(results)
    assert rows[["contender", "seed", "cases", "steps"]].to_numpy().tolist()[:2] == [
        ["monai", 0, "validation", 5],
        ["monai", 0, "held out", 9],
    ]
    assert rows["dice_3"].tolist()[:2] == pytest.approx([0.3, 0.5])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset gives each contender a core, on Linux")
def test_a_race_goes_on_where_it_ended(training: ModuleType, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "race"
    tiny = ["network.name=unet", "network.channels=[8,16]", "network.strides=[[2,2,2]]", "patches.size=[16,16,16]"]
    words = ["--contenders", "volseg", *(word for setting in tiny for word in ("--set", setting))]
    done = race(training, dataset, output, *words, "--within", "0")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 runs are left; the same command goes on" in done.stdout
    assert not [*output.glob("*.json")]
    done = race(training, dataset, output, *words)
    assert done.returncode == 0, done.stderr
    (file,) = output.glob("*.json")
    before = file.stat().st_mtime_ns
    assert f"| {dataset.name} | 0.2 | volseg | 1 | " in done.stdout
    assert (
        (output / "dice.csv")
        .read_text()
        .startswith("data,contender,seed,minutes,cases,seconds,steps,dice,dice_1,dice_2")
    )
    again = race(training, dataset, output, *words)
    assert (again.returncode, again.stdout, file.stat().st_mtime_ns) == (0, done.stdout, before)
    other = race(training, dataset, output, "--contenders", "volseg")
    assert other.returncode == 1
    assert "other --set" in other.stderr
