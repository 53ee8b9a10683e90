"""`volseg user`: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volseg.cli.console import print_line


def user(
    name: Annotated[str, typer.Argument(help="Of the user.")],
    *,
    store: Annotated[Path, typer.Option("--store", help="The folder of the server.")] = Path("volseg-store"),
    role: Annotated[
        str, typer.Option("--role", help="viewer (looks), reviewer (also uploads, corrects and sends) or admin.")
    ] = "viewer",
    token_days: Annotated[
        float | None,
        typer.Option("--token", metavar="DAYS", min=0.01, help="Print a token for a script of this user instead."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the user.")] = False,
) -> None:
    """Add a user to a server, or change the password and role of one."""
    from volseg.serving import add_user, make_token, remove_user

    if remove:
        remove_user(store, name)
        print_line(f"{name} is removed")
    elif token_days is not None:
        print_line(make_token(store, name, token_days))
    else:
        password = typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
        add_user(store, name, password, role)
        print_line(f"{name} is a {role}")
