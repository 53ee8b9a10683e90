"""Predictions and references in, tables out.

`evaluate` is the verb; `pairing` finds what belongs together, `columns` defines each number, `metrics_csv` makes rows
of them, `summary` says of many cases what can be said in few numbers, `comparison` sets two evaluations side by side.
"""

from __future__ import annotations

from volseg.evaluation.columns import Better, Column, columns_of
from volseg.evaluation.comparison import Comparison, compare, compare_tables
from volseg.evaluation.evaluate import (
    CasePair,
    Evaluation,
    EvaluationSettings,
    Failure,
    evaluate,
    evaluate_arrays,
    evaluate_masks,
    read_pair,
)
from volseg.evaluation.metrics_csv import failed_row, metrics_table, score_row
from volseg.evaluation.summary import MEAN_ROW, POLICY, statistics, summarise

__all__ = [
    "MEAN_ROW",
    "POLICY",
    "Better",
    "CasePair",
    "Column",
    "Comparison",
    "Evaluation",
    "EvaluationSettings",
    "Failure",
    "columns_of",
    "compare",
    "compare_tables",
    "evaluate",
    "evaluate_arrays",
    "evaluate_masks",
    "failed_row",
    "metrics_table",
    "read_pair",
    "score_row",
    "statistics",
    "summarise",
]
