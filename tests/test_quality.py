"""The checks of the code itself, part of the one test command."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Distributions whose modules have another name.
MODULES = {
    "connected-components-3d": "cc3d",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "simpleitk": "SimpleITK",
    "fast-simplification": "fast_simplification",
    "fill-voids": "fill_voids",
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    # A library that other tests load may have set the locale of this process to plain C.
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "ruff", "check"),
        ("-m", "ruff", "format", "--check"),
        ("-m", "mypy"),
        ("-c", "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"),
        ("-m", "pip", "check"),
    ],
    ids=["ruff check", "ruff format", "mypy", "import-linter", "pip check"],
)
def test_checker(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def imported_modules() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "volseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"volseg"}


def test_nothing_is_imported_that_is_not_declared() -> None:
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["openvino"]
    names = (re.split(r"[<>=\[]", requirement)[0].lower() for requirement in requirements)
    declared = {MODULES.get(name, name) for name in names}
    assert imported_modules() <= declared


def test_every_declared_version_is_pinned_for_the_tests() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in (ROOT / "constraints.txt").read_text().split()
    }
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    wanted = {re.sub(r"[-_.]+", "-", re.split(r"[<>=\[]", requirement)[0]).lower() for requirement in requirements}
    assert wanted <= pinned


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "monai", "numpy", "pandas", "nibabel", "SimpleITK", "pydicom", "pydantic"]
    code = f"import volseg.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    assert run("-c", code).stdout.strip() == "[]"


def test_the_readme_holds_the_two_commands() -> None:
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 2
    assert all("constraints.txt" in command for command in commands)
    assert "volseg demo" in commands[0]
    assert "pytest" in commands[1]


def test_no_module_has_grown_too_long() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "volseg").rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 420} == {}
