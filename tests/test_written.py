"""The record of what volseg wrote, and what may be replaced and removed by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import OutputError, OutputExistsError
from volseg.io import discover
from volseg.io.earlier import is_batch_table, names_in
from volseg.io.files import append_text, atomic_path, locked_folder, new_path, remove_leftovers, write_text
from volseg.io.own_results import without_results
from volseg.io.record import LOCK_FILE, RECORD_FILE, as_text, content_of, read_record
from volseg.io.written import (
    TEMPORARY_PREFIX,
    Inputs,
    claim,
    discard,
    is_unchanged,
    remove_scratch,
    remove_written,
    remove_written_in,
    unfinished,
)

OLD = Path(__file__).parent / "data" / "version_0_1_0"


def shown(folder: Path) -> dict[str, bytes]:
    """Everything but what volseg keeps for itself."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def test_volseg_replaces_and_removes_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    for text in ("one", "two", "three"):
        write_text(path, text)
        assert is_unchanged(path)
    claim([path])
    remove_written(path)
    assert not path.exists()
    write_text(path, "again")


def theirs(path: Path) -> None:
    path.write_text("theirs")


def edited(path: Path) -> None:
    write_text(path, "ours")
    stamp = path.stat()
    path.write_text("OURS")  # as long as before, and no younger
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def link_to_a_file(path: Path) -> None:
    write_text(path, "ours")
    path.unlink()
    (path.parent / "target").write_text("ours")
    path.symlink_to("target")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def hard_link(path: Path) -> None:
    (path.parent / "target").write_text("theirs")
    path.hardlink_to(path.parent / "target")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def another_case(path: Path) -> None:
    write_text(path, "ours")
    path.rename(path.with_name("moved"))
    shutil.copy(path.with_name("moved"), path)
    path.write_text("other")


MADE = [theirs, edited, link_to_a_file, link_to_nothing, hard_link, pipe, folder, another_case]
every_way = pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)


def looks(path: Path) -> object:
    found = path.lstat()
    return found.st_mode, found.st_ino, None if path.is_fifo() or path.is_dir() else content_of(path)


@every_way
def test_whatever_is_in_the_way_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "mask.txt"
    make(path)
    before = looks(path)
    for attempt in (
        lambda: write_text(path, "new"),
        lambda: claim([path]),
        lambda: append_text(path, "more"),
        lambda: claim([path], Inputs.of(tmp_path), overwrite=True) if make in (theirs, hard_link) else claim([path]),
    ):
        with pytest.raises(OutputExistsError) as caught:
            attempt()
        assert str(path) in str(caught.value)
        assert "--output" in caught.value.hint
    remove_written(path)
    assert looks(path) == before
    assert not list(tmp_path.rglob(f"{TEMPORARY_PREFIX}*"))


@pytest.mark.parametrize("make", [theirs, edited, link_to_a_file, link_to_nothing, hard_link])
def test_what_was_given_up_is_replaced_and_what_it_led_to_is_not(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "mask.txt"
    make(path)
    kept = (tmp_path / "target").read_text() if (tmp_path / "target").exists() else None
    claim([path], overwrite=True)
    remove_written(path)  # that it may be replaced does not make it volseg's
    assert os.path.lexists(path)
    write_text(path, "new")
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert kept is None or (tmp_path / "target").read_text() == kept


def test_a_file_that_changes_after_it_was_given_up_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    claim([path], overwrite=True)
    path.write_text("an idea that came later")
    with pytest.raises(OutputExistsError):
        write_text(path, "new")
    assert path.read_text() == "an idea that came later"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_replaced_under_whatever_name(overwrite: bool, tmp_path: Path) -> None:
    image = tmp_path / "in" / "ct.txt"
    write_text(image, "image")  # though volseg wrote it
    out = tmp_path / "out"
    out.mkdir()
    (out / "soft").symlink_to(image)
    (out / "hard").hardlink_to(image)
    (tmp_path / "door").symlink_to(tmp_path / "in")
    for path in (image, out / "soft", out / "hard", tmp_path / "door" / "ct.txt"):
        with pytest.raises(OutputExistsError, match="is an input of this command"):
            claim([path], Inputs.of(image), overwrite=overwrite)
    (tmp_path / "in" / "notes.txt").write_text("mine")
    (out / "notes.txt").hardlink_to(tmp_path / "in" / "notes.txt")
    for path in (tmp_path / "in" / "notes.txt", tmp_path / "door" / "notes.txt", out / "notes.txt"):
        with pytest.raises(OutputExistsError, match="is an input of this command"):
            claim([path], Inputs.of(tmp_path / "in"), overwrite=overwrite)


def test_results_below_the_input_may_be_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "patients" / "masks" / "p1.txt", "mask")
    claim([tmp_path / "patients" / "masks" / "p1.txt"], Inputs.of(tmp_path / "patients"))


