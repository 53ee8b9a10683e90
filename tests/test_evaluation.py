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
    POLICY,
    Better,
    CasePair,
    EvaluationSettings,
    columns_of,
    compare,
    compare_tables,
    evaluate,
    failed_row,
    metrics_table,
    read_pair,
    score_row,
    statistics,
    summarise,
)
from volseg.evaluation.summary import bootstrap_means, interval
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io.source import FileSource
from volseg.metrics import Conventions, LabelStatus, score_masks

HEAD, TAIL = Label(1, "head"), Label(2, "tail")
LABELS = (HEAD, TAIL)
SETTINGS = EvaluationSettings(LABELS)
COLUMNS = SETTINGS.columns
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
    result = evaluate(pairs, SETTINGS, tmp_path / "new" / "folder")
    assert result.failures == ()

    rows = read_rows(result.folder / "metrics.csv")
    assert list(rows[0]) == ["case_id", "label", "value", "status", *(column.name for column in COLUMNS), "reason"]
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

    head, tail, mean = read_rows(result.folder / "summary.csv")
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
    result = evaluate(pairs, SETTINGS, tmp_path / "out")
    reasons = {failure.case_id: failure.reason for failure in result.failures}
    assert list(reasons) == ["damaged", "moved", "no_reference", "smooth", "unknown"]
    assert "different grids, up to 1 mm apart (1 voxels)" in reasons["moved"]
    assert reasons["no_reference"].startswith("nowhere.nii.gz does not exist; check the path")
    assert str(tmp_path) not in (result.folder / "metrics.csv").read_text()
    assert "the prediction holds 3, 4, 5, which" in reasons["unknown"]

    rows = read_rows(result.folder / "metrics.csv")
    assert len(rows) == len(pairs) * len(LABELS)
    assert all((row["status"] == "failed") == (row["case_id"] in reasons) for row in rows)
    assert all(row["reason"] == reasons.get(row["case_id"], "") for row in rows)
    assert all((row["dice"], row["nsd"], row["tp"]) == ("0", "0", "") for row in rows if row["status"] == "failed")
    assert {row["case_id"] for row in rows if not row["hd_mm"]} == {"no_reference"}  # no grid, no diagonal
    head = read_rows(result.folder / "summary.csv")[0]
    assert (head["cases"], head["scored"], head["ok"], head["failed"]) == ("6", "6", "1", "5")
    assert float(head["dice_mean"]) == pytest.approx(1 / 6, rel=1e-5)
    assert float(head["hd95_mm_mean"]) == pytest.approx(4 / 5 * DIAGONAL_MM, rel=1e-5)


def test_tolerance_reaches_the_surface_dice(write, tmp_path):
    grown = both()
    grown[:3] = HEAD.value  # the head gains one layer of 1 mm
    pairs = [CasePair("a", write("a.nii.gz", grown), write("r.nii.gz", both()))]
    settings = EvaluationSettings(LABELS, Conventions((1.0, 0.5)))
    metrics = evaluate(pairs, settings, tmp_path / "out").metrics
    assert metrics["nsd"].tolist() == [1.0, 1.0]
    assert metrics["nsd_0.5mm"][0] < 1.0


def test_progress_and_reported_paths(write, tmp_path):
    reference = write("r.nii.gz", both())
    heard = []
    pairs = [CasePair("one", reference, reference), CasePair("two", FileSource(tmp_path / "gone.nii"), reference)]
    result = evaluate(pairs, SETTINGS, tmp_path / "out", lambda *event: heard.append(event))
    assert heard == [("evaluate", 0, 2), ("evaluate", 1, 2, "one"), ("evaluate", 2, 2, "two: failed")]
    assert sorted(file.name for file in result.folder.glob("[!.]*")) == ["metrics.csv", "statistics.csv", "summary.csv"]


@pytest.mark.parametrize(
    ("ids", "message"), [([], "nothing to evaluate"), (["a", "b", "a"], "case a .* more than once")]
)
def test_pairs_that_make_no_sense(write, tmp_path, ids, message):
    source = write("r.nii.gz", both())
    with pytest.raises(DataError, match=message):
        evaluate([CasePair(name, source, source) for name in ids], SETTINGS, tmp_path / "out")


