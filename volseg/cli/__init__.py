"""The command line: parse, call, print; and the one place where an error becomes a line and an exit code.

A module per verb. Heavy libraries are imported by the verb that needs them, so that `volseg --help` is instant.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

import volseg
from volseg.cli.console import OneLine, say, take_any_text
from volseg.cli.demo import demo
from volseg.cli.download import download
from volseg.cli.evaluate import evaluate
from volseg.cli.export import export
from volseg.cli.inspect import inspect
from volseg.cli.options import EXIT_DEFECT, EXIT_INTERRUPTED, EXIT_USAGE, InterruptedByUserError
from volseg.cli.plan import plan
from volseg.cli.predict import predict
from volseg.cli.report import report
from volseg.cli.train import train
from volseg.errors import VolsegError
from volseg.version import __version__

#: Some microseconds: about as long as the threads of a quiet machine wait for each other.
_SPINS = 5000

app = typer.Typer(
    name="volseg",
    help="3D segmentation of MRI and CT: a folder of labelled scans in, masks on the anatomy out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command; every error volseg expects becomes one line on stderr."""
    take_any_text()
    _let_waiting_threads_sleep()
    volseg.use_threads()  # no more than the container has time for, which libraries ask for when they are loaded
    try:
        app()
    except VolsegError as error:
        say(f"error: {error}")
        if error.hint:
            say(f"  hint: {error.hint}")
        code = EXIT_USAGE
    except InterruptedByUserError:
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
def set_up(
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    version: Annotated[  # noqa: ARG001  handled by its callback
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(shown=value), is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """What holds for every verb."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(levelname)s: %(message)s"))
    logger = logging.getLogger("volseg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


for verb, example in (
    (demo, "volseg demo --output volseg-demo"),
    (inspect, "volseg inspect patients/ --json"),
    (plan, "volseg plan data/Task04_Hippocampus --output config.yaml"),
    (train, "volseg train data/Task04_Hippocampus --output runs/hippocampus --minutes 10"),
    (predict, "volseg predict patients/ --model runs/hippocampus --output masks/"),
    (evaluate, "volseg evaluate masks/ data/labels --output scores/"),
    (report, "volseg report scores/"),
    (export, "volseg export masks/p1.nii.gz --reference dicom/p1 --format dicom-seg --output p1.seg.dcm"),
    (download, "volseg download Task04_Hippocampus --output data"),
):
    app.command(epilog=f"Example: {example}")(verb)


def _let_waiting_threads_sleep() -> None:
    """Let the threads of a parallel loop wait awake for a moment only, unless the user says how they are to wait.

    By default they spin for a millisecond. Where another program takes a core, the last thread then waits for one that
    the others spend on waiting for it, and a training step takes many times as long (benchmarks/TRAINING.md). GNU's
    OpenMP, which PyTorch has on Linux, reads this when it is loaded.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)


def _keep_traceback() -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="volseg-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(f"volseg {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        return Path(file.name)
