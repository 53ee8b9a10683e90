"""The page of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.about import Facts, made_now, read_about, write_about
from volseg.cases import find_images, images_beside
from volseg.evaluation import CasePair, Evaluation, EvaluationSettings, read_pair
from volseg.evaluation.comparison import references_fact
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE, SUMMARY_FILE
from volseg.evaluation.folder import FolderOptions, evaluate_folder
from volseg.evaluation.pairing import images_of
from volseg.evaluation.summary import MEAN_ROW
from volseg.image.units import Units
from volseg.image.volume import Label
from volseg.io import Source
from volseg.io.tables import read_table
from volseg.io.written import Inputs, claim
from volseg.metrics import Conventions
from volseg.progress import Progress, ignore_progress
from volseg.reporting.gallery import CaseView, colors_of, draw_cases, forget_report, image_on, kept_pictures
from volseg.reporting.page import REPORT_FILE, Number, Report, Tile, counted, write_report

if TYPE_CHECKING:
    import pandas as pd

#: What the tables of a page show of all that was measured, where it was.
_SHOWN = (
    *("dice", "hd95_mm", "hd95_px", "assd_mm", "assd_px", "nsd", "volume_difference_ml", "area_difference_px2"),
    *("lesion_f1", "centerline_dice", "auroc"),
)
_MEANS = tuple(f"{name}_mean" for name in _SHOWN)


def evaluate_with_report(  # noqa: PLR0913  each is an option of the command
    predictions: Path,
    references: Path,
    output: Path | None,
    conventions: Conventions,
    options: FolderOptions,
    images: Path | None = None,
    *,
    report: bool = False,
    progress: Progress = ignore_progress,
    executor: Executor | None = None,
) -> Evaluation:
    """Score a folder of masks, write the origin of the scores and, if requested, a report.

    Args:
        predictions: A folder of masks.
        references: A folder of label maps or a labelled data set.
        output: Gets the tables, about.json and the report; without it nothing is written.
        conventions: How to measure.
        options: What is compared.
        images: Those of the report; by default those of the references, if they are a whole data set.
        report: Whether the report is written, too.
        progress: Told after each case.
        executor: Scores the cases; by default threads of this process.

    Raises:
        VolsegError: As `evaluate_folder` does; and if the report cannot be written.
    """
    known: dict[str, Source] = {}
    if report:
        known = find_images(images, options.rules) if images else images_beside(references, options.rules)
    if output is not None and report:
        inputs = Inputs.of(predictions, references, images)
        claim([output / REPORT_FILE], inputs, overwrite=options.overwrite)
    result, pairs, settings = evaluate_folder(predictions, references, output, conventions, options, progress, executor)
    if output is None:
        return result
    describe_evaluation(result, settings, output, read_about(predictions).lines, references_fact(pairs), report=report)
    if not report:
        return result
    drawn, remarks = images_of(pairs, known)
    page = report_evaluation(result, pairs, settings, drawn, output, progress)
    if alone := len(pairs) - len(drawn):
        remarks.append(f"the report shows {alone} cases without an image; --images names the folder they are in")
    return replace(result, report=page, remarks=(*result.remarks, *remarks))


def describe_evaluation(
    evaluation: Evaluation,
    settings: EvaluationSettings,
    folder: Path,
    predicted_by: Facts = (),
    compared_with: Facts = (),
    *,
    report: bool = False,
) -> None:
    """Write the origin of an evaluation, and remove the report on an earlier one in its folder.

    Args:
        evaluation: What was measured.
        settings: How.
        folder: Where it was written.
        predicted_by: What made the predictions.
        compared_with: Which references they were.
        report: Whether a new report will be written.

    Raises:
        OutputError: If it cannot be written.
    """
    forget_report(folder, is_replaced=report)
    made = ((f"masks: {name}", value) for name, value in predicted_by)
    write_about(made_now((*_facts(evaluation, settings), *compared_with, *made)), folder)


def report_evaluation(
    evaluation: Evaluation,
    pairs: Sequence[CasePair],
    settings: EvaluationSettings,
    images: Mapping[str, Source],
    folder: Path,
    progress: Progress = ignore_progress,
) -> Path:
    """Draw the worst cases of an evaluation and write its report.

    Args:
        evaluation: What was measured.
        pairs: Its cases.
        settings: How they were evaluated.
        images: Case id -> its image, as far as they are known.
        folder: Where it was written.
        progress: Told per case.

    Returns:
        report.html, beside the tables.

    Raises:
        OutputError: If it cannot be written.
    """
    known = {pair.case_id: pair for pair in pairs}

    def view_of(case_id: str) -> CaseView:
        reference, prediction = read_pair(known[case_id], settings)
        return CaseView(reference, prediction, image_on(reference.geometry, images.get(case_id), case_id))

    failed = {failure.case_id for failure in evaluation.failures}
    worst = evaluation.metrics.groupby("case_id")["dice"].min().sort_values(kind="stable")
    draw_cases(view_of, [str(case_id) for case_id in worst.index if case_id not in failed], folder, progress)
    return write_report(page_of_evaluation(folder), folder)


def _facts(evaluation: Evaluation, settings: EvaluationSettings) -> Facts:
    """Return the number of evaluated cases and the settings."""
    conventions = settings.conventions
    tolerances = ", ".join(f"{length:g}" for length in conventions.tolerances_mm)
    return (
        ("cases", str(evaluation.metrics["case_id"].nunique())),
        ("labels", ", ".join(f"{label.name} ({label.value})" for label in settings.labels)),
        ("HD95", conventions.hd95.replace("_", " ")),
        ("NSD", f"{conventions.nsd.replace('_', ' ')}, at {tolerances} {settings.unit}"),
        *((("measured", "within regions of interest"),) if settings.within else ()),
        *((("ignored", f"what references mark {settings.ignored}"),) if settings.ignored is not None else ()),
        *((("other values", "background"),) if settings.others == "background" else ()),
        *((("other grids", "resampled onto that of the reference"),) if settings.resample else ()),
    )


def page_of_evaluation(folder: Path) -> Report:
    """Build the page of an evaluation from its tables and pictures.

    Raises:
        DataError: If one of them is damaged.
    """
    rows = read_table(folder / METRICS_FILE)
    summary = read_table(folder / SUMMARY_FILE)
    definitions = read_table(folder / STATISTICS_FILE).drop_duplicates("metric")
    numbers = tuple(
        Number(str(row["metric"]), str(row["definition"]), str(row["better"])) for row in definitions.to_dict("records")
    )
    cases = sorted(set(rows["case_id"]))
    pictures = kept_pictures(folder, cases)
    named = rows[["value", "label"]].drop_duplicates().itertuples(index=False)
    labels = [Label(int(value), str(name)) for value, name in named]
    return Report(
        kind="Evaluation",
        title=f"{counted(len(cases), 'case')}, {counted(rows['label'].nunique(), 'label')}",
        tiles=_tiles(summary),
        facts=read_about(folder).lines,
        rows=rows,
        numbers=numbers,
        table=tuple(name for name in _SHOWN if name in rows.columns),
        sort="dice",
        summary=summary,
        means=tuple(name for name in _MEANS if name in summary.columns),
        policy=str(summary["policy"].iloc[0]),
        colors=colors_of(labels, pictures),
        pictures=pictures,
        no_pictures="Only the worst cases that could be read are drawn, by volseg evaluate --report.",
    )


def _tiles(summary: pd.DataFrame) -> tuple[Tile, ...]:
    """Return the tiles at the top: the mean over the labels, and the number of problems."""
    overall = summary[summary["label"] == MEAN_ROW].iloc[-1]
    length = Units.of_columns(summary.columns).length
    wrong = [name for name in ("missed", "false_alarm", "not_predicted", "failed") if overall[name]]
    return (
        Tile("mean Dice", f"{overall['dice_mean']:.3f}"),
        Tile("mean HD95", f"{overall[f'hd95_{length}_mean']:.2f} {length}"),
        Tile("mean NSD", f"{overall['nsd_mean']:.3f}"),
        Tile("structures scored", f"{overall['scored']:.0f}"),
        *(Tile(name.replace("_", " "), f"{overall[name]:.0f}", alarm=True) for name in wrong),
    )
