from __future__ import annotations

import csv
import math
import re
import string
from collections import Counter
from importlib import resources
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts

from volseg.errors import ConfigError
from volseg.image.terminology import (
    _CATEGORIES,
    _MODIFIERS,
    Code,
    Structure,
    default_color,
    is_private,
    lookup,
    matches,
    private,
)

ROWS = list(csv.DictReader(resources.files("volseg.image").joinpath("terminology.csv").read_text("utf-8").splitlines()))
NAMES = [row["name"] for row in ROWS]
ALIASES = [alias for row in ROWS for alias in row["aliases"].split("|") if alias]
PAIRED = [row["name"] for row in ROWS if row["paired"]]


def listed(names: str) -> list[str]:
    return names.split("|")


SIDED = listed(
    "adrenal_gland|atrial_appendage|autochthon|brachiocephalic_vein|clavicula|common_carotid_artery|femur|"
    "gluteus_maximus|gluteus_medius|gluteus_minimus|hip|humerus|iliac_artery|iliac_vena|iliopsoas|kidney|kidney_cyst|"
    "lung_lower_lobe|lung_upper_lobe|scapula|subclavian_artery"
)
#: The classes of the TotalSegmentator v2 task "total".
TOTAL = [
    *listed(
        "aorta|brachiocephalic_trunk|brain|colon|costal_cartilages|duodenum|esophagus|gallbladder|heart|"
        "inferior_vena_cava|liver|lung_middle_lobe_right|pancreas|portal_vein_and_splenic_vein|prostate|"
        "pulmonary_vein|sacrum|skull|small_bowel|spinal_cord|spleen|sternum|stomach|superior_vena_cava|"
        "thyroid_gland|trachea|urinary_bladder|vertebrae_S1"
    ),
    *(
        f"{name}_{side}"
        for name in SIDED
        for side in ("left", "right")
        if (name, side) != ("atrial_appendage", "right")
    ),
    *(f"vertebrae_{part}{number}" for part, last in (("C", 7), ("T", 12), ("L", 5)) for number in range(1, last + 1)),
    *(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)),
]
#: Further classes of its version 1 and its other tasks.
TOTALSEGMENTATOR_MORE = listed(
    "heart_myocardium|heart_atrium_left|heart_atrium_right|heart_ventricle_left|heart_ventricle_right|"
    "pulmonary_artery|face|lung_vessels|lung_trachea_bronchia|body_trunc|body_extremities|pleural_effusion|"
    "pericardial_effusion|liver_vessels|liver_tumor|coronary_arteries|subcutaneous_fat|skeletal_muscle|torso_fat|"
    "patella|tibia|fibula|tarsal|metatarsal|phalanges_feet|ulna|radius|carpal|metacarpal|phalanges_hand|"
    "intervertebral_discs|vertebrae_body|spinal_cord|hip_implant|lung_covid_infiltrate|intracerebral_hemorrhage|"
    "lung_pleural|thyroid_cartilage|hard_palate|soft_palate|liver_segment_1|liver_segment_8|liver_lesions|lung_nodules"
)
#: The labels of the ten tasks of the Medical Segmentation Decathlon, but for "Anterior" and "Posterior" (of the
#: hippocampus), which say too little by themselves.
DECATHLON = {
    "brain tumour": ["edema", "non-enhancing tumor", "enhancing tumour"],
    "heart": ["left atrium"],
    "liver": ["liver", "cancer"],
    "hippocampus": ["Anterior hippocampus", "hippocampus_posterior"],
    "prostate": ["PZ", "TZ"],
    "lung": ["cancer"],
    "pancreas": ["pancreas", "cancer"],
    "hepatic vessel": ["Vessel", "Tumour"],
    "spleen": ["spleen"],
    "colon": ["colon cancer primaries"],
}
#: Labels that appear together elsewhere.
TOGETHER = {
    **DECATHLON,
    "TotalSegmentator": TOTAL,
    "KiTS": ["kidney", "tumor", "cyst"],
    "BraTS": ["whole tumor", "tumor core", "enhancing tumor", "NCR", "peritumoral edema"],
    "BTCV": listed(
        "spleen|right kidney|left kidney|gallbladder|esophagus|liver|stomach|aorta|inferior vena cava|"
        "portal vein and splenic vein|pancreas|right adrenal gland|left adrenal gland"
    ),
    "AMOS": listed(
        "spleen|right kidney|left kidney|gall bladder|esophagus|liver|stomach|arota|postcava|pancreas|"
        "right adrenal gland|left adrenal gland|duodenum|bladder"
    ),
    "FreeSurfer": listed(
        "Left-Cerebral-White-Matter|Left-Cerebral-Cortex|Left-Lateral-Ventricle|Left-Inf-Lat-Vent|"
        "Left-Cerebellum-White-Matter|Left-Cerebellum-Cortex|Left-Thalamus|Left-Caudate|Left-Putamen|Left-Pallidum|"
        "3rd-Ventricle|4th-Ventricle|Brain-Stem|Left-Hippocampus|Left-Amygdala|CSF|Left-Accumbens-area|Left-VentralDC|"
        "Right-Cerebral-White-Matter|Right-Cerebral-Cortex|Right-Lateral-Ventricle|Right-Thalamus|Right-Caudate|"
        "Right-Putamen|Right-Pallidum|Right-Hippocampus|Right-Amygdala|Left-choroid-plexus|Optic-Chiasm"
    ),
    "knee": ["femur", "tibia", "patella", "femoral cartilage", "tibial cartilage", "patellar cartilage", "meniscus"],
    "heart chambers": [
        "heart_myocardium",
        *(f"heart_{part}_{side}" for part in ("atrium", "ventricle") for side in ("left", "right")),
        *("aorta", "pulmonary_artery"),
    ],
}


