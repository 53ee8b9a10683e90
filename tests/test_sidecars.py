from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from volseg.exporting.sidecars import write_itksnap_labels, write_niivue_colormap
from volseg.image.terminology import Code, Structure, default_color
from volseg.image.volume import Label

KIDNEY = Structure(
    Code("123037004", "SCT", "Anatomical Structure"), Code("64033007", "SCT", "Kidney"), color=(185, 102, 83)
)
LABELS = (
    Label(12, 'a "quoted"\nname', (255, 0, 51)),
    Label(3, "left kidney", structure=KIDNEY),
    Label(40000, "Gefäß", (1, 20, 3)),
)


def read_itksnap(text: str) -> dict[int, tuple]:
    """Rows as ITK-SNAP's ColorLabelTable::LoadFromFile takes them: numbers, then text between quotation marks."""
    rows = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        numbers, name, rest = line.split('"')
        assert not rest
        index, red, green, blue, alpha, visible, mesh = numbers.split()
        rows[int(index)] = (int(red), int(green), int(blue), float(alpha), int(visible), int(mesh), name)
    return rows


def niivue_lut(colormap: dict) -> dict[int, tuple]:
    """Value -> colour and name as NiiVue's makeLabelLut finds them."""
    lengths = {len(colormap[key]) for key in ("R", "G", "B", "A", "I", "labels")}
    assert len(lengths) == 1
    values = colormap["I"]
    dense = max(values) - min(values) + 1
    places = range(min(values), max(values) + 1) if len(colormap["labels"]) == dense else values
    names = dict(zip(places, colormap["labels"], strict=True))
    colors = zip(colormap["R"], colormap["G"], colormap["B"], colormap["A"], strict=True)
    return {value: (*color, names[value]) for value, color in zip(values, colors, strict=True)}


def test_colours_come_from_the_label_then_its_structure_then_its_value() -> None:
    assert Label(3, "x", (1, 2, 3), structure=KIDNEY).display_color == (1, 2, 3)
    assert Label(3, "x", (0, 0, 0), structure=KIDNEY).display_color == (0, 0, 0)
    assert Label(3, "x", structure=KIDNEY).display_color == (185, 102, 83)
    assert Label(3, "x", structure=Structure(KIDNEY.category, KIDNEY.type)).display_color == default_color(3)
    assert Label(3, "x").display_color == default_color(3)


def test_itksnap_reads_names_and_colours(tmp_path: Path) -> None:
    write_itksnap_labels(LABELS, tmp_path / "labels.txt")
    text = (tmp_path / "labels.txt").read_text(encoding="utf-8")
    assert "# ITK-SnAP Label Description File" in text
    assert read_itksnap(text) == {
        0: (0, 0, 0, 0.0, 0, 0, "Clear Label"),
        3: (185, 102, 83, 1.0, 1, 1, "left kidney"),
        12: (255, 0, 51, 1.0, 1, 1, "a 'quoted' name"),
        40000: (1, 20, 3, 1.0, 1, 1, "Gefäß"),
    }
    assert [int(row) for row in re.findall(r"^ *(\d+) ", text, flags=re.MULTILINE)] == [0, 3, 12, 40000]


def test_itksnap_columns_are_those_it_writes_itself(tmp_path: Path) -> None:
    write_itksnap_labels((Label(1, "one", (255, 0, 7)),), tmp_path / "labels.txt")
    *_, clear, one, end = (tmp_path / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert clear == '    0     0    0    0        0  0  0    "Clear Label"'
    assert one == '    1   255    0    7        1  1  1    "one"'
    assert end == ""


@pytest.mark.parametrize("labels", [LABELS, (Label(2, "two", (2, 2, 2)), Label(1, "one", (1, 1, 1)))])
def test_niivue_reads_names_and_colours(labels: tuple[Label, ...], tmp_path: Path) -> None:
    write_niivue_colormap(labels, tmp_path / "colormap.json")
    colormap = json.loads((tmp_path / "colormap.json").read_text(encoding="utf-8"))
    expected = {label.value: (*label.display_color, 255, label.name) for label in labels}
    assert niivue_lut(colormap) == {0: (0, 0, 0, 0, "background")} | expected


def test_no_labels_are_the_background_alone(tmp_path: Path) -> None:
    write_itksnap_labels((), tmp_path / "labels.txt")
    write_niivue_colormap((), tmp_path / "colormap.json")
    assert list(read_itksnap((tmp_path / "labels.txt").read_text())) == [0]
    assert json.loads((tmp_path / "colormap.json").read_text())["I"] == [0]
