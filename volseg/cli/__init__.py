"""The command line: parse, call, print.

A module per verb; `verb` has what all of them share. Heavy libraries are imported by the verb that needs them, so that
`volseg --help` is instant.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperCommand

import volseg
from volseg.cli.card import card
from volseg.cli.cite import cite
from volseg.cli.cluster import certificates, scheduler
from volseg.cli.console import take_any_text
from volseg.cli.convert import convert
from volseg.cli.demo import demo
from volseg.cli.download import download
from volseg.cli.evaluate import evaluate
from volseg.cli.export import export
from volseg.cli.import_model import import_model
from volseg.cli.inspect import inspect
from volseg.cli.merge import merge
from volseg.cli.options import VerboseOption
from volseg.cli.plan import plan
from volseg.cli.predict import predict
from volseg.cli.remarks import show_remarks
from volseg.cli.report import report
from volseg.cli.send import send
from volseg.cli.serve import serve
from volseg.cli.show import show
from volseg.cli.train import train
from volseg.cli.user import user
from volseg.cli.verb import command
from volseg.cli.worker import worker
from volseg.version import __version__

#: More characters than any description has.
_UNLIMITED = 10_000


class _Verb(TyperCommand):
    """A command whose description in a list is wrapped instead of cut off."""

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002  which is where it would be
        return super().get_short_help_str(limit=_UNLIMITED)


app = typer.Typer(
    name="volseg",
    help="Train networks to segment MRI, CT and 2D images, and use them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command, and exit with its code."""
    take_any_text()
    volseg.use_threads()  # no more than the container has time for, which libraries ask for when they are loaded
    app()


def _version(*, shown: bool) -> None:
    if shown:
        print(f"volseg {__version__}")  # noqa: T201  results go to stdout
        raise typer.Exit


@app.callback()
def set_up(
    *,
    verbose: VerboseOption = False,
    version: Annotated[  # noqa: ARG001  handled by its callback
        bool,
        typer.Option(
            "--version", callback=lambda value: _version(shown=value), is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Set up the console for every command."""
    show_remarks(verbose=verbose)


for name, verb, example in (
    ("demo", demo, "volseg demo --output volseg-demo"),
    ("inspect", inspect, "volseg inspect patients/ --json"),
    ("show", show, "volseg show data/Task04_Hippocampus --output hippocampus.html"),
    ("plan", plan, "volseg plan data/Task04_Hippocampus --output config.yaml"),
    ("train", train, "volseg train data/Task04_Hippocampus --output runs/hippocampus --minutes 10"),
    ("predict", predict, "volseg predict patients/ --model runs/hippocampus --output masks/"),
    ("merge", merge, "volseg merge masks/"),
    ("evaluate", evaluate, "volseg evaluate masks/ data/labels --output scores/"),
    ("report", report, "volseg report scores/"),
    ("card", card, "volseg card runs/hippocampus --licence 'CC BY 4.0'"),
    ("cite", cite, "volseg cite runs/hippocampus scores/"),
    ("export", export, "volseg export masks/p1.nii.gz --reference dicom/p1 --output p1.seg.dcm"),
    ("import", import_model, "volseg import nnUNetTrainer__nnUNetPlans__3d_fullres/ --output runs/imported"),
    ("convert", convert, "volseg convert runs/hippocampus --to onnx --output hippocampus-onnx"),
    ("download", download, "volseg download Task04_Hippocampus --output data"),
    ("serve", serve, "volseg serve --model runs/hippocampus"),
    ("send", send, "volseg send masks/ --to PACS@10.1.0.7:104"),
    ("user", user, "volseg user anna --role reviewer"),
    ("worker", worker, "volseg worker tls://station1:8786 --certificates certificates/"),
):
    app.command(name, cls=_Verb, epilog=f"Example: {example}")(command(verb))

cluster = typer.Typer(help="Set up a cluster of machines.", no_args_is_help=True, rich_markup_mode=None)
_CERTIFICATES = "Example: volseg cluster certificates --output certificates/"
_SCHEDULER = "Example: volseg cluster scheduler tls://0.0.0.0:8786 --certificates certificates/"
cluster.command("certificates", cls=_Verb, epilog=_CERTIFICATES)(command(certificates))
cluster.command("scheduler", cls=_Verb, epilog=_SCHEDULER)(command(scheduler))
app.add_typer(cluster, name="cluster")