def found(name: str) -> Structure:
    structure = lookup(name)
    assert structure is not None, name
    return structure


def key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


# The table


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_row_is_what_its_name_is_looked_up_as(row: dict[str, str]) -> None:
    structure = found(row["name"])
    assert structure.type == Code(row["value"], row["scheme"], row["meaning"])
    assert structure.category == _CATEGORIES[row["category"]]
    assert (structure.modifier is not None) == bool(row["modifier"])
    assert (structure.region is not None) == bool(row["region"])
    assert row["paired"] in ("", "paired")
    assert not (row["paired"] and row["modifier"] and not row["region"])  # the side would replace the modifier
    assert structure.color is not None
    assert all(0 <= part <= 255 for part in structure.color)
    assert max(structure.color) >= 100
    assert min(structure.color) <= 230
    for alias in filter(None, row["aliases"].split("|")):
        assert lookup(alias) == structure


def test_names_and_aliases_are_unique() -> None:
    assert not [name for name, count in Counter(map(key, [*NAMES, *ALIASES])).items() if count > 1]
    assert all(re.fullmatch(r"[a-z0-9CTLS_]+", name) for name in NAMES)


def test_equal_codes_have_equal_meanings() -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for row in ROWS:
        meanings.setdefault((row["scheme"], row["value"]), set()).add(row["meaning"])
    assert all(len(found) == 1 for found in meanings.values())


# What codes mean, as pydicom has it from PS3.16

CONCEPTS = [
    (scheme, value, meaning)
    for scheme in ("SCT", "FMA", "DCM", "NCIt")
    for entries in concepts[scheme].values()
    for value, (meaning, _) in entries.items()
]
OF_CODE: dict[tuple[str, str], set[str]] = {}
OF_MEANING: dict[tuple[str, str], set[str]] = {}
for scheme_, value_, meaning_ in CONCEPTS:
    OF_CODE.setdefault((scheme_, value_), set()).add(meaning_.casefold())
    OF_MEANING.setdefault((scheme_, meaning_.casefold()), set()).add(value_)


def test_meanings_have_the_codes_of_the_standard() -> None:
    codes = {(row["scheme"], row["value"], row["meaning"].casefold()) for row in ROWS}
    in_standard = [code for code in codes if (code[0], code[2]) in OF_MEANING]
    assert not [code for code in in_standard if code[1] not in OF_MEANING[code[0], code[2]]]
    assert len(in_standard) > 230
    assert len(in_standard) / len(codes) > 0.8


def test_codes_that_the_standard_has_mean_the_same_there() -> None:
    """All but a few under the very word; those few under a longer one that contains ours."""
    for row in ROWS:
        meanings = OF_CODE.get((row["scheme"], row["value"]), set())
        words = set(row["meaning"].casefold().split())
        assert not meanings or any(words <= set(meaning.split()) for meaning in meanings), row["name"]
        assert not any("entire" in meaning for meaning in meanings), row["name"]


def test_terms_of_the_standard_are_found_under_its_codes_or_not_at_all() -> None:
    # DICOM has general iliac arteries, too; of its two secondary neoplasms ours is the one listed for segments.
    ours = {"iliac artery": "73634005", "metastasis": "14799000"}
    compared = 0
    for (scheme, meaning), values in OF_MEANING.items():
        structure = lookup(meaning) if scheme == "SCT" else None
        if structure and not (structure.region or structure.modifier):
            compared += 1
            assert structure.type.value in {ours.get(meaning), *values}, meaning
    assert compared > 230


