"""README.md and docs/: what they show runs, what they list is complete, and the site builds without a warning."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml
from conftest import MakeOnce, train_folder
from nbclient import NotebookClient

import volseg
from volseg.cases.phantoms import LABELS, write_dataset
from volseg.config import Config, read_config, validate
from volseg.config.descriptions import descriptions
from volseg.config.section import Section
from volseg.planning import Plan
from volseg.serving import ServerConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
#: Documents whose commands work on what `volseg demo` makes.
ON_THE_DEMO = ["README.md", "docs/train.md", "docs/predict.md", "docs/evaluate.md", "docs/dicom.md"]
#: Of training, so that a command takes seconds.
BRIEF = "--epochs 1 --set training.steps_per_epoch=1 --set training.workers=0 --set inference.backend=torch"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(kind: type[Section] = Section) -> Iterator[type[Section]]:
    for section in kind.__subclasses__():
        yield section
        yield from sections(section)


# Configuration


def test_every_key_is_described_by_a_sentence() -> None:
    described = [each for each in sections() if not each.__name__.startswith(("Partial", "_"))]
    assert len(described) > 30
    assert {each.__name__: set(each.model_fields) - set(descriptions(each)) for each in described if each.__doc__} == {
        each.__name__: set() for each in described
    }
    odd = [
        text for each in described for text in descriptions(each).values() if not text[0].isupper() or text[-1] != "."
    ]
    assert [text for text in odd if text[0] not in "`023"] == []


def test_the_page_about_the_configuration_is_what_the_models_say() -> None:
    page = script("write_configuration").page()
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == page, "run python docs/write_configuration.py"
    assert all(f"\n## {section}\n" in page for section in Config.model_fields)


def test_a_planned_file_says_what_each_key_means_and_fits_a_screen(trained_run: Path) -> None:
    config = read_config(trained_run / "config.yaml")
    plan = Plan(config, {"patches.size": "the median volume is " + "20 x 18 x 16 voxels, " * 20})
    text = plan.to_yaml()
    assert validate(yaml.safe_load(text), "the plan") == config
    assert max(map(len, text.splitlines())) <= 100
    joined = re.sub(r"\n\s*# ", " ", text)
    for section in Config.model_fields.values():
        if isinstance(section.annotation, type) and issubclass(section.annotation, Section):
            assert all(described in joined for described in descriptions(section.annotation).values())
    assert "Planned: the median volume" in joined


def test_every_key_of_a_server_is_listed_and_what_is_shown_is_possible() -> None:
    page = (DOCS / "serve.md").read_text(encoding="utf-8")
    table = page.partition("## Every key")[2]
    missing = [
        f"{kind.__name__}.{name}"
        for kind in sections()
        if kind.__module__.startswith("volseg.serving.config") and kind is not ServerConfig
        for name in kind.model_fields
        if name not in table
    ]
    assert not missing
    assert all(f"`{name}" in table for name in ServerConfig.model_fields)
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    for text in (*shown, compose["configs"]["serve"]["content"]):
        config = ServerConfig.model_validate(yaml.safe_load(text))
        config.check_protection(has_users=True)


# Pages


def test_the_api_page_lists_every_public_name() -> None:
    listed = re.findall(r"^::: volseg\.(\w+)$", (DOCS / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(volseg.__all__) - {"__version__", "transforms"})


def test_every_page_is_in_the_menu() -> None:
    menu = re.findall(r'= "([\w-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(menu) == PAGES


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    (tmp_path / "volseg").symlink_to(ROOT / "volseg")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "site"
    for page in PAGES:
        assert (site / page.removesuffix(".md").replace("index", "") / "index.html").is_file()
    api = (site / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="volseg.train"' in api
    assert "Raises" in api
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', api)
    assert loaded == []  # a hospital's network may reach nothing else


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert ((ROOT / document).parent / target).exists(), target


def test_the_readme_is_read_in_five_minutes() -> None:
    """At 250 words a minute, its commands included."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1250


# Examples


@pytest.fixture(scope="module")
def demo(make_once: MakeOnce) -> Path:
    """What `volseg demo` makes, with a model that has learned next to nothing."""

    def make(folder: Path) -> None:
        write_dataset(folder / "train", 6, seed=0)
        write_dataset(folder / "test", 4, seed=1000)
        tree = {
            "data": {"labels": {label.name: label.value for label in LABELS}, "modality": "unknown"},
            "network": {"name": "unet", "channels": [8, 16, 16], "strides": [[2, 2, 2]] * 2},
            "training": {"epochs": 1, "steps_per_epoch": 2, "workers": 0, "folds": 3},
            "inference": {"backend": "torch"},
        }
        train_folder(folder / "train", folder / "run", tree)
        volseg.load(folder / "run").predict_folder(folder / "test", folder / "masks")

    return make_once("volseg-demo-documented", make)


def commands(document: str) -> list[str]:
    """The commands of a document; training takes a step."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ volseg ")]
    return [re.sub(r"(volseg train .*?)( --minutes \d+|$)", rf"\1 {BRIEF}", line, count=1) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("document", ON_THE_DEMO)
def test_every_command_of_a_document_runs(
    document: str,
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    volseg: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo, "volseg-demo")
    found = commands(document)
    assert found
    for command in found:
        code, out, err = volseg(*shlex.split(command)[1:])
        if "training.epoch=3" in command:  # which shows what an error looks like
            assert code == 2
            assert "error: the configuration: there is no key 'training.epoch'" in err
            assert "did you mean 'epochs'?" in err
        else:
            assert code == 0, (command, out, err)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep it without output"
    (first,) = (cell for cell in notebook.cells if "minutes = 2" in cell.source)
    first.source = first.source.replace("minutes = 2", "minutes = 0.2")
    client = NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "volseg-tutorial" / "phantom_04.seg.dcm").is_file()