def test_labels_are_needed():
    with pytest.raises(ConfigError, match="no labels"):
        EvaluationSettings(())


def test_an_output_that_cannot_be_written_is_said_before_the_work(write, tmp_path):
    source = write("r.nii.gz", both())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        evaluate([CasePair("a", source, source)], SETTINGS, tmp_path / "file")


# The summary alone


def table_of(cases):
    """Score (prediction or None, reference) arrays; the cases' spacings differ, so their diagonals do too."""
    rows = []
    for number, (prediction, reference) in enumerate(cases):
        grid = Geometry(reference.shape, np.diag([1.0, 1.0 + number, 2.5, 1.0]))
        predicted = None if prediction is None else Mask(prediction, grid)
        scores = score_masks(predicted, Mask(reference, grid), LABELS)
        rows += [score_row(f"case{number}", score, COLUMNS, grid) for score in scores]
    return metrics_table(rows, COLUMNS)


def failed(case_id, label, reason="", grid=None):
    return failed_row(case_id, label, reason, COLUMNS, grid)


def test_rows_are_ordered_by_case_and_label_value():
    rows = [failed(case, label) for case in ("b", "a") for label in (TAIL, HEAD)]
    table = metrics_table(rows, COLUMNS)
    assert list(zip(table["case_id"], table["value"], strict=True)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_label_that_is_nowhere_is_not_scored_and_leaves_the_mean_alone():
    head_only = without(both(), TAIL)
    summary = summarise(table_of([(head_only, head_only)])).set_index("label")
    assert (summary.loc["tail", "scored"], summary.loc["tail", "absent"]) == (0, 1)
    assert math.isnan(summary.loc["tail", "dice_mean"])
    assert summary.loc[MEAN_ROW, "dice_mean"] == 1.0


def test_labels_of_one_name_stay_apart():
    twins = [failed("a", Label(value, "organ")) for value in (1, 2)]
    assert summarise(metrics_table(twins, COLUMNS))["label"].tolist() == ["organ", "organ", MEAN_ROW]


def test_the_mean_row_weighs_labels_and_not_cases():
    # head: 1 and 0, tail: 1 alone; over rows the mean would be 2 / 3
    head_only = without(both(), TAIL)
    table = table_of([(both(), both()), (without(head_only, HEAD), head_only)])
    assert summarise(table)["dice_mean"].tolist() == [0.5, 1.0, 0.75]


def test_every_row_is_counted_once():
    table = table_of([(both(), both()), (None, both()), (without(both(), HEAD), both()), (both() * 0, both() * 0)])
    table = pd.concat([table, metrics_table([failed("x", HEAD, "broken")], COLUMNS)])
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
@settings(max_examples=30)
def test_missing_a_structure_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    label = data.draw(st.sampled_from(LABELS))
    prediction, reference = cases[number]
    assume((reference == label.value).any())  # where there is none, an empty prediction is right
    missed = [*cases]
    missed[number] = without(prediction, label), reference
    assert_no_better(table_of(missed), than=table_of(cases))


@given(all_cases, st.data())
@settings(max_examples=30)
def test_withholding_a_prediction_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    _, reference = cases[number]
    assume(all((reference == label.value).any() for label in LABELS))
    withheld = [*cases]
    withheld[number] = None, reference
    assert_no_better(table_of(withheld), than=table_of(cases))


@given(all_cases, st.data())
@settings(max_examples=30)
def test_a_damaged_prediction_never_improves_the_summary(cases, data):
    number = data.draw(st.integers(0, len(cases) - 1))
    _, reference = cases[number]
    assume(all((reference == label.value).any() for label in LABELS))
    table = table_of(cases)
    grid = Geometry(reference.shape, np.diag([1.0, 1.0 + number, 2.5, 1.0]))
    damaged = metrics_table([failed(f"case{number}", label, "damaged", grid) for label in LABELS], COLUMNS)
    others = table[table["case_id"] != f"case{number}"]
    assert_no_better(pd.concat([others, damaged]), than=table)


MISSED_MAY_IMPROVE = {"specificity", "accuracy", "absolute_volume_difference_ml", "volume_difference_ml"}


@given(all_cases, st.data())
@settings(max_examples=10)
def test_a_missed_structure_lowers_or_flags_every_statistic(cases, data):
    """What is not about the structure itself (how much background was left alone) may improve; `missed` then tells."""
    number = data.draw(st.integers(0, len(cases) - 1))
    label = data.draw(st.sampled_from(LABELS))
    prediction, reference = cases[number]
    assume((reference == label.value).any() and (prediction == label.value).any())
    missed = [*cases]
    missed[number] = without(prediction, label), reference
    before, after = (statistics(table_of(each), COLUMNS).set_index(["label", "metric"]) for each in (cases, missed))
    for key, row in after.iterrows():
        if key[0] != label.name:
            continue
        assert row["missed"] == before.loc[key, "missed"] + 1
        change = row["mean"] - before.loc[key, "mean"]
        if key[1] not in MISSED_MAY_IMPROVE and row["n"] == before.loc[key, "n"]:
            assert not (row["better"] == "higher" and change > 1e-12), key
            assert not (row["better"] == "lower" and change < -1e-9), key


def test_statistics_of_four_cases():
    head_only = without(both(), TAIL)
    table = table_of([(both(), both()), (without(both(), HEAD), both()), (head_only, head_only), (head_only, both())])
    rows = statistics(table, COLUMNS).set_index(["label", "metric"])
    dice = rows.loc[("tail", "dice")]
    # 1, 1, absent, missed
    assert (dice["cases"], dice["scored"], dice["absent"], dice["missed"], dice["n"]) == (4, 3, 1, 1, 3)
    assert (dice["mean"], dice["median"], dice["min"], dice["max"]) == (pytest.approx(2 / 3), 1.0, 0.0, 1.0)
    assert (dice["q1"], dice["q3"]) == (0.5, 1.0)
    assert dice["worst_cases"] == "case3; case0; case1"
    assert rows.loc[("tail", "hd95_mm"), "worst_cases"].startswith("case3")
    assert rows.loc[("tail", "volume_difference_ml"), "worst_cases"].startswith("case3")
    assert rows.loc[("tail", "reference_ml"), "worst_cases"] == ""
    assert "max_of_directed" in rows.loc[("tail", "hd95_mm"), "definition"]


def test_confidence_intervals_agree_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).beta(8, 2, size=25)
    ours = interval(bootstrap_means(values[:, None])[:, 0])
    theirs = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_resampled_means_leave_out_what_is_unknown():
    values = np.array([[1.0, np.nan], [1.0, 3.0], [1.0, np.nan]])
    means = bootstrap_means(values)
    assert set(means[:, 0]) == {1.0}
    assert set(means[np.isfinite(means[:, 1]), 1]) == {3.0}
    # none of three draws is the one case that has a number: (2 / 3)^3
    assert np.isnan(means[:, 1]).mean() == pytest.approx(8 / 27, abs=0.04)