def test_categories_and_modifiers_have_the_codes_of_the_standard() -> None:
    codes = [*(_CATEGORIES[name] for name in _CATEGORIES if name != "anatomical"), *_MODIFIERS.values()]
    for code in codes:
        assert code.scheme == "SCT"
        assert {"right and left": "bilateral"}.get(code.meaning.casefold(), code.meaning.casefold()) in OF_CODE[
            "SCT", code.value
        ]
    assert _CATEGORIES["anatomical"] == Code("123037004", "SCT", "Anatomical Structure")


def verhoeff(digits: str) -> int:
    """0 for a number with a valid check digit: the dihedral group of order 10 (Verhoeff 1969)."""

    def product(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for position, digit in enumerate(map(int, reversed(digits))):
        for _ in range(position % 8):
            digit = permutation[digit]  # noqa: PLW2901  # applied position times
        check = product(check, digit)
    return check


def test_snomed_identifiers_have_valid_check_digits() -> None:
    identifiers = [row["value"] for row in ROWS if row["scheme"] == "SCT"]
    assert len(identifiers) > 300
    assert [value for value in identifiers if verhoeff(value) != 0] == []
    assert verhoeff("10200005") != 0
    assert verhoeff("12020004") != 0


# Names of public data sets


def test_total_is_complete() -> None:
    assert len(set(TOTAL)) == 117


@pytest.mark.parametrize("name", [*TOTAL, *TOTALSEGMENTATOR_MORE, *(n for names in TOGETHER.values() for n in names)])
def test_names_of_public_data_sets_are_found(name: str) -> None:
    structure = found(name)
    assert not is_private(structure)
    side = re.search(r"left|right", name.casefold())
    if side and not re.search(r"atrium|ventricle|middle", name.replace("Lateral-Ventricle", "")):
        stated = structure.modifier or structure.region_modifier
        assert stated is not None
        assert stated.meaning.casefold() == side.group()


@pytest.mark.parametrize("names", TOGETHER.values(), ids=list(TOGETHER))
def test_colors_of_one_data_set_are_told_apart(names: list[str]) -> None:
    colors = [found(name).color or (0, 0, 0) for name in names]
    for (one, color), (other, another) in combinations(zip(names, colors, strict=True), 2):
        assert math.dist(color, another) > 15, (one, other)


@pytest.mark.parametrize("name", [row["name"] for row in ROWS if row["paired"]])
def test_left_and_right_differ_clearly_in_color(name: str) -> None:
    left, right = (found(f"{name}_{side}").color or (0, 0, 0) for side in ("left", "right"))
    assert math.dist(left, right) > 50


# Lookup


@pytest.mark.parametrize(
    ("name", "type_", "modifier", "region", "region_modifier"),
    [
        ("Kidney (L)", "Kidney", "Left", None, None),
        ("lt lung", "Lung", "Left", None, None),
        ("both kidneys", "Kidney", "Right and left", None, None),
        ("rib_right_3", "Third rib", "Right", None, None),
        ("left atrium", "Left atrium", None, None, None),
        ("oesophagus", "Esophagus", None, None, None),
        ("grey matter", "Gray matter", None, None, None),
        ("liver tumour", "Neoplasm", None, "Liver", None),
        ("left atrium lesion", "Lesion", None, "Left atrium", None),
        ("kidney_cyst_left", "Cyst", None, "Kidney", "Left"),
        ("Right kidney tumor", "Neoplasm", None, "Kidney", "Right"),
        ("pleural effusion right", "Effusion", None, "Pleural cavity", "Right"),
        ("bone lesion", "Lesion", None, "Bone", None),
        ("medial tibial cartilage left", "Cartilage", "Medial", "Tibia", "Left"),
        ("phalanges_feet", "Phalanx", None, "Foot", None),
    ],
)
def test_rules(name: str, type_: str, modifier: str | None, region: str | None, region_modifier: str | None) -> None:
    structure = found(name)
    codes = (structure.type, structure.modifier, structure.region, structure.region_modifier)
    assert tuple(code and code.meaning for code in codes) == (type_, modifier, region, region_modifier)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "_", "left", "L", "right left", "label_1", "1", "class 2", "background", "organ", "Anterior"),
        *("L1", "T2", "l_1", "T1_1", "rib 1 1", "rib_13", "vertebrae_T13", "kidney left right", "rib L 1"),
        *("liver_left", "left spleen", "lefty kidney", "kidneyleft", "prostate/uterus", "liver kidney", "cyst kidney"),
        *("tumor tumor", "stent lesion", "left hippocampus anterior", "GTV", "PTV_70", "kidney2", "liver 2"),
    ],
)
def test_what_is_ambiguous_or_unknown_is_not_found(name: str) -> None:
    assert lookup(name) is None


