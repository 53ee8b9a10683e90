"""A wrong key of the configuration is refused before any file is looked at, and names the one that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import volseg
from volseg.config import Config, PartialConfig, parse_assignments
from volseg.config.keys import EXAMPLES, SYNONYMS, known_keys
from volseg.errors import ConfigError

NOWHERE = Path("/there/is/no/such/folder")


def refused(*assignments: str) -> ConfigError:
    """What planning says; a key that passes would fail on the folder, which does not exist."""
    with pytest.raises(ConfigError) as caught:
        volseg.plan(NOWHERE, changes=parse_assignments(assignments))
    return caught.value


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("training.lr=0.1", "did you mean 'learning_rate'?"),
        ("training.LearningRate=0.1", "did you mean 'learning_rate'?"),
        ("training.num_epochs=5", "did you mean 'epochs'?"),
        ("training.val_split=0.2", "did you mean 'holdout'?"),
        ("lr=0.1", "did you mean 'training.learning_rate'?"),
        ("epochs=5", "did you mean 'training.epochs'?"),
        ("batch_size=2", "did you mean 'training.batch_size'?"),
        ("batch=2", "did you mean 'training.batch_size'?"),
        ("patch=[32, 32, 32]", "did you mean 'patches.size'?"),
        ("training.patch_size=[32, 32, 32]", "did you mean 'patches.size'?"),
        ("patches.patch_size=[32, 32, 32]", "did you mean 'size'?"),
        ("data.spacing=[1, 1, 1]", "did you mean 'preprocessing.spacing_mm'?"),
        ("num_classes=3", "did you mean 'data.labels'?"),
        ("inference.tta=true", "did you mean 'mirror_axes'?"),
        ("inference.batchsize=2", "did you mean 'batch_size'?"),
        ("inference.mirror=true", "did you mean 'mirror_axes'?"),
        ("inference.batch_siez=2", "did you mean 'batch_size'?"),
        ("augmentation.mirror=true", "did you mean 'flip_axes'?"),
        ("data.modalities=CT", "did you mean 'modality'?"),
        ("Training.epochs=5", "did you mean 'training'?"),
        ("network.base_filters=16", "did you mean 'filters'?"),
        ("network.chanels=[8, 16]", "did you mean 'channels'?"),
        ("patches.qqq=1", "allowed: size, foreground, planes"),
    ],
)
def test_a_wrong_key_names_the_one_that_was_meant(assignment: str, hint: str) -> None:
    error = refused(assignment)
    assert str(error).startswith("the configuration: there is no key '")
    assert error.hint == hint


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("network=vnet", "network.name=vnet"),
        ("network=dynunet", "network.name=dynunet"),
        ("loss=dice", "loss.name=dice"),
    ],
)
def test_a_name_in_place_of_a_section_names_its_key(assignment: str, meant: str) -> None:
    error = refused(assignment)
    assert "must be a section" in str(error)
    assert error.hint.startswith(f"did you mean '{meant}'? its keys are name, ")


def test_a_number_in_place_of_a_section_lists_its_keys() -> None:
    assert refused("patches=64").hint == "its keys are size, foreground, planes"
    assert "did you mean" not in refused("network=resnet50").hint
    assert "[{method: zscore}]" in refused("preprocessing.normalization=zscore").hint


@pytest.mark.parametrize(
    "assignment",
    [
        "data.labels=[liver]",
        "data.labels=liver",
        "data.labels.liver=one",
        "data.channels=t1",
        "data.regions={whole: [1, 2]}",
        "data.segments={liver: Leber}",
        "data.series=CT",
        "data.series.ct.slices=5",
        "data.structures.liver={}",
        "data.structures.liver.color=red",
        "preprocessing.spacing_mm=1",
        "preprocessing.normalization=[{}]",
        "patches.size=64",
        "patches.size=[64, 64]",
        "patches.size=[64, 64, 64, 64]",
        "augmentation.rotation_degrees=15",
        "augmentation.gamma=1",
        "network={name: unet, channels: 16}",
        "network={name: dynunet, strides: 2}",
        "inference.mirror_axes=true",
        "postprocess={liver: 1}",
        "domain.spacings_mm=1",
    ],
)
def test_a_value_of_another_form_is_answered_with_one_of_the_right_form(assignment: str) -> None:
    error = refused(assignment)
    key = ".".join(assignment.partition("=")[0].split(".")[:2])
    assert error.hint.startswith(f"for example {key}")
    assert "tuple, given" not in str(error)
    example = error.hint.removeprefix("for example ")
    assert PartialConfig.of({"network": {"name": "unet"}}).laid_over_partial(parse_assignments([example])) is not None


def test_every_example_is_allowed() -> None:
    for key, example in EXAMPLES.items():
        assert PartialConfig.of(parse_assignments([f"{key}={example}"])).states(key)


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "[0]"])
def test_a_fold_that_is_none_is_told_of_numbers_and_all(given: str) -> None:
    error = refused(f"training.fold={given}")
    assert "training.fold: must be the number of a fold, from 0, or all; given " in str(error)
    assert error.hint == "for example training.fold=all"


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("data.structures.liver.lke=liver", "did you mean 'like'?"),
        ("data.series.image.modalty=CT", "did you mean 'modality'?"),
        ("data.series.ct.modalty=CT", "did you mean 'modality'?"),  # "ct" is a normalization, too
        ("preprocessing.normalization=[{method: window, low: 0, hihg: 1}]", "did you mean 'high'?"),
        ("data.structures.liver=liver", "its keys are like, type, category, modifier, region, color"),
    ],
)
def test_a_wrong_key_inside_a_dictionary_or_a_list_names_the_one_that_was_meant(assignment: str, hint: str) -> None:
    assert refused(assignment).hint == hint


def test_keys_of_a_network_are_checked_before_the_data_set_is_read() -> None:
    error = refused("network.name=vnet", "network.residual=true")
    assert str(error) == "the configuration: there is no key 'network.residual' of vnet"
    assert error.hint == "network.name=dynunet has it"
    assert "less than or equal to 1" in str(refused("network.name=vnet", "network.dropout=7"))
    # The network that is planned where none is named has no such key either.
    assert "of dynunet" in str(refused("network.initial_filters=16"))


def test_a_wrong_key_of_a_file_is_told_by_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {lr: 0.1}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: there is no key 'training\.lr'"):
        volseg.plan(NOWHERE, config=tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("training: {freeze_encoder: true}\n")  # complete with the change alone
    with pytest.raises(ConfigError, match=r"the configuration: there is no key 'training\.lr'"):
        volseg.plan(NOWHERE, config=tmp_path / "mine.yaml", changes={"training.lr": 1.0, "training.start_from": "run"})


def test_every_verb_that_takes_keys_checks_them_first(volseg_cli: Callable[..., tuple[int, str, str]]) -> None:
    output = ("--output", NOWHERE / "out")
    for words in (
        ("plan", NOWHERE, *output),
        ("train", NOWHERE, *output),
        ("predict", NOWHERE, "--model", NOWHERE, *output),
        ("inspect", NOWHERE),
    ):
        code, _, err = volseg_cli(*words, "--set", "training.lr=1")
        assert (code, "did you mean 'learning_rate'?" in err) == (2, True), words
    code, _, err = volseg_cli("predict", NOWHERE, "--model", NOWHERE, *output, "--set", "training.epochs=1")
    assert (code, "cannot be changed after training" in err) == (2, True)


def test_every_synonym_stands_for_a_key_that_there_is() -> None:
    assert set(SYNONYMS) <= set(known_keys(Config))
    words = [word for words in SYNONYMS.values() for word in words.split()]
    assert len(words) == len(set(words))
