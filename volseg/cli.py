"""The command line: parse, call, print; and the one place where an error becomes a line and an exit code.

Heavy libraries are imported by the verb that needs them, so that `volseg --help` is instant.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volseg import __version__
from volseg.console import print_line, print_summary, print_table, say, show_progress
from volseg.errors import VolsegError

if TYPE_CHECKING:
    from volseg.export import Encoding, Format
    from volseg.progress import Progress
    from volseg.runs import Run

EXIT_DEFECT, EXIT_USAGE, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="volseg",
    help="3D segmentation of MRI and CT: a folder of labelled scans in, masks on the anatomy out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of some or all configuration keys.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="One key, such as training.epochs=100. Repeatable.")]
#: Written out, because importing them from `volseg.export` would make --help slow.
_FORMATS = "nifti, nrrd, mha, seg-nrrd, dicom-seg, rtstruct, dicom-sr, stl, ply, glb or png."
FormatOption = Annotated[list[str] | None, typer.Option("--format", help=f"{_FORMATS} Repeatable.")]
EncodingOption = Annotated[
    str, typer.Option("--encoding", help="Of dicom-seg: binary (every viewer) or labelmap (small, DICOM of 2024).")
]
GapsOption = Annotated[
    bool,
    typer.Option("--allow-gaps", help="Bridge missing or uneven DICOM slices by interpolation instead of refusing."),
]


class _InterruptedError(Exception):
    """Ctrl-C, taken out of the hands of typer, which would only say that it aborted."""


def main() -> None:
    """Run the command; every error volseg expects becomes one line on stderr."""
    try:
        app()
    except VolsegError as error:
        say(f"error: {error}")
        if error.hint:
            say(f"  hint: {error.hint}")
        code = EXIT_USAGE
    except _InterruptedError:
        say("interrupted; what was finished is complete, and the same command goes on (train: with --resume)")
        code = EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  the edge: a defect of ours is kept in a file, not thrown at the user
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
        say(f"error: a defect of volseg: {type(error).__name__}: {error}{notes}")
        say(f"  hint: please report it with {_keep_traceback()}")
        code = EXIT_DEFECT
    sys.exit(code)


def _version(*, shown: bool) -> None:
    if shown:
        print(f"volseg {__version__}")  # noqa: T201  results go to stdout
        raise typer.Exit


@app.callback()
def options(
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    version: Annotated[  # noqa: ARG001  handled by its callback
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(shown=value), is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Set up logging for every verb."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("volseg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


@app.command(epilog="Example: volseg demo --output volseg-demo")
def demo(
    output: Annotated[Path, typer.Option("--output", help="New folder for everything it makes.")] = Path("volseg-demo"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Time for training.")] = 3.0,
) -> None:
    """Make phantoms, train on them, segment held-out ones, score them. Takes minutes on a laptop."""
    from volseg.demo import run_demo

    with _progress() as progress:
        made = run_demo(output, minutes, progress)
    print_summary(made.evaluation.summary)
    print_line(f"\nphantoms  {output / 'train'}, {output / 'test'}")
    print_line(f"model     {made.run.results[0].model}")
    print_line(f"masks     {output / 'masks'}")
    print_line(f"scores    {made.evaluation.metrics_file}, {made.evaluation.summary_file}")
    print_line(f"curves    tensorboard --logdir {output / 'run' / 'tensorboard'}")


@app.command(epilog="Example: volseg inspect patients/ --json")
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder or a file.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what is in a folder: volumes or DICOM series, where they lie, what is odd, and which would be taken."""
    from dataclasses import asdict

    from volseg.config import dicom_rules
    from volseg.inspection import inspect as look

    rules = dicom_rules(_with_gaps(_overrides(config, assignments), allow_gaps))
    with _progress() as progress:
        findings = look(path, tuple(rules.series) or ("image",), rules, progress)
    if as_json:
        print_line(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    rows = [
        (
            finding.path,
            finding.kind,
            "x".join(str(size) for size in finding.shape or ()),
            " x ".join(f"{size:.4g}" for size in finding.spacing_mm or ()),
            finding.axis_codes,
            finding.status,
            "; ".join(text for text in (finding.remark, finding.taken) if text),
        )
        for finding in findings
    ]
    print_table(("path", "kind", "voxels", "spacing in mm", "axes", "status", "remark"), rows)


@app.command(epilog="Example: volseg plan data/Task04_Hippocampus --output config.yaml")
def plan(
    data: Annotated[Path, typer.Argument(help="A labelled data set; data/README.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The YAML file to write.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
) -> None:
    """Look at a data set and write a complete, commented configuration."""
    from volseg.io.files import write_text
    from volseg.runs import plan_folder, render

    with _progress() as progress:
        dataset, made = plan_folder(data, _with_gaps(_overrides(config, assignments), allow_gaps), progress)
    write_text(output, render(made))
    print_line(
        f"{len(dataset.cases)} cases ({dataset.layout}), {len(dataset.set_aside)} files not used; wrote {output}"
    )


@app.command(epilog="Example: volseg train data/Task04_Hippocampus --output runs/hippocampus --minutes 10")
def train(  # noqa: PLR0913  each is an option
    data: Annotated[Path, typer.Argument(help="A labelled data set; data/README.md shows the layouts.")],
    output: Annotated[Path, typer.Option("--output", help="The run folder.")],
    *,
    config: ConfigOption = None,
    assignments: SetOption = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.1, help="Time for the whole run.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Rounds of training.steps_per_epoch.")] = None,
    target_dice: Annotated[
        float | None, typer.Option("--target-dice", min=0, max=1, help="Stop as soon as validation reaches it.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option("--fold", help="Which fold is held out, or all, one after another.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", help="A run, model or file of weights to start with, as far as it fits.")
    ] = None,
    allow_gaps: GapsOption = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
) -> None:
    """Train a network: a 3D U-Net fitted to the data unless the configuration says otherwise."""
    from volseg.config import merge
    from volseg.progress import silent
    from volseg.runs import train_folder
    from volseg.training.team import gather_team, was_restarted

    overrides = _with_gaps(_overrides(config, assignments), allow_gaps)
    options = {
        "minutes": minutes, "epochs": epochs, "target_dice": target_dice, "fold": fold, "start_from": start_from
    }  # fmt: skip
    chosen = {key: value for key, value in options.items() if value is not None}
    overrides = merge(overrides, {"training": chosen} if chosen else {})
    resume = resume or was_restarted()
    with gather_team() as team, _progress() as progress:
        told = progress if team.leads else silent
        run = train_folder(data, output, overrides, resume=resume, progress=told, team=team)
    if team.leads:
        _tell_of(run)
    if run.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _tell_of(run: Run) -> None:
    """What a training came to."""
    validation = run.validation
    rows = [(name, f"{dice:.4f}") for name, dice in zip(validation.labels, validation.per_label.tolist(), strict=True)]
    print_table(("label", "validation dice"), [*rows, ("mean", f"{validation.mean:.4f}")])
    for split, result in zip(run.splits, run.results, strict=True):
        print_line(f"\n{len(split.train)} cases taught, {len(split.val)} were held out, {len(run.not_used)} not used")
        print_line(f"best of {result.epochs} epochs: {result.best_epoch}; model: {result.model}")
    decided = run.decided
    if run.config.postprocess is None:
        steps = {rule.label: rule.model_dump(exclude_defaults=True, exclude={"label"}) for rule in decided.rules}
        chosen = "; ".join(f"{label}: {', '.join(step)}" for label, step in steps.items())
        print_line(f"post-processing that raised the Dice: {chosen or 'none'}")
    if decided.data.regions != run.config.data.regions:
        chosen = ", ".join(f"{region.name}: {region.threshold}" for region in decided.data.regions if region.threshold)
        print_line(f"thresholds that raised the Dice: {chosen}")
    print_line(f"curves: tensorboard --logdir {run.folder}")


@app.command(epilog="Example: volseg predict patients/ --model runs/hippocampus --output masks/")
def predict(  # noqa: PLR0913  each is an option
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A data set, a file, a DICOM folder, or a tree of these.")
    ],
    model: Annotated[list[Path], typer.Option("--model", help="A run folder or model file. Repeatable: averaged.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the masks.")],
    *,
    formats: FormatOption = None,
    encoding: EncodingOption = "binary",
    config: ConfigOption = None,
    assignments: SetOption = None,
    allow_gaps: GapsOption = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write how likely each label is, as 4D NIfTI.")
    ] = False,
) -> None:
    """Segment every case in a folder. An interrupted batch goes on with the same command."""
    from volseg.batch import Request, predict_folder
    from volseg.reports import CASES_FILE, CaseReport, Status

    def tell(report: CaseReport) -> None:
        if report.status is Status.SEGMENTED:
            say(f"{report.case_id}: {report.effort}")

    request = Request(output, tuple(_formats(formats)), _encoding(encoding), probabilities)
    overrides = _with_gaps(_overrides(config, assignments), allow_gaps)
    with _progress() as progress:
        reports = predict_folder(source, model, request, overrides, progress, tell)
    counts = {status: sum(report.status == status for report in reports) for status in Status}
    for report in reports:
        if report.status is not Status.SEGMENTED:
            say(f"{report.status}: {report.case_id}: {report.reason}")
    print_line(
        f"{counts[Status.SEGMENTED]} segmented, {counts[Status.SKIPPED]} skipped, {counts[Status.FAILED]} failed "
        f"of {len(reports)} discovered; see {output / CASES_FILE}"
    )
    if counts[Status.FAILED] or not counts[Status.SEGMENTED]:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command(epilog="Example: volseg evaluate masks/ data/labels --output scores/")
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of masks, as `volseg predict` writes it.")],
    references: Annotated[Path, typer.Argument(help="Folder of label maps, or a labelled data set.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for metrics.csv and summary.csv.")],
    *,
    tolerance_mm: Annotated[float, typer.Option("--tolerance-mm", min=0, help="Of the normalised surface Dice.")] = 2.0,
    only_predicted: Annotated[
        bool,
        typer.Option("--only-predicted", help="Leave out references that have no prediction, instead of scoring 0."),
    ] = False,
    allow_gaps: GapsOption = False,
) -> None:
    """Compare masks with references, case by case and label by label."""
    from volseg.config import DicomRules
    from volseg.evaluation import evaluate as score
    from volseg.scoring import evaluation_labels, pair_cases

    rules = DicomRules(allow_gaps=allow_gaps)
    with _progress() as progress:
        pairing = pair_cases(predictions, references, only_predicted=only_predicted, rules=rules)
        labels = evaluation_labels(predictions, pairing.pairs)
        result = score(pairing.pairs, labels, output, tolerance_mm=tolerance_mm, progress=progress)
    for failure in result.failures:
        say(f"failed: {failure.case_id}: {failure.reason}")
    for remark in pairing.remarks:
        say(f"note: {remark}")
    print_summary(result.summary)
    print_line(f"\nwrote {result.metrics_file} and {result.summary_file}")
    if result.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command(
    epilog="Example: volseg export masks/p1.nii.gz --reference dicom/p1 --format dicom-seg --output p1.seg.dcm"
)
def export(
    mask: Annotated[Path, typer.Argument(help="A mask.")],
    reference: Annotated[Path, typer.Option("--reference", help="The image it was made from: a file or DICOM folder.")],
    output: Annotated[Path, typer.Option("--output", help="The file to write; for stl and ply a folder.")],
    *,
    form: Annotated[
        str,
        typer.Option("--format", help=_FORMATS),
    ] = "nifti",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="What its values mean; by default the labels.json beside it.")
    ] = None,
    encoding: EncodingOption = "binary",
    allow_gaps: GapsOption = False,
) -> None:
    """Write a mask in another format, exactly on the images it was made from."""
    from volseg.export import Export
    from volseg.export import export as write

    (chosen,) = _formats([form])
    request = Export(mask, reference, output, chosen, labels, _encoding(encoding), allow_gaps)
    written, paths = write(request)
    for path in paths:
        print_line(f"wrote {path}: {written.geometry}")