def test_of_a_folder_only_what_volseg_wrote_goes(tmp_path: Path) -> None:
    meshes = tmp_path / "p1"
    for name in ("liver.stl", "spleen.stl"):
        write_text(meshes / name, name)
    (meshes / "implant.stl").write_text("solid")
    (meshes / "spleen.stl").write_text("smoothed by hand")
    remove_written_in(meshes, "*.stl")
    assert shown(meshes) == {"implant.stl": b"solid", "spleen.stl": b"smoothed by hand"}
    write_text(tmp_path / "p2" / "liver.stl", "liver")
    remove_written_in(tmp_path / "p2", "*.stl")
    assert not (tmp_path / "p2").exists()
    (tmp_path / "p3").mkdir()
    remove_written_in(tmp_path / "p3", "*.stl")
    assert (tmp_path / "p3").is_dir()


def test_of_prepared_cases_the_users_stay(tmp_path: Path) -> None:
    write_text(tmp_path / "cache" / "case.image.npy", "prepared")
    (tmp_path / "cache" / "thesis.txt").write_text("mine")
    remove_scratch(tmp_path / "cache")
    assert shown(tmp_path) == {"cache/thesis.txt": b"mine"}


def test_data_is_written_where_nothing_is(tmp_path: Path) -> None:
    path = tmp_path / "phantom.txt"
    with new_path(path) as temporary:
        temporary.write_text("one")
    assert not (tmp_path / RECORD_FILE).exists()
    with pytest.raises(OutputExistsError), new_path(path) as temporary:
        temporary.write_text("two")
    assert path.read_text() == "one"


def test_a_process_that_is_killed_before_it_moves_its_file_still_knows_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from volseg.io import written; from volseg.io.files import write_text\n"
        "note = written._note\n"
        "written._note = lambda *words: (note(*words), os.kill(os.getpid(), 9))\n"
        "write_text(Path(sys.argv[1]), 'new')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"
    remove_leftovers(tmp_path)  # and the lock is free
    write_text(path, "new")
    assert path.read_text() == "new"


def test_unfinished_files_go_only_when_their_process_is_known_to_be_dead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    mine = unfinished(tmp_path / "mask.nii.gz")
    alive = [mine, tmp_path / f"{TEMPORARY_PREFIX}{os.getppid()}-mask.nii.gz"]
    elsewhere = tmp_path / f"{TEMPORARY_PREFIX}{dead.pid}@0123abcd-7-mask.nii.gz"
    strange = tmp_path / f"{TEMPORARY_PREFIX}notes"
    gone = [
        tmp_path / f"{TEMPORARY_PREFIX}{dead.pid}-mask.nii.gz",
        mine.with_name(mine.name.replace(f"{os.getpid()}@", f"{dead.pid}@")),
    ]
    for path in (*alive, elsewhere, strange, *gone):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*alive, elsewhere, strange])
    assert "1 unfinished files of other machines" in caplog.text


def test_names_of_any_length_and_script_can_be_written(tmp_path: Path) -> None:
    for name in ("é" * 120 + ".nii.gz", "x" * 248 + ".nii.gz", "肝臓" * 40 + ".txt"):
        write_text(tmp_path / name, "mask")
        assert unfinished(tmp_path / name).name.endswith(name[-7:])
    assert len(shown(tmp_path)) == 3


def test_only_what_is_volsegs_own_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="internal file of volseg"):
        discard(tmp_path / "mine.txt")


def test_a_damaged_record_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ours")
    for text in ("", "{", "[]", '{"written": {"a.txt": 1}, "handed_over": {}}', '{"written": []}'):
        (tmp_path / RECORD_FILE).write_text(text)
        with pytest.raises(OutputError, match="is damaged"):
            write_text(tmp_path / "a.txt", "new")
        assert (tmp_path / "a.txt").read_text() == "ours"
    (tmp_path / RECORD_FILE).unlink()
    with pytest.raises(OutputExistsError, match="volseg did not write it"):
        write_text(tmp_path / "a.txt", "new")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    for name in ("a.txt", "ü.txt", "b c.txt"):
        write_text(tmp_path / name, name)
    record = read_record(tmp_path)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / RECORD_FILE).write_text(as_text(record), encoding="utf-8")
    assert read_record(tmp_path / "again") == record
    assert record.written.keys() == {"a.txt", "ü.txt", "b c.txt"}


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    names = [f"{n}.txt" for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: write_text(tmp_path / name, name), names * 2))
    assert read_record(tmp_path).written.keys() == set(names)
    assert all(is_unchanged(tmp_path / name) for name in names)