SEPARATORS = st.sampled_from(["_", "-", " ", ".", " - ", "__"])
KNOWN = st.sampled_from([*NAMES, *ALIASES, *TOTAL])


@given(name=KNOWN, separator=SEPARATORS, upper=st.booleans())
def test_case_and_separators_do_not_matter(name: str, separator: str, upper: bool) -> None:
    other = re.sub(r"[\W_]+", lambda _: separator, name)
    other = f"{separator}{other.upper() if upper else other.lower()}{separator}"
    assert lookup(other) == found(name)


@given(st.sampled_from(PAIRED), SEPARATORS, st.booleans(), st.sampled_from(["left", "L", "lt"]))
def test_a_side_may_stand_before_or_after(name: str, separator: str, before: bool, word: str) -> None:
    either, right = found(name), found(f"right {name}")
    left = found(separator.join([word, name] if before else [name, word]))
    assert left.type == right.type == either.type
    sides = [one.region_modifier if either.region else one.modifier for one in (left, right)]
    assert sides == [_MODIFIERS["left"], _MODIFIERS["right"]]
    assert left.color == either.color != right.color


@given(name=st.text(max_size=30))
def test_anything_may_be_asked(name: str) -> None:
    structure = lookup(name)
    assert structure is None or not is_private(structure)


def test_matches_compares_value_scheme_and_modifier() -> None:
    kidney, left = Code("64033007", "SCT", "Niere"), Code("7771000", "SCT", "links")
    assert matches("left kidney", kidney, left)
    assert matches("kidney", kidney, None)
    assert not matches("kidney", kidney, left)
    assert not matches("left kidney", kidney, None)
    assert not matches("right kidney", kidney, left)
    assert not matches("liver", kidney, None)
    assert not matches("kidney", Code("T-71000", "SRT", "Kidney"), None)
    assert not matches("kidney", Code("64033007", "99SDM", "Kidney"), None)
    assert not matches("kidney", None, None)
    assert not matches("label 1", kidney, None)


# Private codes and default colours


def test_private_codes_are_readable_where_they_can_be() -> None:
    structure = private("my label 7")
    assert is_private(structure)
    assert structure.type == Code("my label 7", "99VOLSEG", "my label 7")
    assert structure.category == Code("85756007", "SCT", "Tissue")
    assert not is_private(found("liver"))
    long = private("the label of a very long name " * 4)
    assert len(long.type.value) == 16
    assert long.type.meaning.startswith("the label of a very long name the label of")
    assert len(long.type.meaning) <= 64
    assert long.type.meaning != private("the label of a very long name " * 5).type.meaning
    assert private(r"a\b").type.meaning == "a/b"


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_a_blank_name_has_no_code(name: str) -> None:
    with pytest.raises(ConfigError, match="meaning of a code"):
        private(name)


@given(names=st.lists(st.text(min_size=1).filter(str.strip), unique=True, max_size=40))
def test_private_codes_are_valid_and_distinct(names: list[str]) -> None:
    values = [private(name).type.value for name in names]
    assert len(set(values)) == len(names)
    assert [private(name).type.value for name in names] == values
    assert all(1 <= len(value) <= 16 and value == value.strip() and value.isascii() for value in values)


def test_no_two_of_many_names_share_a_private_code() -> None:
    stems = ["a_rather_long_label_name_", "x" * 15, "Label ", "label_", "é", "#", *string.ascii_letters]
    names = {f"{stem}{number}" for stem in stems for number in range(1000)}
    assert len({private(name).type.value for name in names}) == len(names)


@given(st.integers(1, 65535))
def test_default_colors_are_never_near_black_or_white(value: int) -> None:
    color = default_color(value)
    assert color == default_color(value)
    assert all(0 <= part <= 255 for part in color)
    assert max(color) > 180
    assert min(color) < 130


def test_default_colors_are_spread() -> None:
    for values, distance in ((11, 50), (31, 30), (118, 15)):
        for one, other in combinations(map(default_color, range(1, values)), 2):
            assert math.dist(one, other) > distance
