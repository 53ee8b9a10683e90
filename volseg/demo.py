"""The whole of volseg on phantoms it makes itself: train, predict, evaluate, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volseg.about import facts_of_models
from volseg.cases import find_images, find_references
from volseg.cases.phantoms import LABELS, write_dataset
from volseg.evaluation import CasePair, Evaluation, Protocol, evaluate
from volseg.io.source import FileSource
from volseg.model.checkpoint import model_files
from volseg.prediction.batch import Request, predict_folder
from volseg.prediction.cases_csv import CaseResult
from volseg.progress import Progress, ignore_progress
from volseg.reporting import describe_evaluation, report_evaluation
from volseg.training.run import Run, train_folder

_CASES, _TEST_CASES = 16, 4


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo made.

    Attributes:
        run: The training.
        reports: One per predicted case.
        evaluation: Scores of cases that training never saw.
        report: The same as a page, with pictures.
    """

    run: Run
    reports: list[CaseResult]
    evaluation: Evaluation
    report: Path


def run_demo(output: Path, minutes: float = 3.0, progress: Progress = ignore_progress) -> Demo:
    """Make phantoms, train on most of them, segment and score the others.

    Args:
        output: Gets train/, test/, run/, masks/ and scores/.
        minutes: For training.
        progress: Told all along.

    Returns:
        Everything that came out.

    Raises:
        OutputError: If the output cannot be written or already holds a run.
    """
    train_set, test_set = output / "train", output / "test"
    write_dataset(train_set, _CASES, seed=0, progress=progress)
    write_dataset(test_set, _TEST_CASES, seed=1000, progress=progress)
    overrides = {
        "data": {"labels": {label.name: label.value for label in LABELS}},
        "network": {"name": "unet", "channels": [16, 32, 64, 128]},
        "training": {"minutes": minutes, "folds": 8, "batch_size": 2},
        "postprocess": [{"label": "*", "keep_largest": True}],
    }
    run = train_folder(train_set, output / "run", overrides, progress=progress)
    masks = output / "masks"
    reports = predict_folder(test_set, [output / "run"], Request(masks), progress=progress)
    pairs = [
        CasePair(case_id, FileSource(masks / f"{case_id}.nii.gz"), reference)
        for case_id, reference in find_references(test_set).items()
    ]
    protocol = Protocol(LABELS)
    evaluation = evaluate(pairs, protocol, output / "scores", progress)
    describe_evaluation(evaluation, protocol, facts_of_models(model_files(output / "run")))
    report = report_evaluation(evaluation, pairs, protocol, find_images(test_set), progress=progress)
    return Demo(run, reports, evaluation, report)
