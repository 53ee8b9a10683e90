"""`volseg cite`: describe a run for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line, print_text
from volseg.cli.options import OverwriteOption


def cite(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    scores: Annotated[Path | None, typer.Argument(help="What `volseg evaluate` wrote of its masks.")] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Folder for methods.md, references.bib and table.tex. By default they are printed."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the methods of a run for a paper, with its true numbers, BibTeX of what it used, and a table of scores."""
    import volseg

    made = volseg.cite(run, scores, output, overwrite=overwrite)
    if output is not None:
        files = "methods.md, references.bib and table.tex" if made.table else "methods.md and references.bib"
        print_line(f"wrote {files} in {output}")
        return
    print_text("\n\n".join(filter(None, (made.methods, made.bibtex, made.table))))
