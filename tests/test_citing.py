"""`volseg cite`: every number is checked by hand, and what is cited is what was used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from conftest import TINY, MakeOnce, train_folder
from test_importing import write_model
from test_parts import write_weights
from test_training import ALL_FOLDS

import volseg
from volseg.about import Hardware, hash_of, made_now, write_about
from volseg.citing.images import augmentation_words, preparation_words
from volseg.citing.learning import learning_words, machine_words
from volseg.citing.methods import methods_of
from volseg.citing.networks import network_words
from volseg.citing.references import bibtex_of
from volseg.citing.scores import escaped
from volseg.citing.words import axes_words, named
from volseg.config import Config, EncoderName, LossName, NetworkName, OptimizerName, merge, read_config, validate
from volseg.errors import CheckpointError, DataError, OutputExistsError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import write_mask
from volseg.model.checkpoint import load, save
from volseg.reporting.record import read_record
from volseg.text import listed

ROOT = Path(__file__).parents[1]
OLD = Path(__file__).parent / "data" / "version_0_1_0" / "run"
MACHINE = Hardware(
    device="cpu", processor="AMD EPYC", cores=2, memory_gb=16.8, instructions="AVX512", bf16=True, processes=1
)
VALIDATION = """case_id,label,dice,views
a,left,0.8,1
a,right,0.5,1
b,left,0.9,1
b,right,0.5,1
c,left,1.0,1
c,right,0.5,1
d,left,,0
d,right,,0
"""
HISTORY = """epoch,step,seconds,dice
1,10,30.0,0.6
2,20,90.5,0.7
3,30,151.2,0.7
"""


def hand_written(folder: Path, *, folds: int = 1) -> Path:
    """A run of version 0.1.0 with tables whose numbers can be worked out on paper."""
    run = shutil.copytree(OLD, folder / "run")
    (run / "validation.csv").write_text(VALIDATION)
    splits = [{"train": ["b", "c", "d"], "val": ["a"]}, {"train": ["a", "d"], "val": ["b", "c"]}]
    splits = (
        [*splits, {"train": ["a", "b", "c"], "val": ["d"]}] if folds > 1 else [{"train": ["e"], "val": list("abcd")}]
    )
    (run / "splits.json").write_text(json.dumps(splits))
    content = load(run / "model.pt")
    if folds == 1:
        (run / "history.csv").write_text(HISTORY)
        return run
    config = {**yaml.safe_load(content["config"])}
    config["training"]["fold"] = "all"
    for number in range(folds):
        (run / f"fold_{number}").mkdir()
        save(run / f"fold_{number}" / "model.pt", {**content, "config": yaml.safe_dump(config)})
        (run / f"fold_{number}" / "history.csv").write_text(HISTORY)
    (run / "model.pt").unlink()
    return run


def keys(bibtex: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", bibtex, flags=re.MULTILINE)


def cited(methods: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"@([a-z]+[0-9]*[a-z]*)", methods)))


def assert_balanced(text: str) -> None:
    depth = 0
    for char in re.sub(r"\\[{}\\]", "", text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0


# Numbers


def test_the_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    run = hand_written(tmp_path)
    write_about(made_now(hardware=[MACHINE]), run)
    text = volseg.cite(run).methods
    # Steps and time are those of the last row, the epoch kept is the first of the best: 151.2 s = 2.5 minutes.
    assert (
        "Training took 30 steps (3 epochs) and 2.5 minutes, including data preparation, in mixed precision (bf16) on "
        "two processor cores (AMD EPYC, AVX-512) with 16.8 GB of memory." in text
    )
    assert "the epoch with the best validation Dice (2)" in text
    assert "The network was trained on 1 case, and 4 were used for validation." in text
    # Of the resamples of 0.8, 0.9 and 1.0, 1/27 > 2.5 % have the mean 0.8, and as many 1.0; d was not validated.
    assert "On 3 validation cases, the mean Dice coefficient [@dice1945]" in text
    assert "left 0.900 (0.800 to 1.000)" in text
    assert "right 0.500 (0.500 to 0.500)" in text
    # Means over labels: (0.9 + 0.5) / 2, and (0.8 + 0.5) / 2 to (1 + 0.5) / 2.
    assert "was 0.700 (95 % confidence interval 0.650 to 0.750)" in text
    assert "resampled to 1 x 1.1 x 2 mm (R x A x S) by linear interpolation" in text
    assert "patches of 16 x 16 x 16 voxels, with a batch size of 2. Of all patches, 67 % were centred" in text
    assert "peak learning rate of 0.01 and a weight decay of 0.01" in text
    weights = load(run / "model.pt")["weights"]  # instance norm has no running statistics: all weights are learned
    assert f"it had {sum(each.numel() for each in weights.values()):,} parameters" in text


def test_a_run_of_an_earlier_version_says_nothing_of_its_machine() -> None:
    text = volseg.cite(OLD).methods
    assert "Training took 120 steps (12 epochs) and 14 seconds, including data preparation." in text
    assert "processor" not in text
    assert "precision" not in text
    assert "volseg 0.1.0 [@volseg]" in text
    assert "PyTorch 2.13.0 [@paszke2019pytorch]" in text


def test_all_folds_are_cross_validation(tmp_path: Path) -> None:
    text = volseg.cite(hand_written(tmp_path, folds=3)).methods
    assert "The 4 cases were divided into three folds for cross-validation" in text
    assert "each of the three networks was trained on 2 to 3 cases and validated on the remaining 1 to 2" in text
    assert "so that every case was used for validation once" in text
    # Three times 151.2 s.
    assert "trained for 30 steps (3 epochs) each, which took 7.6 minutes in total, including data preparation." in text
    assert "each segmented by the network that had not been trained on it" in text
    assert "averaged over overlapping windows and the three networks" in text


def test_a_model_of_another_program_claims_nothing_of_its_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = volseg.import_model(write_model(tmp_path / "model", folds=("0", "1")), tmp_path / "run")
    made = volseg.cite(run)
    assert "Details of its training are not available." in made.methods
    assert "imported (nnU-Net v2, folds " in made.methods
    assert "learning rate" not in made.methods
    assert "cite what its authors ask for" in caplog.text
    assert not {"jordan2024muon", "milletari2016vnet", "dice1945"} & set(keys(made.bibtex))


def test_of_a_model_of_parts_no_part_stands_for_all(tmp_path: Path) -> None:
    for number in (291, 292, 293, 294, 295):
        write_weights(tmp_path / "weights", number, 1.5)
    run = volseg.import_model(tmp_path / "weights", tmp_path / "run", task="total")
    text = volseg.cite(run).methods
    assert "The model consists of five parts" in text
    assert "imported (TotalSegmentator, task total)" in text
    assert "resampled" not in text


def test_a_comparison_says_what_was_compared(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.move(hand_written(tmp_path, folds=3), runs / "3d")
    means = {"2d": 0.61, "3d": 0.7, "average": 0.69}
    (runs / "choice.json").write_text(json.dumps({"models": ["3d"], "out_of_fold_dice": means}))
    text = volseg.cite(runs).methods
    assert (
        "The mean out-of-fold Dice was: 2d 0.610, 3d 0.700 and average 0.690. The final model uses the 3d networks."
        in text
    )
    assert "three folds for cross-validation" in text


def test_chosen_postprocessing_is_told_and_whose_choice_it_was(tmp_path: Path) -> None:
    run = hand_written(tmp_path)
    content = load(run / "model.pt")
    config = {**yaml.safe_load(content["config"]), "postprocess": [{"label": "label_1", "keep_largest": True}]}
    save(run / "model.pt", {**content, "config": yaml.safe_dump(config)})
    text = volseg.cite(run).methods
    assert (
        "For label_1, only the largest connected component was kept. Post-processing was selected by the Dice of"
        in text
    )
    assert "at the voxel size of the network and before post-processing was 0.700" in text
    assert "used to select the epoch and the post-processing" in text
    (run / "config.yaml").write_text(yaml.safe_dump(config))  # asked for: nobody chose it
    assert "was selected" not in volseg.cite(run).methods


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processes": 1}, "two processor cores (AMD EPYC, AVX-512) with 16.8 GB of memory"),
        ({"processor": "", "cores": 1}, "one processor core (AVX-512) with 16.8 GB of memory"),
        ({"gpu": "NVIDIA H200", "device": "cuda"}, "one NVIDIA H200"),
        ({"gpu": "NVIDIA H200", "processes": 4}, "4 processes, each on one NVIDIA H200"),
    ],
)
def test_a_machine_in_words(changes: dict[str, Any], words: str) -> None:
    assert machine_words(MACHINE.model_copy(update=changes)) == words


# Scores


def volume(folder: Path, name: str, *boxes: tuple[int, slice]) -> None:
    """A mask of 10 x 10 x 10 voxels of 1 mm with boxes of full height and width."""
    array = np.zeros((10, 10, 10), np.uint8)
    for value, part in boxes:
        array[part] = value
    labels = (Label(1, "a_1"), Label(2, "b&c"))
    write_mask(Mask(array, Geometry(array.shape, np.eye(4)), labels), folder / f"{name}.nii.gz")


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Three cases: right twice, and once the first label was missed; the second label is always right."""
    for name, missed in (("x", False), ("y", False), ("z", True)):
        volume(tmp_path / "references", name, (1, slice(2, 4)), (2, slice(6, 8)))
        volume(tmp_path / "masks", name, *([] if missed else [(1, slice(2, 4))]), (2, slice(6, 8)))
    labels = json.dumps([{"value": 1, "name": "a_1"}, {"value": 2, "name": "b&c"}])
    for folder in ("references", "masks"):
        (tmp_path / folder / "labels.json").write_text(labels)
    volseg.evaluate(tmp_path / "masks", tmp_path / "references", tmp_path / "scores")
    return tmp_path / "scores"


