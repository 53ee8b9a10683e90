"""What all commands share: `--log`, `-v`, signals, and the one place where errors become exit codes."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from volseg.cli.console import printed, say
from volseg.cli.log_file import logged
from volseg.cli.options import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    LogOption,
    VerboseOption,
)
from volseg.cli.remarks import remarks, show_remarks
from volseg.cli.signals import ended_by_signals, stop_is_requested
from volseg.errors import VolsegError
from volseg.version import __version__

#: What parameters are called that name what a verb reads.
READ = frozenset(
    {"data", "folder", "images", "mask", "others", "path", "predictions", "reference", "references", "source", "within"}
)

#: Of the last line of a log, by the exit code that it states; any other is an error.
_LEVELS = {EXIT_OK: logging.INFO, EXIT_SOME_FAILED: logging.WARNING, EXIT_INTERRUPTED: logging.WARNING}

#: Options of every verb: name, what it is if it is left out, annotation.
_OPTIONS = (("log", None, LogOption), ("verbose", False, VerboseOption))


def command(verb: Callable[..., None]) -> Callable[..., None]:
    """Turn a function into a command with `--log`, `-v`, `-o`, signal handling and exit codes."""

    @functools.wraps(verb)
    def run(*, log: Path | None = None, verbose: bool = False, **options: Any) -> None:
        if verbose:
            show_remarks(verbose=True)
        with ended_by_signals():
            code = _exit_code(lambda: _run_logged(verb, options, log))
        raise typer.Exit(code)

    signature = inspect.signature(verb, eval_str=True)
    for parameter in signature.parameters.values():
        _complete(parameter)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in _OPTIONS
    ]
    signature = signature.replace(parameters=[*signature.parameters.values(), *added])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what typer makes options of
    run.__annotations__ = {**verb.__annotations__, **{name: annotation for name, _, annotation in _OPTIONS}}
    return run


def _complete(parameter: inspect.Parameter) -> None:
    """Add `-o` for `--output`, and show arguments in capitals, as the documentation does."""
    for stated in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(stated, OptionInfo) and stated.default == "--output":
            stated.param_decls = ("-o",)
        if isinstance(stated, ArgumentInfo):
            stated.metavar = stated.metavar or parameter.name.upper()


def _run_logged(verb: Callable[..., None], options: dict[str, Any], log: Path | None) -> int:
    """Run a command, and log its start and end."""
    began, code = time.monotonic(), EXIT_DEFECT
    given = [value if isinstance(value, list) else [value] for name, value in options.items() if name in READ]
    read = [path for paths in given for path in paths if isinstance(path, Path)]
    with logged(log, read):
        printed.info("%s begins: volseg %s", verb.__name__, __version__)
        try:
            code = _exit_code(lambda: verb(**options))
        finally:
            remarks.tell_repeated()
            printed.log(
                _LEVELS.get(code, logging.ERROR),
                "%s ends: exit code %d after %.1f s",
                verb.__name__,
                code,
                time.monotonic() - began,
            )
    return code


def _exit_code(work: Callable[[], int | None]) -> int:
    """Run a function, print expected errors as one line on stderr, and return the exit code."""
    try:
        return work() or EXIT_OK
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:  # noqa: BLE001  the edge: a defect of ours is kept in a file, not thrown at the user
        if stop_is_requested():  # which a library has put into words of its own, or what it meant to others of a group
            return _interrupted()
        return _failed(error)


def _interrupted() -> int:
    say(
        "interrupted; finished work is kept. Run the same command again to continue (train: with --resume)",
        logging.WARNING,
    )
    return EXIT_INTERRUPTED


def _failed(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):  # who read what is printed has left, and wants no more of it
        raise error
    if isinstance(error, VolsegError):
        say(f"error: {error}", logging.ERROR)
        if error.hint:
            say(f"  hint: {error.hint}", logging.ERROR)
        return EXIT_USAGE
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    say(f"error: a defect of volseg: {type(error).__name__}: {error}{notes}", logging.ERROR)
    say(f"  hint: please report it with {_keep_traceback()}", logging.ERROR)
    return EXIT_DEFECT


def _keep_traceback() -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="volseg-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(f"volseg {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
        return Path(file.name)