def test_one_case_has_no_interval():
    nothing = 0 * both()
    for cases in ([(both(), both())], [(both(), both()), (nothing, nothing)]):
        summary = summarise(table_of(cases))
        assert summary[["dice_ci95_low", "dice_ci95_high"]].isna().all(axis=None)


# Two evaluations against each other


def differences(first, second, better=Better.HIGHER):
    """Two lists of numbers compared; what is None is in neither mask."""
    rows = {"label": "head", "value": 1, "metric": "dice", "first": first, "second": second}
    table = pd.DataFrame(rows, index=range(len(first)))
    for name in ("first", "second"):
        table[f"{name}_status"] = np.where(table[name].isna(), LabelStatus.BOTH_EMPTY, LabelStatus.OK)
    return compare_tables(table.assign(difference=table["second"] - table["first"]), {"dice": better}).iloc[0]


def test_a_comparison_by_hand():
    row = differences([0.5, 0.6, 0.7, 0.8], [0.6, 0.8, 0.7, 0.7])
    assert (row["n"], row["better"], row["worse"], row["equal"]) == (4, 2, 1, 1)
    assert row["difference_mean"] == pytest.approx(0.05)
    assert row["ci95_low"] < 0.05 < row["ci95_high"]
    lower = differences([0.5, 0.6, 0.7, 0.8], [0.6, 0.8, 0.7, 0.7], Better.LOWER)
    assert (lower["better"], lower["worse"]) == (1, 2)
    closer = differences([-3.0, 1.0], [2.0, -2.0], Better.ZERO)
    assert (closer["better"], closer["worse"]) == (1, 1)


