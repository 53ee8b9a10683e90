from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from volseg.config import (
    Config,
    PartialConfig,
    VNet,
    dump,
    merge,
    parse_assignments,
    read_config,
    read_overrides,
    validate,
)
from volseg.errors import ConfigError
from volseg.image.naming import plain_name

BASE: dict[str, Any] = {
    "data": {"labels": {"liver": 1, "spleen": 2}},
    "preprocessing": {"spacing_mm": [1, 1, 2.5], "normalization": [{"method": "zscore"}]},
    "patches": {"size": [32, 32, 16]},
    "network": {"name": "unet", "channels": [8, 16], "strides": [[2, 2, 1]], "dropout": 0.1},
}


def built(*assignments: str) -> Config:
    return validate(merge(BASE, parse_assignments(assignments)), "plan.yaml")


def refused(*assignments: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        built(*assignments)
    return caught.value


# Errors say where, what and what else


@pytest.mark.parametrize(
    ("assignment", "key", "given_value", "allowed"),
    [
        ("training.epochs=0", "training.epochs", "0", "greater than or equal to 1"),
        ("training.epochs=many", "training.epochs", "'many'", "valid integer"),
        ("training.epochs={a: 1}", "training.epochs", "{'a': 1}", "valid integer"),
        ("training.optimizer=adam", "training.optimizer", "'adam'", "'muon', 'adamw' or 'sgd'"),
        ("network.dropout=1.5", "network.dropout", "1.5", "less than or equal to 1"),
        ("network.name=resnet", "network", "resnet", "'segresnet'"),
        ("network=3", "network", "3", "dictionary"),
        ("preprocessing.normalization=[{method: widow}]", "preprocessing.normalization.0", "widow", "'window'"),
        ("preprocessing.spacing_mm=[1, 0, 1]", "preprocessing.spacing_mm.1", "0", "greater than 0"),
        ("preprocessing.spacing_mm=[1, .inf, 1]", "preprocessing.spacing_mm.1", "inf", "finite"),
        ("preprocessing.spacing_mm=[1, .nan, 1]", "preprocessing.spacing_mm.1", "nan", "finite"),
        ("patches.size=[32, 32, 0]", "patches.size.2", "0", "greater than or equal to 1"),
        ("augmentation.flip_axes=[up]", "augmentation.flip_axes.0", "'up'", "'left-right'"),
        ("data.labels={ct: 70000}", "data.labels.ct", "70000", "less than or equal to 65535"),
        ("data.labels={liver: 1.5}", "data.labels.liver", "1.5", "valid integer"),
        ("data=3", "data", "3", "dictionary"),
    ],
)
def test_an_error_names_file_key_value_and_what_is_allowed(
    assignment: str, key: str, given_value: str, allowed: str
) -> None:
    message = str(refused(assignment))
    assert message.startswith(f"plan.yaml: {key}: ")
    assert given_value in message.removeprefix(f"plan.yaml: {key}: ")
    assert allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.labels={a: 1, b: 1}", "two labels have the same value"),
        ("data.labels={}", "at least 1 item"),
        ("data.channels=[t1, t1]", "two channels have the same name: t1, t1"),
        ("data.channels=[t1, t2]", "normalization has 1 entries for 2 channels"),
        ("data.regions=[{name: x, labels: [3], value: 1}]", r"region 'x' consists of labels \[3\]"),
        ("data.regions=[{name: x, labels: [1], value: 1}, {name: x, labels: [2], value: 2}]", "the same name"),
        ("data.regions=[{name: x, labels: [1], value: 1}, {name: y, labels: [2], value: 1}]", "the same value"),
        ("preprocessing.normalization=[{method: window, low: 100, high: -100}]", "0: low must be below high"),
        ("preprocessing.normalization=[{method: ct, low: 1, high: 1, mean: 0, std: 1}]", "low must be below high"),
        ("preprocessing.normalization=[{method: percentiles, low: 99, high: 1}]", "low must be below high"),
        ("preprocessing.normalization=[{method: ct, low: 0, high: 1, mean: 0, std: 0}]", "0.std: .* greater than 0"),
        ("network.strides=[[2, 2, 2], [2, 2, 2]]", "2 channels need 1 strides, got 2"),
        ("training.fold=5", "fold 5 does not exist: there are 5, counted from 0"),
        ("postprocess=[{label: kidney}]", "names the unknown label 'kidney'; there are liver, spleen"),
        ("augmentation.swap_labels=[[liver, kidney]]", "swap_labels names kidney"),
    ],
)
def test_what_contradicts_itself_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^plan.yaml: .*{message}") as caught:
        built(assignment)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("assignment", "key", "hint"),
    [
        ("trainig.epochs=3", "trainig", "did you mean 'training'?"),
        ("training.epoch=3", "training.epoch", "did you mean 'epochs'?"),
        ("network.chanels=[8]", "network.chanels", "did you mean 'channels'?"),
        (
            "preprocessing.normalization=[{method: window, low: 0, hihg: 1}]",
            "preprocessing.normalization.0.hihg",
            "did you mean 'high'?",
        ),
        (
            "preprocessing.normalization=[{method: zscore, nonzeros: true}]",
            "preprocessing.normalization.0.nonzeros",
            "did you mean 'nonzero'?",
        ),
        ("postprocess=[{lable: liver}]", "postprocess.0.lable", "did you mean 'label'?"),
        ("patches.qqq=1", "patches.qqq", "allowed: size, foreground, planes"),
        ("data.labels.liver.x=1", None, "for example data.labels={liver: 1, spleen: 2}"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(assignment: str, key: str | None, hint: str) -> None:
    error = refused(assignment)
    if key is not None:
        assert str(error) == f"plan.yaml: there is no key {key!r}"
    assert error.hint == hint


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.labels={liver: 1, Liver: 2}", "the values 1 and 2 have the same name, 'Liver'"),
        ("data.labels={left_kidney: 1, left kidney: 2}", "the values 1 and 2 have the same name, 'left kidney'"),
        ("data.labels={liver: 1, spleen: 1}", "two labels have the same value"),
        ("data.labels={'': 1}", "a label has no name"),
        ("data.labels={_: 1}", "a label has no name"),
        ("data.regions=[{name: x, labels: [1], value: 1}, {name: X, labels: [2], value: 2}]", "the same name"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused_with_the_way_out(assignment: str, message: str) -> None:
    error = refused(assignment)
    assert message in str(error)
    assert error.hint
    if "regions" not in assignment:
        with pytest.raises(ConfigError, match=message):  # before a data set is looked at, too
            PartialConfig.of(parse_assignments([assignment]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n  labels: {liver: 1, liver: 2}\n", "the key 'liver' appears in line 2, and again in line 2"),
        ("data: {allow_gaps: true}\ntraining: {}\ndata: {}\n", "the key 'data' appears in line 1, and again in line 3"),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_file_and_lines(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_overrides(path)
    assert str(caught.value) == f"{path}: {message}"
    assert caught.value.hint == "keep one of the two"
    with pytest.raises(ConfigError, match=r"--set .*the key 'a' appears in line 1, and again"):
        parse_assignments(["data.labels={a: 1, a: 2}"])
    path.write_text("x: &base {a: 1}\ny: {<<: *base, a: 2}\n")  # what is laid over another is no second key
    assert read_overrides(path)["y"] == {"a": 2}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_keys_is_read_in_any_encoding_of_yaml(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes("data: {labels: {Großhirn: 1}}".encode(encoding))
    assert read_overrides(tmp_path / "config.yaml") == {"data": {"labels": {"Großhirn": 1}}}


def test_a_missing_section_is_named() -> None:
    tree = {key: value for key, value in BASE.items() if key != "patches"}
    assert not PartialConfig.of(tree).is_complete
    assert not PartialConfig.of(BASE).is_complete  # which channels there are is the data's to say
    assert PartialConfig.of(merge(BASE, {"data": {"channels": ["image"]}})).is_complete
    with pytest.raises(ConfigError, match=r"(?m)^x\.yaml: key 'patches' is missing$"):
        validate(tree, "x.yaml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ConfigError, match="cannot be set"):
        built().training.epochs = 3


# --set


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("2.5", 2.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("{name: vnet}", {"name": "vnet"}),
        ("", None),
    ],
)
def test_set_reads_yaml_values(text: str, value: Any) -> None:
    assert parse_assignments([f"a.b={text}"]) == {"a": {"b": value}}


def test_set_goes_on_where_the_last_one_stopped() -> None:
    words = ["training.epochs=1", "training.batch_size=2", "training.epochs=3", "loss.name=dice"]
    assert parse_assignments(words) == {"training": {"epochs": 3, "batch_size": 2}, "loss": {"name": "dice"}}
    assert parse_assignments([]) == {}


@pytest.mark.parametrize("word", ["training.epochs", "=3", "training..epochs=3", ".epochs=3", "training.=3", ""])
def test_a_word_that_is_no_assignment_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="not of the form key=value") as caught:
        parse_assignments([word])
    assert caught.value.hint == "for example --set training.epochs=100"


@pytest.mark.parametrize("text", ["[1, 2", "{a", '"x', "!!python/object:os.system {}"])
def test_a_value_that_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the value is not YAML") as caught:
        parse_assignments([f"a={text}"])
    assert "\n" not in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers() -> None:
    assert built("training.learning_rate=1e-3").training.learning_rate == 1e-3  # YAML 1.1 reads a word


# Merging


def test_merging_keeps_what_is_not_named() -> None:
    config = built("network.dropout=0.3", "training.epochs=7")
    assert config.network.model_dump() == {**Config.model_validate(BASE).network.model_dump(), "dropout": 0.3}
    assert config.training.epochs == 7
    assert config.training.batch_size == 4


def test_another_network_replaces_the_whole_one() -> None:
    assert built("network.name=vnet").network == VNet()
    assert built("network={name: vnet, dropout: 0.2}").network == VNet(dropout=0.2)
    assert built("network.name=unet").network.dropout == 0.1  # the same one is only changed


def test_labels_are_replaced_not_mixed() -> None:
    assert built("data.labels={kidney: 7}").data.labels == {"kidney": 7}


def test_merging_changes_neither() -> None:
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, over) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(trees, trees, trees)
def test_merging_is_associative_and_the_last_one_wins(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge(merge(a, b), b) == merge(a, b)
    assert merge(a, {}) == a
    assert merge({}, a) == a
    for key, value in c.items():
        if not isinstance(value, dict):
            assert merge(merge(a, b), c)[key] == value


# Files

names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
words = st.sampled_from(["no", "on", "1e3", "1_0", "12", "null", "~", "0x1", "a: b", "#x", "- y", "2024-01-01", "é"])


@given(
    st.dictionaries(names | words, st.integers(1, 65535), min_size=1, max_size=5).filter(
        lambda labels: len(set(labels.values())) == len(set(map(plain_name, labels)) - {""}) == len(labels)
    )
)
def test_a_dumped_config_reads_equal_whatever_labels_are_called(labels: dict[str, int]) -> None:
    config = validate({**BASE, "data": {"labels": labels}}, "test")
    assert validate(yaml.safe_load(dump(config)), "dump") == config


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        ["network.name=swin_unetr", "training.minutes=1.5", "augmentation.flip_axes=[left-right]"],
        ["preprocessing.normalization=[{method: ct, low: -100, high: 250, mean: 12.25, std: 1e-7}]"],
        ["data.regions=[{name: all, labels: [1, 2], value: 2}, {name: core, labels: [2], value: 1}]"],
        ["postprocess=[{label: '*', keep_largest: true}, {label: liver, min_volume_ml: 0.1, connectivity: 6}]"],
    ],
)
def test_a_dumped_config_reads_equal(assignments: list[str], tmp_path: Path) -> None:
    config = built(*assignments)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert read_config(path) == config
    assert dump(read_config(path)) == dump(config)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert read_overrides(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "is not YAML"),
        (b"a:\n\t- b", "is not YAML"),
        (b"a: \xff\xfe\x00", "is not YAML"),
        (b"- a\n- b", "holds list, not a mapping"),
        (b"just words", "holds str, not a mapping"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_overrides(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"cannot read the config {path}"):
            read_overrides(path)


# What follows from a config


def test_outputs_are_a_class_per_label_or_a_region_each() -> None:
    labels = built().data
    assert (labels.outputs, [label.name for label in labels.output_labels]) == (3, ["liver", "spleen"])
    regions = built("data.regions=[{name: all, labels: [1, 2], value: 5}]").data
    assert regions.outputs == 1
    assert [(label.name, label.value) for label in regions.output_labels] == [("all", 5)]
    assert [label.value for label in regions.reference_labels] == [1, 2]


def test_reference_labels_are_in_order_of_value() -> None:
    assert [label.name for label in built("data.labels={b: 9, a: 2, c: 4}").data.reference_labels] == ["a", "c", "b"]
