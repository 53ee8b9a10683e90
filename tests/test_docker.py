from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))

each_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Keyword and arguments of every instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(keyword, arguments) for keyword, arguments in pairs]


def arguments_of(path: Path, keyword: str) -> list[str]:
    return [arguments for found, arguments in instructions(path) if found == keyword]


def copied(path: Path) -> list[str]:
    return [source for arguments in arguments_of(path, "COPY") for source in shlex.split(arguments)[:-1]]


def test_there_is_an_image_for_either_machine() -> None:
    assert [path.suffix for path in DOCKERFILES] == [".cpu", ".cuda"]


@each_dockerfile
def test_base_image_is_pinned_to_a_patch_version(path: Path) -> None:
    (base,) = arguments_of(path, "FROM")
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9-.]+", base)


@each_dockerfile
def test_everything_copied_is_there_and_gets_into_the_build(path: Path) -> None:
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    for source in copied(path):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in patterns, f".dockerignore keeps {source} out"


@each_dockerfile
def test_whatever_the_package_is_built_from_is_copied(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {"pyproject.toml", "volseg", "constraints.txt", project["readme"], *project["license-files"]}
    assert needed <= set(copied(path))


@each_dockerfile
def test_versions_come_from_the_constraints(path: Path) -> None:
    installs = [run for run in arguments_of(path, "RUN") if "pip install" in run]
    assert installs
    assert all("--constraint constraints.txt" in run for run in installs)


@each_dockerfile
def test_runs_volseg_as_a_user_without_privileges(path: Path) -> None:
    keywords = [keyword for keyword, _ in instructions(path)]
    (user,) = arguments_of(path, "USER")
    assert user not in {"root", "0"}
    assert any(re.search(rf"useradd .*\b{user}$", run) for run in arguments_of(path, "RUN"))
    assert "RUN" not in keywords[keywords.index("USER") :], "nothing is installed after the change of user"
    assert [json.loads(arguments) for arguments in arguments_of(path, "ENTRYPOINT")] == [["volseg"]]


@each_dockerfile
def test_docker_stop_reaches_volseg(path: Path) -> None:
    """No shell in between, which would keep the signal to itself; tests/test_signals.py has volseg as first process."""
    assert arguments_of(path, "STOPSIGNAL") == ["SIGTERM"]
    assert all(arguments_of(path, keyword)[-1].startswith("[") for keyword in ("ENTRYPOINT", "CMD"))


@each_dockerfile
def test_home_can_be_written_by_any_user(path: Path) -> None:
    assert any(re.search(r"\bHOME=/tmp\b", setting) for setting in arguments_of(path, "ENV"))


def test_the_readme_builds_every_image() -> None:
    readme = (ROOT / "docker" / "README.md").read_text()
    for path in DOCKERFILES:
        assert f"-f docker/{path.name}" in readme