def test_a_lock_is_free_when_its_owner_dies_and_may_be_nested(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from volseg.io.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / LOCK_FILE).exists()
    with locked_folder(tmp_path), locked_folder(tmp_path):
        write_text(tmp_path / "a.txt", "written")


NAMES = st.sampled_from(["a", "b"])
STEPS = st.one_of(
    st.tuples(st.just("volseg writes"), NAMES, st.sampled_from(["1", "2"])),
    st.tuples(st.just("volseg removes"), NAMES, st.just("")),
    st.tuples(st.just("volseg clears"), st.just("a"), st.just("")),
    st.tuples(st.just("user writes"), NAMES, st.sampled_from(["u", "v"])),
    st.tuples(st.just("user removes"), NAMES, st.just("")),
    st.tuples(st.just("user swaps"), st.just("a"), st.just("")),
)


@given(steps=st.lists(STEPS, max_size=12))
def test_no_order_of_events_lets_volseg_touch_what_the_user_wrote(steps: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for what, file, text in steps:
            path = place / file
            mine = {found.name: found.read_text() for found in place.glob("[!.]*") if found.read_text() in {"u", "v"}}
            match what:
                case "volseg writes":
                    try:
                        write_text(path, text)
                    except OutputExistsError:
                        assert path.exists()
                case "volseg removes":
                    remove_written(path)
                case "volseg clears":
                    remove_written_in(place, "*")
                    place.mkdir(exist_ok=True)
                case "user writes":
                    path.write_text(text)
                    continue
                case "user removes":
                    path.unlink(missing_ok=True)
                    continue
                case _:
                    if (place / "a").exists() and (place / "b").exists():
                        (place / "a").rename(place / "c")
                        (place / "b").rename(place / "a")
                        (place / "c").rename(place / "b")
                    continue
            assert {other: (place / other).read_text() for other in mine} == mine


# What version 0.1.0 left


def test_an_old_batch_is_known_by_its_table_and_gets_a_record(tmp_path: Path) -> None:
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    (masks / "notes.nii.gz").write_text("mine")
    (masks / "case_7.nii.gz").write_text("mine: no row tells of it")
    claim([masks / "case_0.nii.gz", masks / "cases.csv", masks / "labels.json"])
    for mine in ("notes.nii.gz", "case_7.nii.gz"):
        with pytest.raises(OutputExistsError):
            claim([masks / mine])
    write_text(masks / "case_0.nii.gz", "new")
    assert {"case_0.nii.gz", "case_1.nii.gz", "cases.csv"} <= read_record(masks).written.keys()
    (masks / "case_1.nii.gz").write_text("corrected")
    with pytest.raises(OutputExistsError, match="changed since"):
        write_text(masks / "case_1.nii.gz", "new")


def test_an_old_mask_that_was_corrected_after_its_batch_is_the_users(tmp_path: Path) -> None:
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    stamp = (masks / "cases.csv").stat().st_mtime + 3600
    (masks / "case_1.nii.gz").write_text("corrected")
    os.utime(masks / "case_1.nii.gz", (stamp, stamp))
    assert "case_0.nii.gz" in names_in(masks)
    with pytest.raises(OutputExistsError):
        claim([masks / "case_1.nii.gz"])


def test_meshes_of_an_old_batch_are_known_by_their_labels(tmp_path: Path) -> None:
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    (masks / "case_0").mkdir()
    stamp = (masks / "cases.csv").stat().st_mtime
    for name in ("label_1.stl", "implant.stl"):
        (masks / "case_0" / name).write_text("solid")
        os.utime(masks / "case_0" / name, (stamp, stamp))
    write_text(masks / "about.json", "{}")  # the folder of the batch gets its record first
    remove_written_in(masks / "case_0", "*.stl")
    assert shown(masks / "case_0") == {"implant.stl": b"solid"}
    (masks / "case_1").mkdir()
    (masks / "case_1" / "label_1.stl").write_text("made by hand, later")
    remove_written_in(masks / "case_1", "*.stl")
    assert (masks / "case_1" / "label_1.stl").exists()


def test_an_old_run_is_known_by_its_splits(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    claim([run / "model.pt", run / "history.csv", run / "about.json"])
    (run / "splits.json").write_text('{"mine": 1}')
    with pytest.raises(OutputExistsError):
        claim([run / "model.pt"])


@pytest.mark.parametrize("text", ["", "case_id,image\na,b.nii.gz\n", "case_id,status,reason\n", "\0", "a;b\n"])
def test_a_users_table_is_no_batch(text: str, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(text)
    assert not is_batch_table(tmp_path / "cases.csv")
    assert names_in(tmp_path) == set()


# Results among images


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"image")


def found_in(root: Path) -> set[str]:
    found = without_results(discover(root), root)
    assert len(found.sources) + len(found.results) + len(found.set_aside) == len(discover(root).sources)
    return {str(source.place.relative_to(root)) for source in found.sources}


def test_results_are_no_images_wherever_they_lie(tmp_path: Path) -> None:
    image(tmp_path / "p1" / "ct.nii.gz")
    for place in ("masks/p1_ct.nii.gz", "p1/ct.nrrd", "old.nii.gz"):
        write_text(tmp_path / place, "mask")
    assert found_in(tmp_path) == {"p1/ct.nii.gz"}
    (tmp_path / "masks" / "p1_ct.nii.gz").write_text("corrected by hand")
    assert found_in(tmp_path) == {"p1/ct.nii.gz"}
    image(tmp_path / "masks" / "p9.nii.gz")  # what the user put there is his
    assert found_in(tmp_path) == {"p1/ct.nii.gz", "masks/p9.nii.gz"}
    assert found_in(tmp_path / "masks") == {"p9.nii.gz"}


def test_a_folder_of_results_that_is_named_itself_is_meant(tmp_path: Path) -> None:
    for name in ("p1.nii.gz", "p2.nii.gz"):
        write_text(tmp_path / "masks" / name, "mask")
    assert found_in(tmp_path / "masks") == {"p1.nii.gz", "p2.nii.gz"}
    assert without_results(discover(tmp_path / "masks" / "p1.nii.gz"), tmp_path / "masks" / "p1.nii.gz").sources
    assert found_in(tmp_path) == set()


def test_another_file_under_the_name_of_a_result_is_not_passed_over(tmp_path: Path) -> None:
    image(tmp_path / "ct.nii.gz")
    write_text(tmp_path / "ct.nrrd", "mask")
    (tmp_path / "ct.nrrd").write_text("another scan that somebody put here")
    found = without_results(discover(tmp_path), tmp_path)
    assert [item.path.name for item in found.set_aside] == ["ct.nrrd"]
    assert "changed since" in found.set_aside[0].reason


def test_masks_of_an_old_batch_are_no_images(tmp_path: Path) -> None:
    shutil.copytree(OLD / "masks", tmp_path / "in" / "masks")
    image(tmp_path / "in" / "ct.nii.gz")
    assert found_in(tmp_path / "in") == {"ct.nii.gz"}


def test_files_that_are_being_written_replace_nothing_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "mask.txt"

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("mask")
            path.write_text("the user was faster")

    with pytest.raises(OutputExistsError):
        write()
    assert path.read_text() == "the user was faster"


def test_a_record_grows_by_a_line_per_file_and_is_written_anew_if_it_holds_many_lines_about_few(tmp_path: Path) -> None:
    for number in range(5):
        write_text(tmp_path / f"{number}.txt", str(number))
    record = tmp_path / RECORD_FILE
    assert len(record.read_text().splitlines()) == 6
    assert set(read_record(tmp_path).written) == {f"{number}.txt" for number in range(5)}
    for number in range(300):
        write_text(tmp_path / "0.txt", f"again {number}")
    assert len(record.read_text().splitlines()) < 150
    assert read_record(tmp_path).wrote("0.txt", content_of(tmp_path / "0.txt"))
    remove_written(tmp_path / "0.txt")
    assert set(read_record(tmp_path).written) == {f"{number}.txt" for number in range(1, 5)}


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_of_a_record_that_was_cut_off_by_a_kill_is_forgotten(tmp_path: Path, cut: int) -> None:
    for name in "ab":
        write_text(tmp_path / name, name)
    record = tmp_path / RECORD_FILE
    record.write_bytes(record.read_bytes()[:-cut])
    assert set(read_record(tmp_path).written) == {"a"}
    write_text(tmp_path / "c", "c")
    assert set(read_record(tmp_path).written) == {"a", "c"}
    with pytest.raises(OutputExistsError, match="volseg did not write it"):
        write_text(tmp_path / "b", "new")
