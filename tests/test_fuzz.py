from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import CLEAN, CRASH, KINDS, REFUSED, WRONG, Case, Fuzz, real_data

SEED = 20
COUNT = 250


@pytest.fixture(scope="module", params=["synthetic", pytest.param("real", marks=pytest.mark.real_data)])
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    data = real_data() if request.param == "real" else None
    if request.param == "real" and data is None:
        pytest.skip("no real images beside the checkout")
    fuzz = Fuzz(tmp_path_factory.mktemp("fuzz"), SEED, data)
    return [fuzz.case(number) for number in range(COUNT)]


def test_damaged_files_neither_crash_nor_hang_nor_print(cases: list[Case]) -> None:
    assert [case for case in cases if case.outcome == CRASH] == []


def test_damage_that_shows_gives_no_wrong_geometry(cases: list[Case]) -> None:
    assert [case for case in cases if case.outcome == WRONG] == []


def test_the_damage_is_of_all_kinds_and_much_of_it_is_found(cases: list[Case]) -> None:
    assert {case.kind for case in cases} == set(KINDS)
    assert sum(case.outcome == REFUSED for case in cases) > COUNT / 4
    assert sum(case.outcome == CLEAN for case in cases) > COUNT / 4


def test_an_undamaged_series_is_judged_clean_and_a_corruption_is_repeatable(tmp_path: Path) -> None:
    cases = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        fuzz = Fuzz(folder, SEED)
        cases.append(fuzz.planned(7))
    assert cases[0] == cases[1]
