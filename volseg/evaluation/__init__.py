"""Predictions and references in, tables out.

`evaluate` is the verb; `columns` says what each number is, `tables` makes rows of scores, `summary` says of many cases
what can be said in few numbers, `comparison` sets two evaluations against each other.
"""

from __future__ import annotations

from volseg.evaluation.columns import Better, Column, columns_of
from volseg.evaluation.comparison import Comparison, compare, compare_tables
from volseg.evaluation.evaluate import CasePair, Evaluation, Failure, Protocol, evaluate, read_pair
from volseg.evaluation.summary import MEAN_ROW, POLICY, statistics, summarise
from volseg.evaluation.tables import failed_row, metrics_table, score_row

__all__ = [
    "MEAN_ROW",
    "POLICY",
    "Better",
    "CasePair",
    "Column",
    "Comparison",
    "Evaluation",
    "Failure",
    "Protocol",
    "columns_of",
    "compare",
    "compare_tables",
    "evaluate",
    "failed_row",
    "metrics_table",
    "read_pair",
    "score_row",
    "statistics",
    "summarise",
]