def test_the_signed_rank_test_by_hand():
    # 6 gains of different sizes: of the 2^6 signs only one is as extreme on each side, 2 / 64
    assert differences([0.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])["p_value"] == pytest.approx(2 / 64)
    assert math.isnan(differences([0.5, 0.5], [0.5, 0.5])["p_value"])


def test_equal_differences_rank_alike():
    """In binary 0.3 - 0.2 is smaller than 0.2 - 0.1."""
    tenths = differences([0.1, 0.2, 0.7, 0.5], [0.2, 0.3, 0.6, 0.5])
    assert tenths["p_value"] == differences([1, 2, 7, 5], [2, 3, 6, 5])["p_value"]
    assert differences([0.1 + 0.2], [0.3])["equal"] == 1


def test_whoever_draws_what_is_not_there_is_worse():
    row = differences([0.5, None, 0.7, None], [0.6, 0.0, 0.9, None])
    assert (row["n"], row["missing"], row["better"], row["worse"], row["equal"]) == (2, 2, 2, 1, 0)
    assert row["first_mean"] == pytest.approx(0.6)
    assert differences([0.5, 0.0], [0.5, None])["better"] == 1


@pytest.fixture
def two_evaluations(write, tmp_path):
    reference, headless = write("r.nii.gz", both()), write("h.nii.gz", without(both(), HEAD))
    for name, second in (("good", reference), ("bad", headless)):
        pairs = [CasePair("a", reference, reference), CasePair("b", second, reference)]
        evaluate(pairs, SETTINGS, tmp_path / name)
    return tmp_path / "bad", tmp_path / "good"


def test_two_evaluations_are_compared_case_by_case(two_evaluations, tmp_path):
    compare(*two_evaluations, tmp_path / "out")
    rows = {(row["label"], row["metric"]): row for row in read_rows(tmp_path / "out" / "comparison.csv")}
    head = rows["head", "dice"]
    assert (head["n"], head["first_mean"], head["second_mean"], head["difference_mean"]) == ("2", "0.5", "1", "0.5")
    assert (head["better"], head["worse"], head["equal"]) == ("1", "0", "1")
    assert rows["head", "hd95_mm"]["better"] == "1"
    assert rows["tail", "dice"]["p_value"] == ""
    assert ("head", "tp") not in rows
    cases = read_rows(tmp_path / "out" / "differences.csv")
    (moved,) = [row for row in cases if row["metric"] == "dice" and row["difference"] != "0"]
    assert (moved["case_id"], moved["label"], moved["first"], moved["second"]) == ("b", "head", "0", "1")


