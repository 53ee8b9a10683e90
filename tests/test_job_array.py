"""Parts of a batch for job arrays, and their merge."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_case
from hypothesis import given
from hypothesis import strategies as st
from test_prediction import MEASURED

import volseg
from volseg.errors import ConfigError, DataError, OutputError
from volseg.io import write_volume
from volseg.io.files import write_text
from volseg.io.record import written_names
from volseg.io.written import remove_if_empty, remove_written
from volseg.loaded_model import Model
from volseg.prediction.job_array import Part, PartJournal, parse_part
from volseg.prediction.rows import collect_rows
from volseg.progress import Cancelled

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return volseg.load(trained_run)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(6):
        write_volume(make_case(seed)[0], folder / f"case_{seed}.nii.gz")
    (folder / "broken.nii.gz").write_bytes(b"no image")
    (folder / "case_1_seg.nii.gz").write_bytes(b"a mask by its name")
    return folder


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "cases.csv").drop(columns=MEASURED)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".volseg"))


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 40))
def test_parts_are_disjoint_and_complete(case_ids: list[str], count: int) -> None:
    parts = [Part(count, number) for number in range(1, count + 1)]
    assert all(sum(part.holds(case_id) for part in parts) == 1 for case_id in case_ids)


@pytest.mark.parametrize("text", ["0/8", "9/8", "8", "1/0", "a/b", "1/8/2", "-1/8"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be one of N parts"):
        parse_part(text)


def test_merged_parts_are_what_one_run_writes(model: Model, images: Path, tmp_path: Path, volseg_cli: Cli) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    model.predict_folder(images, whole)
    for number in (3, 1, 2):
        model.predict_folder(images, parts, part=f"{number}/3")
    code, out, err = volseg_cli("merge", parts)
    assert code == 3, "a case failed, as in one run"
    assert "part" not in err
    assert out == f"6 segmented, 1 skipped, 1 failed of 8; see {parts / 'cases.csv'}\n"
    assert files(parts) == files(whole)
    pd.testing.assert_frame_equal(table(parts), table(whole))
    assert not filecmp.cmpfiles(whole, parts, [f"case_{seed}.nii.gz" for seed in range(6)], shallow=False)[1]
    assert not any(
        case.is_unchanged is False for case in model.predict_folder(images, parts).values() if case.volumes_ml
    )


def test_a_merge_names_parts_that_are_missing(model: Model, images: Path, tmp_path: Path, volseg_cli: Cli) -> None:
    output = tmp_path / "masks"

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict" and done == 1:
            raise Cancelled

    model.predict_folder(images, output, part="1/3")
    begun = next(n for n in (2, 3) if sum(Part(3, n).holds(f"case_{seed}") for seed in range(6)) > 1)
    with pytest.raises(Cancelled):
        model.predict_folder(images, output, part=f"{begun}/3", progress=stop)
    merged = volseg.merge(output)
    named = {undone.part.number: undone.cases for undone in merged.undone}
    assert named.keys() == {2, 3}
    assert named[5 - begun] is None, "it has not begun"
    assert named[begun], "and this one has cases without a row"
    code, out, err = volseg_cli("merge", output)
    assert code == 3
    assert "has not begun" in err
    assert "is not finished" in err
    assert out.endswith("run these parts again: 2,3\n")
    for number in (2, 3):
        model.predict_folder(images, output, part=f"{number}/3")
    assert volseg.merge(output).undone == ()
    assert not (output / "parts").exists()
    assert not (output / "rows").exists()


def test_another_division_of_the_same_cases_completes_a_batch(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path, part="1/3")
    for number in (1, 2):
        model.predict_folder(images, tmp_path, part=f"{number}/2")
    assert volseg.merge(tmp_path).undone == ()


def test_a_division_that_knew_fewer_cases_does_not_complete_a_batch(model: Model, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for seed in range(2):
        shutil.copy(images / f"case_{seed}.nii.gz", few)
    model.predict_folder(few, tmp_path / "masks", part="1/1")
    for seed in range(2, 6):
        shutil.copy(images / f"case_{seed}.nii.gz", few)
    model.predict_folder(few, tmp_path / "masks", part="1/2")
    (undone,) = volseg.merge(tmp_path / "masks").undone
    assert (str(undone.part), undone.cases) == ("2/2", None)
    model.predict_folder(few, tmp_path / "masks", part="2/2")
    assert volseg.merge(tmp_path / "masks").undone == ()
    assert len(table(tmp_path / "masks")) == 6


def test_a_folder_that_is_written_into_again_is_not_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "rows" / "a.json", "{}")
    remove_written(tmp_path / "rows" / "a.json")
    write_text(tmp_path / "rows" / "b.json", "{}")
    remove_if_empty(tmp_path / "rows")
    assert set(written_names(tmp_path / "rows")) == {"b.json"}
    remove_written(tmp_path / "rows" / "b.json")
    remove_if_empty(tmp_path / "rows")
    remove_if_empty(tmp_path / "rows")
    assert not (tmp_path / "rows").exists()


def test_a_case_that_ended_two_jobs_is_named_and_the_others_go_on(model: Model, images: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    for deaths in (1, 2):
        journal = PartJournal(parse_part("1/1"), tmp_path)
        journal.open(["case_3"])
        journal.begin("case_3")  # and the job is killed
        assert json.loads((tmp_path / "parts" / "1-of-1.json").read_text())["begun"] == {"case_3": deaths}
    batch = model.predict_folder(images, tmp_path, part="1/1", on_case_done=lambda case: seen.append(case.case_id))
    assert batch["case_3"].status == "failed"
    assert batch["case_3"].reason.startswith("it ended two jobs (out of memory?)")
    assert batch.count("segmented") == 5
    assert volseg.merge(tmp_path).counts == {"segmented": 5, "skipped": 1, "failed": 2}
    batch = model.predict_folder(images, tmp_path, part="1/1")
    assert batch["case_3"].status == "segmented", "the next run tries again"


def test_a_case_that_ended_one_job_is_tried_alone_after_the_others(model: Model, images: Path, tmp_path: Path) -> None:
    journal = PartJournal(parse_part("1/1"), tmp_path)
    journal.open(["case_0"])
    journal.begin("case_0")
    seen: list[str] = []
    model.predict_folder(images, tmp_path, part="1/1", on_case_done=lambda case: seen.append(case.case_id))
    assert seen[-1] == "case_0"


def test_a_journal_is_kept_by_two_threads(tmp_path: Path) -> None:
    journal = PartJournal(parse_part("1/1"), tmp_path)
    ended, begun = ([f"{kind}_{number}" for number in range(60)] for kind in ("ended", "begun"))
    for case_id in ended:
        journal.begin(case_id)
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda work: list(map(*work)), [(journal.end, ended), (journal.begin, begun)]))
    stated = json.loads((tmp_path / "parts" / "1-of-1.json").read_text())["begun"]
    assert stated == dict.fromkeys(begun, 1)


def test_parts_may_run_at_the_same_time_as_a_merge(model: Model, images: Path, tmp_path: Path) -> None:
    def merge(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "predict":
            volseg.merge(tmp_path)

    for number in (1, 2):
        model.predict_folder(images, tmp_path, part=f"{number}/2", progress=merge)
    merged = volseg.merge(tmp_path)
    assert (merged.undone, sum(merged.counts.values())) == ((), 8)


def test_rows_that_were_not_merged_are_known_to_the_next_batch(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path, part="1/1")
    assert not (tmp_path / "cases.csv").exists()
    batch = model.predict_folder(images, tmp_path)
    assert sum(case.is_unchanged for case in batch.values()) == 6
    assert not (tmp_path / "rows").exists()
    assert len(table(tmp_path)) == 8


def test_masks_of_other_labels_are_refused_while_rows_wait(
    model: Model, images: Path, tmp_path: Path, trained_run: Path
) -> None:
    model.predict_folder(images, tmp_path, part="1/2")
    labels = tmp_path / "labels.json"
    labels.write_text(labels.read_text().replace("label_1", "liver"))
    with pytest.raises(OutputError):
        model.predict_folder(images, tmp_path, part="2/2")


def test_a_users_file_in_rows_stays_and_is_no_row(model: Model, images: Path, tmp_path: Path) -> None:
    mine = tmp_path / "rows" / "mine.json"
    mine.parent.mkdir()
    mine.write_text('{"case_id": "x", "status": "segmented"}')
    model.predict_folder(images, tmp_path, part="1/1")
    assert sum(volseg.merge(tmp_path).counts.values()) == 8
    assert mine.read_text() == '{"case_id": "x", "status": "segmented"}'


def test_a_damaged_row_is_refused_by_name(model: Model, images: Path, tmp_path: Path) -> None:
    model.predict_folder(images, tmp_path, part="1/1")
    (tmp_path / "rows" / "case_2.json").write_text("{")
    with pytest.raises(DataError, match=r"case_2\.json is not a row"):
        collect_rows(tmp_path, model.labels)


def test_a_folder_without_masks_is_not_merged(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no masks to merge"):
        volseg.merge(images)
    with pytest.raises(DataError, match="holds no masks to merge"):
        volseg.merge(tmp_path / "nowhere")


def test_a_part_needs_no_cluster(volseg_cli: Cli, trained_run: Path, images: Path, tmp_path: Path) -> None:
    words = ("predict", images, "--model", trained_run, "--output", tmp_path / "masks", "--part", "1/2")
    code, _, err = volseg_cli(*words, "--cluster", "local:2")
    assert code == 2
    assert "--part and --cluster exclude each other" in err


def test_a_part_takes_no_report(model: Model, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no report"):
        model.predict_folder(images, tmp_path, part="1/2", report=True)
    shutil.rmtree(tmp_path)