def cells(table: str) -> list[list[str]]:
    rows = [line.strip().removesuffix(r"\\").strip() for line in table.splitlines() if line.endswith(r"\\")]
    return [re.split(r"(?<!\\) & ", row) for row in rows]


def test_the_table_has_the_scores(scores: Path, tmp_path: Path) -> None:
    made = volseg.cite(hand_written(tmp_path), scores)
    head, first, second, mean = cells(made.table)
    assert head == ["structure", "scored", "missed", "false alarms", "Dice", "HD95 (mm)", "NSD"]
    # Of 1, 1 and 0 the mean is 2/3; of resamples 1/27 are all 0 and 8/27 all 1, both more than 2.5 %.
    assert first[:5] == [r"a\_1", "3", "1", "0", "0.667 [0.000 to 1.000]"]
    assert second == [r"b\&c", "3", "0", "0", "1.000 [1.000 to 1.000]", "0.00 [0.00 to 0.00]", "1.000 [1.000 to 1.000]"]
    # A missed structure is as far away as the image is long: 10 sqrt(3) mm, in one of three cases.
    assert first[5].split()[0] == f"{10 * 3**0.5 / 3:.2f}"
    assert mean[:5] == ["mean", "6", "1", "0", "0.833 [0.500 to 1.000]"]
    assert "The mean Dice over the labels was 0.833 (95 % confidence interval 0.500 to 1.000)." in made.methods
    assert "The predicted masks of 3 cases were compared" in made.methods
    assert "within 2 mm of the other surface" in made.methods


