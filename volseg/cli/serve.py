"""`volseg serve`: a server for clinical viewers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from volseg.cli.console import print_line, say
from volseg.cli.options import DeviceOption
from volseg.errors import ConfigError


def serve(  # noqa: PLR0913  each is an option
    *,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="[NAME=]RUN", help="A run folder or model file, perhaps named. Repeatable."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML file with rules, destinations, senders: docs/serve.md.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="The folder for what is received and made; by default volseg-store."),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to listen on; by default 127.0.0.1: this machine alone.")
    ] = None,
    dicom_port: Annotated[
        int | None, typer.Option("--dicom-port", help="The port of the DICOM node, by default 11112; 0 for none.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port of the web page, by default 8000.")] = None,
    behind_proxy: Annotated[
        Path | None,
        typer.Option(
            "--behind-proxy",
            metavar="SECRET",
            help="A reverse proxy encrypts and knows the users; the file holds what it states in X-Proxy-Secret.",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check models, store and destinations, and end.")] = False,
    device: DeviceOption = None,
) -> None:
    """Serve models to a PACS, 3D Slicer, OHIF and browsers: receive images, segment them, send the masks back."""
    from volseg.serving import check_server, read_server_config
    from volseg.serving import serve as serve_forever

    stated: dict[str, Any] = {}
    if model:
        stated["models"] = _models(model)
    if store is not None:
        stated["store"] = store.absolute()
    if device is not None:
        stated["device"] = device
    proxy = None if behind_proxy is None else {"secret": behind_proxy.absolute()}
    stated["dicom"] = _given(host=host, port=dicom_port)
    stated["web"] = _given(host=host, port=port, behind_proxy=proxy)
    served = read_server_config(config, stated)
    if check:
        for line in check_server(served):
            print_line(line)
        return

    def tell(lines: list[str]) -> None:
        for line in lines:
            say(line)
        say("next: open the web page, connect 3D Slicer to it, or send studies; Ctrl-C ends the server without loss")

    serve_forever(served, tell)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _models(given: list[str]) -> dict[str, Path]:
    models: dict[str, Path] = {}
    for text in given:
        name, equals, place = text.partition("=")
        path = Path(place if equals else name).absolute()
        name = name if equals else path.resolve().name.removesuffix(".pt")
        if name in models:
            raise ConfigError(f"two models are called {name}", hint="name them: --model first=runs/a --model second=b")
        models[name] = path
    return models
