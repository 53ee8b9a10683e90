"""The checks of the code itself, part of the one test command."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from volseg import errors

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Distributions whose modules have another name.
MODULES = {
    "connected-components-3d": "cc3d",
    "argon2-cffi": "argon2",
    "dask-jobqueue": "dask_jobqueue",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "simpleitk": "SimpleITK",
    "fast-simplification": "fast_simplification",
    "fill-voids": "fill_voids",
}
HOOKS: list[dict[str, Any]] = [
    hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]
]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    # The programs of this environment come first, as where it is active. A library that other tests load may have set
    # the locale of this process to plain C.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)


#: mypy reads everything anew where it has no cache.
SLOW_HOOKS = {"mypy"}


@pytest.mark.parametrize(
    "hook",
    [pytest.param(hook, id=hook["id"], marks=[pytest.mark.slow] if hook["id"] in SLOW_HOOKS else []) for hook in HOOKS],
)
def test_hook_before_a_commit(hook: dict[str, Any]) -> None:
    assert hook["language"] == "system", "versions are those of the environment"
    assert not hook["pass_filenames"], "the whole tree is looked at, here and before a commit"
    done = run(*shlex.split(hook["entry"]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hooks_are_all_checks_there_are() -> None:
    assert [hook["id"] for hook in HOOKS] == ["ruff-check", "ruff-format", "mypy", "import-linter"]


def test_contributors_are_told_of_every_hook() -> None:
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{hook['entry'].removesuffix(' --check')}" in told for hook in HOOKS)


def test_installed_versions_fit_together() -> None:
    done = run(sys.executable, "-m", "pip", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_the_same_script_and_may_only_read() -> None:
    (job,) = WORKFLOW["jobs"].values()
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in job
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_the_workflow_tests_the_oldest_python_that_is_promised() -> None:
    (job,) = WORKFLOW["jobs"].values()
    assert PROJECT["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


def test_actions_are_pinned_to_a_commit() -> None:
    (job,) = WORKFLOW["jobs"].values()
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action) for action in actions)


def imported_modules() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "volseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"volseg"}


def test_nothing_is_imported_that_is_not_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *extras["onnx"], *extras["cluster"], *extras["serve"]]
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
    assert run(sys.executable, "-c", code).stdout.strip() == "[]"


def test_the_readme_holds_the_two_commands() -> None:
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(commands) == 2
    assert all("constraints.txt" in command for command in commands)
    assert "volseg demo" in commands[0]
    assert "pytest" in commands[1]


def test_every_row_about_input_names_a_test_that_there_is() -> None:
    text = (ROOT / "docs" / "input.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| --- |" not in line]
    rows = [line for line in rows if not line.startswith("| what may be found")]
    named = [re.findall(r"`(test_\w+\.py)::(test_\w+)`", line) for line in rows]
    assert [row for row, tests in zip(rows, named, strict=True) if not tests or row.count("|") != 5] == []
    missing = [
        (module, name)
        for module, name in (test for tests in named for test in tests)
        if f"def {name}(" not in (ROOT / "tests" / module).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_no_module_has_grown_too_long() -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "volseg").rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 400} == {}


#: What looks at the files, words and settings of people; beneath it, functions are given arrays by a program.
ANSWERABLE = [
    path
    for path in sorted((ROOT / "volseg").rglob("*.py"))
    if not {"image", "inference"} & set(path.relative_to(ROOT).parts)
]
#: What becomes a remark on a PET, which is then read in Bq/ml, and what gets its hint where it is caught.
REMARKS = "suv.py", "_ContradictionError", "MemoryShortageError"


def test_every_refusal_says_what_to_do() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ANSWERABLE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and (name := ast.unparse(node.exc.func)).endswith("Error")
        and (hasattr(errors, name) or name == "_ContradictionError")
        and not any(keyword.arg == "hint" for keyword in node.exc.keywords)
        and not {name, path.name} & set(REMARKS)
    ]
    assert bare == []