def test_the_table_is_latex(scores: Path, tmp_path: Path) -> None:
    table = volseg.cite(hand_written(tmp_path), scores).table
    assert_balanced(table)
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", table)
    assert columns
    assert {len(row) for row in cells(table)} == {len(columns[1])}
    assert re.findall(r"\\(begin|end)\{(\w+)\}", table) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")
    ]  # fmt: skip
    if not (pdflatex := shutil.which("pdflatex")):
        return
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{table}\n\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(document)
    words = [pdflatex, "-interaction=batchmode", "-halt-on-error", "paper.tex"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_latex_is_escaped() -> None:
    assert escaped(r"50 % of_a {b} & c#1 \ ~^$") == (
        r"50 \% of\_a \{b\} \& c\#1 \textbackslash{} \textasciitilde{}\textasciicircum{}\$"
    )


def test_names_cannot_cite_or_mark_up_anything() -> None:
    assert named("[@volseg] *x*\n<b>") == r"\[\@volseg\] \*x\* \<b\>"
    assert keys(bibtex_of(named("[@volseg]"), "1")) == []
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_scores_of_another_model_are_refused(scores: Path, tmp_path: Path) -> None:
    run = hand_written(tmp_path)
    about = json.loads((scores / "about.json").read_text())
    about["facts"]["masks: model 1"] = hash_of(run / "model.pt")
    (scores / "about.json").write_text(json.dumps(about))
    assert volseg.cite(run, scores).table
    about["facts"]["masks: model 1"] = "0123456789abcdef"
    (scores / "about.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="evaluates masks of another model"):
        volseg.cite(run, scores)


def test_cases_that_taught_are_no_test_set(scores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = hand_written(tmp_path)
    volseg.cite(run, scores)
    assert not caplog.messages
    (run / "splits.json").write_text('[{"train": ["x", "q"], "val": ["y"]}]')
    volseg.cite(run, scores)
    (message,) = caplog.messages
    assert message.startswith("2 of the 3 scored cases have the names of training or validation cases")


# References


def test_bibtex_holds_what_is_cited_and_nothing_else(scores: Path, tmp_path: Path) -> None:
    for made in (volseg.cite(OLD), volseg.cite(hand_written(tmp_path), scores)):
        assert keys(made.bibtex) == cited(made.methods)
        assert len(set(keys(made.bibtex))) == len(keys(made.bibtex))
        assert_balanced(made.bibtex)
    assert "maierhein2024metrics" not in keys(volseg.cite(OLD).bibtex)
    assert f"Version {volseg.__version__}," in made.bibtex


def config_with(changes: dict[str, Any]) -> Config:
    tree = read_config(OLD / "config.yaml").model_dump(mode="json")
    for section, values in changes.items():
        tree[section] = values if section == "network" else merge(tree[section], values)
    return validate(tree, "the test")


def everything() -> list[Config]:
    """Every network, encoder, loss and optimiser."""
    wide = {"patches": {"size": [64, 64, 64]}}
    networks: list[dict[str, Any]] = [{"name": name} for name in get_args(NetworkName)]
    networks += [{"name": "encoder_unet", "encoder": {"name": name}} for name in get_args(EncoderName)]
    losses = [{"name": name} for name in get_args(LossName)]
    mixture = {"name": "mixture", "terms": {"dice": 1, "focal": 0.5}}
    return [
        *(config_with({"network": network, **wide}) for network in networks),
        *(config_with({"loss": loss}) for loss in (*losses, mixture)),
        *(config_with({"training": {"optimizer": name}}) for name in get_args(OptimizerName)),
    ]


def test_every_paper_is_there_and_every_entry_is_of_use() -> None:
    text = resources.files("volseg.citing").joinpath("references.bib").read_text(encoding="utf-8")
    there = keys(text)
    assert len(set(there)) == len(there)
    assert_balanced(text)
    said = "\n".join(f"{network_words(config)} {learning_words(config)}" for config in everything())
    source = "\n".join(path.read_text() for path in (ROOT / "volseg" / "citing").glob("*.py"))
    assert set(cited(said)) <= set(there)
    assert set(there) <= set(re.findall(r"@([a-z]+[0-9]*[a-z]*)", source))


def test_every_entry_is_whole() -> None:
    text = resources.files("volseg.citing").joinpath("references.bib").read_text(encoding="utf-8")
    entries = text.strip().split("\n\n")
    assert len(entries) == len(keys(text))
    for entry in entries:
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, flags=re.MULTILINE))
        assert len(fields) == len(entry.splitlines()) - 2, entry
        assert {"author", "title"} <= set(fields)
        assert "year" in fields or entry.startswith("@misc{volseg,")
        assert fields.get("doi", "10.").startswith("10.")
    bibtexparser = pytest.importorskip("bibtexparser")
    assert len(bibtexparser.loads(text).entries) == len(entries)


def test_networks_and_losses_are_told_apart() -> None:
    said = [network_words(config) for config in everything()[: len(get_args(NetworkName))]]
    assert len(set(said)) == len(said)
    assert "exceeded" not in "".join(said)
    words = learning_words(config_with({"loss": {"name": "mixture", "terms": {"dice": 1, "focal": 0.5}}}))
    assert "the sum of 1 times the Dice loss [@milletari2016vnet] and 0.5 times the focal loss [@lin2017focal]" in words


@pytest.mark.parametrize(
    ("normalization", "words"),
    [
        (
            {"method": "zscore"},
            "normalised to zero mean and unit variance in each image, computed over its nonzero voxels",
        ),
        (
            {"method": "ct", "low": -100, "high": 300, "mean": 80, "std": 40},
            "clipped to -100 to 300 and standardised with mean 80 and",
        ),
        ({"method": "window", "low": 0, "high": 9}, "clipped to 0 to 9 and rescaled to 0 to 1"),
        ({"method": "percentiles"}, "clipped to percentiles 0.5 and 99.5 of each image"),
        ({"method": "none"}, "Intensities were left unchanged."),
    ],
)
def test_normalisation_in_words(normalization: dict[str, Any], words: str) -> None:
    assert words in preparation_words(config_with({"preprocessing": {"normalization": [normalization]}}))


def test_only_what_was_done_to_patches_is_told() -> None:
    none = {key: 0 for key in config_with({}).augmentation.model_dump() if key.endswith("_probability")}
    assert augmentation_words(config_with({"augmentation": none})) == "Patches were not augmented."
    noise = augmentation_words(config_with({"augmentation": none | {"noise_probability": 0.2}}))
    assert noise == "Patches were randomly augmented (probabilities in parentheses) with Gaussian noise (0.2)."
    turned = {**none, "affine_probability": 0.5, "scaling": 0.0, "translation_fraction": 0.0}
    assert "affine transforms (0.5; rotation by up to 15°)" in augmentation_words(config_with({"augmentation": turned}))


# Files and the command line


def test_files_are_written_and_those_of_somebody_else_stay(scores: Path, tmp_path: Path) -> None:
    run, paper = hand_written(tmp_path), tmp_path / "paper"
    made = volseg.cite(run, scores, paper)
    assert (paper / "methods.md").read_text(encoding="utf-8") == made.methods + "\n"
    assert (paper / "references.bib").read_text(encoding="utf-8") == made.bibtex + "\n"
    assert (paper / "table.tex").read_text(encoding="utf-8") == made.table + "\n"
    volseg.cite(run, scores, paper)  # what it wrote itself it may replace
    (paper / "methods.md").write_text("my methods")
    with pytest.raises(OutputExistsError):
        volseg.cite(run, scores, paper)
    assert (paper / "methods.md").read_text() == "my methods"


def test_the_command_prints_or_writes(
    volseg_cli: Callable[..., tuple[int, str, str]], scores: Path, tmp_path: Path
) -> None:
    run = hand_written(tmp_path)
    made = volseg.cite(run, scores)
    code, out, _ = volseg_cli("cite", run, scores)
    assert (code, out) == (0, f"{made.methods}\n\n{made.bibtex}\n\n{made.table}\n")
    code, out, _ = volseg_cli("cite", run, "--output", tmp_path / "paper")
    assert (code, out) == (0, f"wrote methods.md and references.bib in {tmp_path / 'paper'}\n")
    code, _, err = volseg_cli("cite", tmp_path / "nothing")
    assert (code, err.startswith("error: ")) == (2, True)
    code, _, err = volseg_cli("cite", run, tmp_path)
    assert (code, err.startswith("error: ")) == (2, True)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        volseg.cite(tmp_path)


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    run = hand_written(tmp_path)
    (run / "validation.csv").unlink()
    with pytest.raises(DataError, match="is not finished") as caught:
        volseg.cite(run)
    assert "--resume" in caught.value.hint


def test_axes_have_their_names_or_their_places() -> None:
    assert axes_words(("left-right", "i"), flat=False) == "left-right and first axis"
    assert axes_words(("j", "k"), flat=True) == "first axis and second axis"


def test_a_real_run_is_told_whole(dataset: Path, tmp_path: Path) -> None:
    tree = merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 2}, "network": {"name": "unet"}})
    run = train_folder(dataset, tmp_path / "run", tree)
    text = methods_of(read_record(run.folder))
    assert "Training took 2 steps (1 epoch)" in text
    assert "processor core" in text
    assert "GB of memory" in text
    assert "None" not in text
    assert "nan" not in text
    assert not [case for case in (f"case_{n}" for n in range(6)) if case in text]


