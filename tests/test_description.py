from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ConfigError
from volseg.exporting.description import Description, ModelIdentity, model_name
from volseg.image.volume import Label

MODEL = ModelIdentity("hippocampus", ("0123456789abcdef",))


def labels(*names: str) -> tuple[Label, ...]:
    return tuple(Label(value, name) for value, name in enumerate(names, start=1))


@pytest.mark.parametrize(
    ("series", "names", "text"),
    [
        ("volseg: {labels}", ("liver",), "volseg: liver"),
        ("volseg: {labels}", ("liver", "spleen"), "volseg: liver, spleen"),
        ("volseg: {labels}", ("x" * 45, "spleen", "aorta", "heart"), f"volseg: {'x' * 45}, 3 more"),
        ("volseg: {labels}", ("x" * 45, "urinary bladder"), f"volseg: {'x' * 45}, 1 more"),
        ("volseg: {labels}", ("x" * 50, "y" * 50), "volseg: 2 labels"),
        ("Auto {format} by {model}", ("liver",), "Auto rtstruct by hippocampus"),
        ("{labels} / {labels}", ("liver",), "liver / liver"),
        ("Leber ({labels})", ("große Läsion",), "Leber (große Läsion)"),
    ],
)
def test_a_series_is_called_by_its_labels_or_as_somebody_says(series: str, names: tuple[str, ...], text: str) -> None:
    assert Description(series, MODEL).series_of("rtstruct", labels(*names)) == text


def test_labels_are_named_in_the_order_of_their_values() -> None:
    mixed = (Label(7, "last"), Label(1, "first"))
    assert Description().series_of("dicom-seg", mixed) == "volseg: first, last"


@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=120))
def test_whatever_labels_are_called_they_have_room(names: list[str]) -> None:
    text = Description("{model} {labels}", MODEL).series_of("dicom-seg", labels(*names))
    assert len(text.encode("utf-8", "surrogatepass")) <= 64
    assert "\\" not in text


@pytest.mark.parametrize("text", ["", "  ", "a\\b", "a\nb", "a\x00b", "x" * 65, "ß" * 33])
def test_texts_that_dicom_cannot_state_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the series description"):
        Description(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{case}", "unknown field {case}"),
        ("{model.__class__}", "unknown field {model.__class__}"),
        ("{}", "unknown field {}"),
        ("x" * 56 + "{format}", "is too long"),
        ("x" * 54 + "{model}", "is too long"),
        ("x" * 53 + "{labels}", "is too long"),
    ],
)
def test_what_would_not_fit_is_known_before_anything_is_made(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Description(text, MODEL)
    assert problem in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("runs/hippocampus", "hippocampus"),
        ("runs/hippocampus/model.pt", "hippocampus"),
        ("runs/hippocampus/fold_3", "hippocampus"),
        ("runs/hippocampus/fold_3/model.pt", "hippocampus"),
        ("runs/hippocampus/.", "hippocampus"),
        ("runs/liver_v2.pt", "liver_v2"),
    ],
)
def test_a_model_is_called_by_its_run(place: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "hippocampus" / "fold_3").mkdir(parents=True)
    assert model_name([tmp_path / place]) == name


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "ß" * 60, "=1+1", " x ", "\ud800x", "\u202egpj"])
def test_odd_names_of_folders_become_names_that_dicom_can_state(name: str, tmp_path: Path) -> None:
    called = model_name([tmp_path / os.fsdecode(name.encode("utf-8", "surrogatepass"))])
    assert called.isprintable()
    assert len(called.encode()) <= 64
    assert not set(called) & set("/\\")
    assert str(tmp_path) not in called
    Description("{model}", ModelIdentity(called, ("0" * 16,)))


def test_the_networks_of_one_run_are_one_model_and_those_of_several_are_named_each(tmp_path: Path) -> None:
    for fold in ("a/fold_0", "a/fold_1", "b"):
        (tmp_path / fold).mkdir(parents=True)
    assert model_name([tmp_path / "a" / "fold_0", tmp_path / "a" / "fold_1"]) == "a"
    assert model_name([tmp_path / "a", tmp_path / "b"]) == "a + b"


def test_a_model_is_told_by_its_files(tmp_path: Path) -> None:
    contents = [b"one", b"other"]
    files = [tmp_path / "0.pt", tmp_path / "1.pt"]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    digests = tuple(hashlib.sha256(content).hexdigest()[:16] for content in contents)
    alone, both = ModelIdentity.of("a", files[:1]), ModelIdentity.of("a b", files)
    assert alone is not None
    assert both is not None
    assert (alone.hashes, alone.version) == (digests[:1], digests[0])
    assert both.hashes == digests
    assert both.version not in digests
    assert [ModelIdentity.parse(str(model)) for model in (alone, both)] == [alone, both]
    assert ModelIdentity.of("a", [tmp_path / "gone.pt"]) is None
    assert ModelIdentity.parse("") is ModelIdentity.parse("no hash") is None