def test_evaluations_that_cannot_be_compared_are_refused(two_evaluations, write, tmp_path):
    reference = write("other.nii.gz", both())
    evaluate([CasePair("c", reference, reference)], SETTINGS, tmp_path / "c")
    with pytest.raises(DataError, match="only one of the evaluations has label head of case a"):
        compare(two_evaluations[0], tmp_path / "c", tmp_path / "out")
    pooled = EvaluationSettings(LABELS, Conventions(hd95="pooled"))
    evaluate([CasePair(name, reference, reference) for name in ("a", "b")], pooled, tmp_path / "pooled")
    with pytest.raises(DataError, match="do not measure hd95_mm alike"):
        compare(two_evaluations[0], tmp_path / "pooled", tmp_path / "out")
    with pytest.raises(DataError, match="is not a table of results"):
        compare(tmp_path / "nowhere", two_evaluations[0], tmp_path / "out")
    smaller = write("smaller.nii.gz", np.where(np.arange(SHAPE[1])[:, None] < 3, both(), 0).astype(np.uint8))
    evaluate([CasePair(name, reference, smaller) for name in ("a", "b")], SETTINGS, tmp_path / "smaller")
    with pytest.raises(DataError, match=r"has 0\.32 ml in the reference of one evaluation and 0\.192 ml"):
        compare(two_evaluations[0], tmp_path / "smaller", tmp_path / "out")
    (tmp_path / "smaller" / "statistics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column metric"):
        compare(two_evaluations[0], tmp_path / "smaller", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_look_like_nothing_are_names(write, tmp_path):
    reference = write("r.nii.gz", both())
    settings = EvaluationSettings((HEAD, Label(2, "NA")))
    pairs = [CasePair(name, reference, reference) for name in ("NA", "null", "c")]
    for name in ("first", "second"):
        evaluate(pairs, settings, tmp_path / name)
    table = compare(tmp_path / "first", tmp_path / "second", tmp_path / "out").table
    dice = table[table["metric"] == "dice"]
    assert dice[["label", "n", "equal"]].to_numpy().tolist() == [["head", 3, 3], ["NA", 3, 3], ["mean", 3, 3]]


# docs/metrics.md, "Three cases by hand"


def by_hand(tmp_path, spacing_mm, prediction, reference, conventions):
    affine = np.diag([*spacing_mm, 1.0])
    for name, mask in (("p", prediction), ("r", reference)):
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), tmp_path / f"{name}.nii.gz")
    pair = CasePair("a", *(FileSource(tmp_path / f"{name}.nii.gz") for name in ("p", "r")))
    return evaluate([pair], EvaluationSettings((Label(1, "it"),), conventions), tmp_path / "out").metrics.iloc[0]


def test_by_hand_a_block_moved_by_one_voxel(tmp_path):
    prediction, reference = (np.zeros((6, 5, 4), bool) for _ in range(2))
    prediction[1:4, :4], reference[2:5, :4] = True, True
    row = by_hand(tmp_path, (1, 2, 4), prediction, reference, Conventions((0.5, 1.0)))
    assert row["dice"] == pytest.approx(0.6667, abs=1e-4)
    assert (row["iou"], row["tp"], row["fp"], row["fn"]) == (0.5, 32, 16, 16)
    assert (row["hd_mm"], row["hd95_mm"], row["centroid_distance_mm"]) == (1.0, 1.0, 1.0)
    assert (row["assd_mm"], row["masd_mm"]) == pytest.approx((0.4545, 0.4545), abs=1e-4)
    assert (row["nsd"], row["nsd_1mm"]) == (pytest.approx(0.5455, abs=1e-4), 1.0)
    assert row["predicted_ml"] == pytest.approx(0.384)


@pytest.mark.parametrize(("hd95", "expected_mm"), [("max_of_directed", 22.5), ("pooled", 21.125)])
def test_by_hand_a_rod_twice_as_long_as_the_other(tmp_path, hd95, expected_mm):
    prediction, reference = (np.zeros((3, 3, 25), bool) for _ in range(2))
    prediction[1, 1, :21], reference[1, 1, :11] = True, True
    row = by_hand(tmp_path, (1, 1, 2.5), prediction, reference, Conventions((7.5,), hd95=hd95))
    assert (row["dice"], row["hd_mm"], row["hd95_mm"]) == (0.6875, 25.0, pytest.approx(expected_mm))
    assert (row["assd_mm"], row["masd_mm"]) == pytest.approx((4.297, 3.274), abs=1e-3)
    assert row["nsd"] == 0.78125


@pytest.mark.parametrize(
    ("least_iou", "numbers"), [(0.5, (1, 3, 3, 0.25, 1, 0.25)), (0, (3, 1, 1, 0.75, 0.6148, 0.4611))]
)
def test_by_hand_lesions_along_a_line(tmp_path, least_iou, numbers):
    prediction, reference = (np.zeros((40, 3, 3), bool) for _ in range(2))
    for start, stop in ((0, 10), (12, 16), (20, 30), (35, 36)):
        reference[start:stop, 1, 1] = True
    for start, stop in ((0, 10), (12, 21), (22, 26), (38, 39)):
        prediction[start:stop, 1, 1] = True
    conventions = Conventions(lesion_iou=least_iou, also=frozenset({"lesions"}))
    row = by_hand(tmp_path, (1, 1, 1), prediction, reference, conventions)
    names = (
        "lesions_found",
        "lesions_false",
        "lesions_missed",
        "lesion_f1",
        "segmentation_quality",
        "panoptic_quality",
    )
    assert tuple(row[name] for name in names) == pytest.approx(numbers, abs=1e-4)
    assert (row["tp"], row["fp"], row["fn"], row["dice"]) == (19, 5, 6, pytest.approx(0.7755, abs=1e-4))


