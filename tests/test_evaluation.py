from __future__ import annotations

import csv
import math

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from volseg.errors import ConfigError, DataError, OutputError
from volseg.evaluation import (
    MEAN_ROW,
    METRICS_COLUMNS,
    POLICY,
    CasePair,
    evaluate,
    failed_row,
    metrics_table,
    score_row,
    summarise,
)
from volseg.geometry import Geometry
from volseg.io.source import FileSource
from volseg.metrics import Status, score_masks
from volseg.volume import Label, Mask

HEAD, TAIL = Label(1, "head"), Label(2, "tail")
LABELS = (HEAD, TAIL)
AFFINE = np.diag([1.0, 2.0, 4.0, 1.0])
SHAPE = (6, 5, 4)
#: norm(6 * 1, 5 * 2, 4 * 4)
DIAGONAL_MM = math.sqrt(392)


def both():
    """Head 2 x 5 x 4 voxels at one end, tail 2 x 5 x 4 at the other."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[:2] = HEAD.value
    array[4:] = TAIL.value
    return array


def without(array, label):
    return np.where(array == label.value, 0, array).astype(array.dtype)


@pytest.fixture
def write(tmp_path):
    def write_file(name, array, affine=AFFINE):
        path = tmp_path / name
        nib.save(nib.Nifti1Image(array, affine), path)
        return FileSource(path)

    return write_file


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_of_four_kinds_of_case(write, tmp_path):
    reference = write("reference.nii.gz", both())
    headless_reference = write("headless.nii", without(both(), HEAD))
    pairs = [
        CasePair("d", None, reference),
        CasePair("a", write("a.nii.gz", both()), reference),
        CasePair("c", write("c.nii.gz", both()), headless_reference),
        CasePair("b", write("b.nii.gz", without(both(), HEAD)), reference),
        CasePair("e", write("e.nii.gz", without(both(), HEAD)), headless_reference),
    ]
    result = evaluate(pairs, LABELS, tmp_path / "new" / "folder")
    assert result.failures == ()

    rows = read_rows(result.metrics_file)
    assert tuple(rows[0]) == METRICS_COLUMNS
    assert [(row["case_id"], row["label"], row["status"], row["dice"]) for row in rows] == [
        ("a", "head", "ok", "1"),
        ("a", "tail", "ok", "1"),
        ("b", "head", "missed", "0"),
        ("b", "tail", "ok", "1"),
        ("c", "head", "false_alarm", "0"),
        ("c", "tail", "ok", "1"),
        ("d", "head", "not_predicted", "0"),
        ("d", "tail", "not_predicted", "0"),
        ("e", "head", "both_empty", ""),
        ("e", "tail", "ok", "1"),
    ]
    missed = rows[2]
    assert (missed["value"], missed["tp"], missed["fp"], missed["fn"], missed["tn"]) == ("1", "0", "0", "40", "80")
    assert float(missed["hd95_mm"]) == pytest.approx(DIAGONAL_MM, rel=1e-5)
    # 40 voxels of 8 mm3
    assert (missed["reference_ml"], missed["predicted_ml"], missed["volume_difference_ml"]) == ("0.32", "0", "-0.32")
    assert (rows[8]["hd_mm"], rows[8]["nsd"], rows[8]["reason"]) == ("", "", "")

    head, tail, mean = read_rows(result.summary_file)
    counts = ("cases", "scored", "ok", "missed", "false_alarm", "absent", "not_predicted", "failed")
    assert [int(head[name]) for name in counts] == [5, 4, 1, 1, 1, 1, 1, 0]
    assert [int(tail[name]) for name in counts] == [5, 5, 4, 0, 0, 0, 1, 0]
    assert [int(mean[name]) for name in counts] == [10, 9, 5, 1, 1, 1, 2, 0]
    # head: 1, 0, 0, 0 with a variance of (0.5625 + 3 * 0.0625) / 3; tail: 1, 1, 1, 1, 0
    assert [row["dice_mean"] for row in (head, tail, mean)] == ["0.25", "0.8", "0.525"]
    assert (head["dice_sd"], head["dice_median"], head["dice_min"]) == ("0.5", "0", "0")
    assert float(head["hd95_mm_mean"]) == pytest.approx(0.75 * DIAGONAL_MM, rel=1e-5)
    assert float(tail["assd_mm_mean"]) == pytest.approx(0.2 * DIAGONAL_MM, rel=1e-5)
    assert (head["label"], tail["label"], mean["label"]) == ("head", "tail", MEAN_ROW)
    assert {row["policy"] for row in (head, tail, mean)} == {POLICY}


def test_a_bad_case_is_counted_and_stops_no_other(write, tmp_path):
    reference = write("reference.nii.gz", both())
    shifted = AFFINE.copy()
    shifted[2, 3] = 1.0
    (tmp_path / "damaged.nii.gz").write_bytes(b"no image")
    damaged = FileSource(tmp_path / "damaged.nii.gz")
    pairs = [
        CasePair("damaged", damaged, reference),
        CasePair("good", reference, reference),
        CasePair("moved", write("moved.nii.gz", both(), shifted), reference),
        CasePair("no_reference", reference, FileSource(tmp_path / "nowhere.nii.gz")),
        CasePair("smooth", write("smooth.nii.gz", both().astype(np.float32) / 3), reference),
        CasePair("unknown", write("unknown.nii.gz", both() + np.uint8(3)), reference),
    ]
    result = evaluate(pairs, LABELS, tmp_path / "out")
    reasons = {failure.case_id: failure.reason for failure in result.failures}
    assert list(reasons) == ["damaged", "moved", "no_reference", "smooth", "unknown"]
    assert "different grids, up to 1 mm apart" in reasons["moved"]
    assert "nowhere.nii.gz does not exist" in reasons["no_reference"]
    assert "the prediction holds 3, 4, 5, which" in reasons["unknown"]

    rows = read_rows(result.metrics_file)
    assert len(rows) == len(pairs) * len(LABELS)
    assert all((row["status"] == "failed") == (row["case_id"] in reasons) for row in rows)
    assert all(row["reason"] == reasons.get(row["case_id"], "") for row in rows)
    assert all((row["dice"], row["nsd"], row["tp"]) == ("0", "0", "") for row in rows if row["status"] == "failed")
    assert {row["case_id"] for row in rows if not row["hd_mm"]} == {"no_reference"}  # no grid, no diagonal
    head = read_rows(result.summary_file)[0]
    assert (head["cases"], head["scored"], head["ok"], head["failed"]) == ("6", "6", "1", "5")
    assert float(head["dice_mean"]) == pytest.approx(1 / 6, rel=1e-5)
    assert float(head["hd95_mm_mean"]) == pytest.approx(4 / 5 * DIAGONAL_MM, rel=1e-5)


def test_tolerance_reaches_the_surface_dice(write, tmp_path):
    grown = both()
    grown[:3] = HEAD.value  # the head gains one layer of 1 mm
    pairs = [CasePair("a", write("a.nii.gz", grown), write("r.nii.gz", both()))]
    wide, narrow = (evaluate(pairs, [HEAD, TAIL], tmp_path / "out", tolerance_mm=mm) for mm in (1.0, 0.5))
    assert wide.metrics["nsd"].tolist() == [1.0, 1.0]
    assert narrow.metrics["nsd"][0] < 1.0


def test_progress_and_reported_paths(write, tmp_path):
    reference = write("r.nii.gz", both())
    heard = []
    pairs = [CasePair("one", reference, reference), CasePair("two", FileSource(tmp_path / "gone.nii"), reference)]
    result = evaluate(pairs, LABELS, tmp_path / "out", progress=lambda *event: heard.append(event))
    assert heard == [("evaluate", 0, 2), ("evaluate", 1, 2, "one"), ("evaluate", 2, 2, "two: failed")]
    assert sorted((tmp_path / "out").iterdir()) == [result.metrics_file, result.summary_file]


@pytest.mark.parametrize(
    ("ids", "labels", "tolerance_mm", "error", "message"),
    [
        ([], LABELS, 2.0, DataError, "nothing to evaluate"),
        (["a"], (), 2.0, ConfigError, "no labels"),
        (["a", "b", "a"], LABELS, 2.0, DataError, "case a .* more than once"),
        (["a"], LABELS, -1.0, ConfigError, "negative"),
    ],
)
def test_requests_that_make_no_sense(write, tmp_path, ids, labels, tolerance_mm, error, message):
    source = write("r.nii.gz", both())
    with pytest.raises(error, match=message):
        evaluate([CasePair(name, source, source) for name in ids], labels, tmp_path / "out", tolerance_mm=tolerance_mm)


def test_an_output_that_cannot_be_written_is_said_before_the_work(write, tmp_path):
    source = write("r.nii.gz", both())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        evaluate([CasePair("a", source, source)], LABELS, tmp_path / "file")


# The summary alone


def table_of(cases):
    """Score (prediction or None, reference) arrays; the cases' spacings differ, so their diagonals do too."""
    rows = []
    for number, (prediction, reference) in enumerate(cases):
        grid = Geometry(reference.shape, np.diag([1.0, 1.0 + number, 2.5, 1.0]))
        predicted = None if prediction is None else Mask(prediction, grid)
        rows += [
            score_row(f"case{number}", score) for score in score_masks(predicted, Mask(reference, grid), LABELS, 1)
        ]
    return metrics_table(rows)


