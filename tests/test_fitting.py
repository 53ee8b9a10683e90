"""Tables on terminals."""

from __future__ import annotations

import pytest

from volseg.cli.fitting import aligned_lines, fitted_lines

HEADER = ("label", "scored", "not_predicted", "dice_mean")
ROWS = [("liver", "12", "0", "0.91"), ("left kidney", "9", "0", "0.8")]


def test_a_table_that_fits_stays_as_it_is() -> None:
    assert fitted_lines(HEADER, ROWS, 80) == aligned_lines([HEADER, *ROWS])
    assert aligned_lines([HEADER, *ROWS])[1] == "liver        12      0              0.91"


def test_headers_take_two_lines_before_anything_goes() -> None:
    assert fitted_lines(HEADER, ROWS, 39) == [
        "label        scored  not        dice",
        "                     predicted  mean",
        "liver        12      0          0.91",
        "left kidney  9       0          0.8",
    ]


def test_columns_go_in_their_order_and_the_first_one_is_cut_off_at_last() -> None:
    assert fitted_lines(HEADER, ROWS, 26, ("not_predicted", "scored")) == [
        "label        scored  dice",
        "                     mean",
        "liver        12      0.91",
        "left kidney  9       0.8",
    ]
    assert fitted_lines(HEADER, ROWS, 14, ("not_predicted", "scored"))[2:] == ["liver     0.91", "left kid… 0.8"]


@pytest.mark.parametrize("width", range(14, 60))
def test_no_line_is_longer_than_the_terminal_is_wide(width: int) -> None:
    lines = fitted_lines(HEADER, ROWS, width, ("not_predicted", "scored"))
    assert max(map(len, lines)) <= width
    assert all("0.8" in line for line in lines[-1:])


def test_names_of_many_models_are_cut_off_rather_than_their_numbers() -> None:
    lines = fitted_lines(("label", "/a/path/to/one/model", "/a/path/to/another"), [("liver", "0.912", "0.921")], 30)
    assert max(map(len, lines)) <= 30
    assert lines[-1].split() == ["liver", "0.912", "0.921"]


def test_a_table_without_rows_is_its_header() -> None:
    assert fitted_lines(HEADER, [], 80) == ["label  scored  not_predicted  dice_mean"]