# What else belongs to a case


def test_a_region_of_interest_reaches_the_scores(write, tmp_path):
    within = np.ones(SHAPE, np.uint8)
    within[:2] = 0  # the head is outside
    reference = write("r.nii.gz", both())
    pair = CasePair("a", write("p.nii.gz", without(both(), HEAD)), reference, within=write("w.nii.gz", within))
    settings = EvaluationSettings(LABELS, within=True)
    metrics = evaluate([pair], settings, tmp_path / "out").metrics
    assert metrics["status"].tolist() == ["both_empty", "ok"]
    assert metrics["tn"].tolist() == [80, 40]
    assert "in the region of interest" in (tmp_path / "out" / "statistics.csv").read_text("utf-8")
    moved, nothing = write("m.nii.gz", within, np.diag([2.0, 2.0, 4.0, 1.0])), write("n.nii.gz", 0 * within)
    for region, reason in (
        (moved, "the region of interest has"),
        (nothing, "is empty"),
        (None, "no region of interest"),
    ):
        pair = CasePair("a", reference, reference, within=region)
        assert reason in evaluate([pair], settings, tmp_path / "out").failures[0].reason


def test_what_is_not_known_does_not_count(write, tmp_path):
    sparse = both()
    sparse[:, :, 2:] = 255  # half of the slices were never looked at
    pair = CasePair("a", write("p.nii.gz", np.full(SHAPE, HEAD.value, np.uint8)), write("r.nii.gz", sparse))
    assert "holds 255" in evaluate([pair], SETTINGS, tmp_path / "out").failures[0].reason
    metrics = evaluate([pair], EvaluationSettings(LABELS, ignored=255), tmp_path / "out").metrics
    head = metrics.iloc[0]
    assert (head["tp"], head["fp"], head["fn"], head["tn"]) == (20, 40, 0, 0)
    reference, prediction = read_pair(pair, EvaluationSettings(LABELS, ignored=255))
    assert reference.array.max() == 2
    assert not prediction.array[:, :, 2:].any()
    with pytest.raises(ConfigError, match="cannot be ignored"):
        EvaluationSettings(LABELS, ignored=TAIL.value)


def test_a_mask_in_another_storage_order_is_the_same_mask(write, tmp_path):
    reference, flipped = write("r.nii.gz", both()), np.diag([-1.0, 2.0, 4.0, 1.0])
    flipped[0, 3] = 5.0
    stored = write("p.nii.gz", both()[::-1], flipped)
    pair = CasePair("a", stored, reference, within=write("w.nii.gz", np.ones(SHAPE, np.uint8), flipped))
    metrics = evaluate([pair], EvaluationSettings(LABELS, within=True), tmp_path / "out").metrics
    assert metrics["dice"].tolist() == [1.0, 1.0]


def test_labels_share_no_value():
    with pytest.raises(ConfigError, match="have the value 2"):
        EvaluationSettings((HEAD, TAIL, Label(2, "other")))


def test_a_mask_on_another_grid_is_resampled_if_asked(write, tmp_path):
    halves = np.diag([0.5, 2.0, 4.0, 1.0])
    halves[0, 3] = -0.25  # each voxel of the reference is two
    source = write("fine.nii.gz", np.repeat(both(), 2, axis=0), halves)
    pair = CasePair("a", source, write("r.nii.gz", both()))
    assert "different grids" in evaluate([pair], SETTINGS, tmp_path / "out").failures[0].reason
    resampled = evaluate([pair], EvaluationSettings(LABELS, resample=True), tmp_path / "out")
    assert resampled.failures == ()
    assert set(resampled.metrics["dice"]) == {1.0}