def test_rows_are_ordered_by_case_and_label_value():
    rows = [failed_row(case, label, "", None) for case in ("b", "a") for label in (TAIL, HEAD)]
    table = metrics_table(rows)
    assert list(zip(table["case_id"], table["value"], strict=True)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_label_that_is_nowhere_is_not_scored_and_leaves_the_mean_alone():
    head_only = without(both(), TAIL)
    summary = summarise(table_of([(head_only, head_only)])).set_index("label")
    assert (summary.loc["tail", "scored"], summary.loc["tail", "absent"]) == (0, 1)
    assert math.isnan(summary.loc["tail", "dice_mean"])
    assert summary.loc[MEAN_ROW, "dice_mean"] == 1.0


def test_labels_of_one_name_stay_apart():
    twins = [failed_row("a", Label(value, "organ"), "", None) for value in (1, 2)]
    assert summarise(metrics_table(twins))["label"].tolist() == ["organ", "organ", MEAN_ROW]


def test_the_mean_row_weighs_labels_and_not_cases():
    # head: 1 and 0, tail: 1 alone; over rows the mean would be 2 / 3
    head_only = without(both(), TAIL)
    table = table_of([(both(), both()), (without(head_only, HEAD), head_only)])
    assert summarise(table)["dice_mean"].tolist() == [0.5, 1.0, 0.75]


def test_every_row_is_counted_once():
    table = table_of([(both(), both()), (None, both()), (without(both(), HEAD), both()), (both() * 0, both() * 0)])
    table = pd.concat([table, metrics_table([failed_row("x", HEAD, "broken", None)])])
    summary = summarise(table)
    parts = summary[["ok", "missed", "false_alarm", "absent", "not_predicted", "failed"]].sum(axis=1)
    assert parts.tolist() == summary["cases"].tolist()
    assert (summary["scored"] + summary["absent"]).tolist() == summary["cases"].tolist()


label_maps = hnp.arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 2))
all_cases = st.lists(st.tuples(label_maps, label_maps), min_size=1, max_size=3)