@app.command(epilog="Example: volseg download Task04_Hippocampus --output data")
def download(
    task: Annotated[str, typer.Argument(help="Name of a Medical Segmentation Decathlon task.")],
    output: Annotated[Path, typer.Option("--output", help="Folder in which the task's folder is made.")] = Path("data"),
    url: Annotated[str | None, typer.Option("--url", help="Another place to fetch the archive from.")] = None,
    md5: Annotated[
        str | None, typer.Option("--md5", help="Checksum of the archive, if it is not the known one.")
    ] = None,
) -> None:
    """Fetch a public data set, checked and resumable."""
    from volseg.download import download as fetch

    with _progress() as progress:
        folder = fetch(task, output, url=url, md5=md5, progress=progress)
    print_line(f"{folder}")


def _overrides(config: Path | None, assignments: list[str] | None) -> dict[str, Any]:
    from volseg.config import merge, parse_assignments, read_overrides

    return merge(read_overrides(config) if config else {}, parse_assignments(assignments or []))


def _with_gaps(overrides: dict[str, Any], allow_gaps: bool) -> dict[str, Any]:
    from volseg.config import merge

    return merge(overrides, {"data": {"allow_gaps": True}}) if allow_gaps else overrides


def _encoding(name: str) -> Encoding:
    from volseg.export import ENCODINGS

    if name not in ENCODINGS:
        raise typer.BadParameter(f"there is no encoding {name!r}; there are {', '.join(ENCODINGS)}")
    return name


def _formats(names: list[str] | None) -> list[Format]:
    from volseg.export import SUFFIXES

    for name in names or []:
        if name not in SUFFIXES:
            raise typer.BadParameter(f"there is no format {name!r}; there are {', '.join(SUFFIXES)}")
    return list(dict.fromkeys(names or ["nifti"]))  # type: ignore[arg-type]  # checked above


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Progress for as long as a verb works, and its end when it is interrupted."""
    try:
        with show_progress() as progress:
            yield progress
    except KeyboardInterrupt:
        raise _InterruptedError from None


def _keep_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="volseg-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(f"volseg {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        return Path(file.name)