def test_a_cropped_reference_is_scored_on_the_grid_of_the_prediction(write, tmp_path, caplog):
    cropped, affine = both()[1:5, 1:4], AFFINE.copy()
    affine[:3, 3] = AFFINE[:3] @ (1, 1, 0, 1)
    reference, inside = write("r.nii.gz", cropped, affine), np.zeros_like(both())
    inside[1:5, 1:4] = cropped
    beside = inside.copy()
    beside[0, 0] = HEAD.value  # outside of what was labelled: a false alarm
    settings = EvaluationSettings(LABELS)
    pairs = [
        CasePair(name, write(f"{name}.nii.gz", array), reference) for name, array in (("a", inside), ("b", beside))
    ]
    result = evaluate(pairs, settings, tmp_path / "out")
    assert not result.failures
    assert result.metrics["dice"].tolist()[:2] == [1, 1]
    assert result.metrics["fp"].tolist() == [0, 0, SHAPE[2], 0]
    assert "case a: the reference (4x3x4 voxels" in caplog.text
    assert "treated as background" in caplog.text
    assert read_pair(pairs[0], settings)[0].geometry.shape == SHAPE
    lost = CasePair("c", write("c.nii.gz", inside[:3]), reference)
    assert "voxels outside the image" in evaluate([lost], settings, tmp_path / "out").failures[0].reason


def test_probabilities_beside_the_masks(write, tmp_path):
    reference = write("r.nii.gz", both())
    shares = np.stack([both() == label.value for label in LABELS], axis=-1).astype(np.float32)
    for name, array in (("sure", shares), ("two", shares[..., :1]), ("wild", shares * 3)):
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{name}.nii.gz")
    files = [tmp_path / "sure.nii.gz", None, tmp_path / "two.nii.gz", tmp_path / "wild.nii.gz"]
    pairs = [CasePair(str(n), reference, reference, probabilities=file) for n, file in enumerate(files)]
    pairs.append(CasePair("4", None, reference))
    settings = EvaluationSettings(LABELS, calibrated=True)
    result = evaluate(pairs, settings, tmp_path / "out")
    assert result.metrics["auroc"].tolist() == [1.0, 1.0] + [0.0] * 8
    assert result.metrics["brier"].tolist() == [0.0, 0.0] + [1.0] * 8
    reasons = [failure.reason for failure in result.failures]
    assert [failure.case_id for failure in result.failures] == ["1", "2", "3"]
    assert "no probabilities for this case" in reasons[0]
    assert "1 labels on" in reasons[1]
    assert "not from 0 to 1" in reasons[2]


def test_columns_follow_what_is_measured():
    names = [column.name for column in columns_of(Conventions((2.0, 1.0, 0.5)))]
    assert [name for name in names if name.startswith("nsd")] == ["nsd", "nsd_1mm", "nsd_0.5mm"]
    full = Conventions(also=frozenset({"lesions", "centerline"}))
    more = {column.name for column in columns_of(full, calibrated=True)} - set(names)
    assert {"lesion_f1", "panoptic_quality", "centerline_dice", "auroc", "brier"} <= more


# Real files


@pytest.mark.real_data
def test_a_real_reference_agrees_with_itself(real_data, tmp_path):
    labels = [Label(1, "anterior"), Label(2, "posterior")]
    files = sorted((real_data / "hippocampus" / "labels").glob("*.nii.gz"))[:5]
    pairs = [CasePair(path.name.removesuffix(".nii.gz"), FileSource(path), FileSource(path)) for path in files]
    result = evaluate(pairs, EvaluationSettings(tuple(labels)), tmp_path)
    assert len(result.metrics) == 10
    assert set(result.metrics["status"]) == {LabelStatus.OK}
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
    row = evaluate([pair], EvaluationSettings((Label(1, "cord"),)), tmp_path / "out").metrics.iloc[0]
    assert row["hd_mm"] == pytest.approx(float(image.header.get_zooms()[0]), rel=1e-3)
    assert 0.5 < row["dice"] < 1.0