HIGHER_IS_BETTER = ["dice_mean", "iou_mean", "nsd_mean", "sensitivity_mean", "precision_mean"]
LOWER_IS_BETTER = ["hd95_mm_mean", "hd95_mm_median", "assd_mm_mean"]


def assert_no_better(worse, than):
    worse, than = (summarise(table).set_index("label") for table in (worse, than))
    for name in HIGHER_IS_BETTER:
        assert not (worse[name] > than[name] + 1e-12).any(), name
    for name in LOWER_IS_BETTER:
        assert not (worse[name] < than[name] - 1e-9).any(), name


@given(all_cases, st.data())
@settings(deadline=None, max_examples=60)
def test_missing_a_structure_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    label = data.draw(st.sampled_from(LABELS))
    prediction, reference = cases[number]
    assume((reference == label.value).any())  # where there is none, an empty prediction is right
    missed = [*cases]
    missed[number] = without(prediction, label), reference
    assert_no_better(table_of(missed), than=table_of(cases))


@given(all_cases, st.data())
@settings(deadline=None, max_examples=60)
def test_withholding_a_prediction_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    _, reference = cases[number]
    assume(all((reference == label.value).any() for label in LABELS))
    withheld = [*cases]
    withheld[number] = None, reference
    assert_no_better(table_of(withheld), than=table_of(cases))


@given(all_cases, st.data())
@settings(deadline=None, max_examples=60)
def test_a_damaged_prediction_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    _, reference = cases[number]
    assume(all((reference == label.value).any() for label in LABELS))
    table = table_of(cases)
    grid = Geometry(reference.shape, np.diag([1.0, 1.0 + number, 2.5, 1.0]))
    failed = metrics_table([failed_row(f"case{number}", label, "damaged", grid) for label in LABELS])
    others = table[table["case_id"] != f"case{number}"]
    assert_no_better(pd.concat([others, failed]), than=table)


# Real files


@pytest.mark.real_data
def test_a_real_reference_agrees_with_itself(real_data, tmp_path):
    labels = [Label(1, "anterior"), Label(2, "posterior")]
    files = sorted((real_data / "hippocampus" / "labels").glob("*.nii.gz"))[:5]
    pairs = [CasePair(path.name.removesuffix(".nii.gz"), FileSource(path), FileSource(path)) for path in files]
    result = evaluate(pairs, labels, tmp_path)
    assert len(result.metrics) == 10
    assert set(result.metrics["status"]) == {Status.OK}
    assert set(result.metrics["dice"]) == {1.0}
    assert set(result.metrics["hd_mm"]) == {0.0}
    for path, volume_ml in zip(files, result.metrics.groupby("case_id")["reference_ml"].sum(), strict=True):
        image = nib.load(path)
        voxel_ml = np.prod(image.header.get_zooms()) / 1000
        assert volume_ml == pytest.approx(np.count_nonzero(np.asarray(image.dataobj)) * voxel_ml, rel=1e-5)


@pytest.mark.real_data
def test_a_real_oblique_mask_moved_by_a_voxel_is_off_by_its_spacing(real_data, tmp_path):
    image = nib.load(real_data / "spine" / "t2s" / "t2s_seg.nii.gz")
    array = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    assert not array[-1].any()
    nib.save(nib.Nifti1Image(np.roll(array, 1, axis=0), image.affine), tmp_path / "moved.nii.gz")
    nib.save(nib.Nifti1Image(array, image.affine), tmp_path / "reference.nii.gz")
    pair = CasePair("cord", FileSource(tmp_path / "moved.nii.gz"), FileSource(tmp_path / "reference.nii.gz"))
    row = evaluate([pair], [Label(1, "cord")], tmp_path / "out").metrics.iloc[0]
    assert row["hd_mm"] == pytest.approx(float(image.header.get_zooms()[0]), rel=1e-3)
    assert 0.5 < row["dice"] < 1.0