# docs/citing.md and CITATION.cff


def test_the_examples_of_the_document_run(
    volseg_cli: Callable[..., tuple[int, str, str]], scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    (tmp_path / "runs").mkdir()
    shutil.move(hand_written(tmp_path), tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    (command, expected), *rest = re.findall(r"^\$ volseg (.*)\n(.*)$", text, flags=re.MULTILINE)
    assert not rest
    assert volseg_cli(*command.split())[:2] == (0, f"{expected}\n")
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    exec(compile(program, "docs/citing.md", "exec"), {})
    files = set(re.findall(r"paper/(\w+\.\w+)", text)) | set(re.findall(r"^\| `(\w+\.\w+)`", text, flags=re.MULTILINE))
    assert files == {path.name for path in (tmp_path / "paper").glob("[!.]*")}
    if pandoc := shutil.which("pandoc"):
        words = ["--citeproc", "--bibliography", "paper/references.bib", "--output", "methods.docx"]
        done = subprocess.run([pandoc, "paper/methods.md", *words], capture_output=True, text=True, check=True)
        assert "not found" not in done.stderr


def test_the_citation_file_is_that_of_this_version() -> None:
    stated = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert stated["cff-version"] == "1.2.0"
    assert stated["version"] == volseg.__version__
    assert stated["license"] == "Apache-2.0"
    assert stated["authors"] == [{"name": "The volseg authors"}]
    required = {"cff-version", "message", "title", "authors"}  # of the schema 1.2.0
    assert required <= set(stated)
    assert set(stated) - required == {"type", "abstract", "version", "license", "keywords"}
    assert stated["type"] == "software"
    (bib,) = re.findall(r"title = \{(.*)\}", bibtex_of("[@volseg]", volseg.__version__))
    assert bib.replace("{", "").replace("}", "") == stated["title"]


def test_a_trained_run_of_all_folds_is_cross_validation(dataset: Path, make_once: MakeOnce) -> None:
    run = make_once("folds_run", lambda folder: train_folder(dataset, folder, ALL_FOLDS))
    text = volseg.cite(run).methods
    assert "cross-validation: each of the" in text
    assert "The network was trained on" not in text
