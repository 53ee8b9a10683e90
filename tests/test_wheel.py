"""The wheel: what is in it, and that it runs where there is nothing of this checkout. None of it needs a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from volseg import __version__
from volseg.cases.phantoms import write_dataset

ROOT = Path(__file__).parents[1]
#: What a wheel is built from, and the tests, which must stay out of it.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "volseg", "tests")

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program that finds nothing by the environment of this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*words: str | Path, cwd: Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves build/ beside its sources, and would pack what lies there from last time."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, sources)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", built, ".", cwd=sources)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment with the wheel and the dependencies installed here, but not this checkout.

    A .pth file that names site-packages makes importable what lies there, and does not process the .pth files in it,
    by which an editable install would be found.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    paths = {name: Path(sysconfig.get_path(name, "venv", {"base": str(folder)})) for name in ("purelib", "scripts")}
    python = paths["scripts"] / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)
    here = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (paths["purelib"] / "dependencies.pth").write_text("\n".join(here), encoding="utf-8")
    return paths["scripts"]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    files = (path for path in (ROOT / "volseg").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.parametrize(
    "file",
    [
        "volseg/py.typed",
        "volseg/image/terminology.csv",
        "volseg/reporting/page.html",
        "volseg/reporting/page.css",
        "volseg/reporting/page.js",
        f"volseg-{__version__}.dist-info/licenses/LICENSE",
    ],
)
def test_the_wheel_holds_what_is_no_module(wheel: Path, file: str) -> None:
    assert zipfile.ZipFile(wheel).getinfo(file).file_size or file.endswith("py.typed")


def test_the_command_tells_its_version(environment: Path, tmp_path: Path) -> None:
    assert run(environment / "volseg", "--version", cwd=tmp_path) == f"volseg {__version__}\n"


def test_the_command_shows_its_verbs(environment: Path, tmp_path: Path) -> None:
    shown = run(environment / "volseg", "--help", cwd=tmp_path)
    assert all(verb in shown for verb in ("train", "predict", "evaluate", "export"))


def test_a_script_imports_what_was_installed(environment: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import volseg, volseg.cli, volseg.image.terminology as terminology\n"
        "print(volseg.__file__, terminology.lookup('left kidney').type.meaning, sep='\\n')\n"
    )
    file, meaning = run(environment / "python", script, cwd=tmp_path).splitlines()
    assert Path(file).is_relative_to(environment.parent)
    assert meaning == "Kidney"


#: What makes training short; the docs let it learn something.
SHORT = """{
    "training.epochs": 1, "training.steps_per_epoch": 2, "patches.size": [32, 32, 16],
    "inference.mirror_axes": [], "inference.overlap": 0.0, "inference.backend": "torch",
}"""
SHORTER = {'{"augmentation.flip_axes": []}': SHORT, '"runs/python", minutes=3)': f'"runs/python", changes={SHORT})'}


def examples(document: str) -> list[str]:
    """The programs in a document, each of which works on what those before it have written."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    for longer, shorter in SHORTER.items():
        found[0] = found[0].replace(longer, shorter)
    assert SHORT in found[0]
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that `volseg demo` makes, and few of them."""
    folder = tmp_path_factory.mktemp("demo") / "volseg-demo"
    write_dataset(folder / "train", 5, seed=0)
    write_dataset(folder / "test", 4, seed=1000)
    return folder


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_the_examples_run_and_pass_a_strict_type_checker(
    environment: Path, demo: Path, tmp_path: Path, document: str
) -> None:
    """As a user's scripts, against what the wheel installed."""
    (tmp_path / "volseg-demo").symlink_to(demo)
    typed = []
    for number, example in enumerate(examples(document)):
        script = tmp_path / f"example_{number}.py"
        script.write_text(example, encoding="utf-8")
        assert run(environment / "python", script, cwd=tmp_path)
        if "monai" not in example:  # which does not say what it exports
            typed.append(script)
    assert (tmp_path / "p4.seg.dcm").exists()
    strictly = ["--strict", "--config-file=", "--python-executable", environment / "python"]
    run(sys.executable, "-m", "mypy", *strictly, *typed, cwd=tmp_path)
