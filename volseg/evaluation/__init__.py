"""Evaluation: compare predictions with references and write tables of scores.

`evaluate` is the command; `pairing` pairs masks with references, `columns` defines the metrics, `metrics_csv` writes
them in rows, `summary` summarises them over cases, and `comparison` compares two evaluations.
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
    evaluate_masks,
    read_pair,
)
from volseg.evaluation.in_memory import evaluate_in_memory
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
    "evaluate_in_memory",
    "evaluate_masks",
    "failed_row",
    "metrics_table",
    "read_pair",
    "score_row",
    "statistics",
    "summarise",
]
