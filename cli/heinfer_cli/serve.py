"""heinfer serve: the inference service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from heinfer.errors import SettingError
from heinfer.extras import needs
from heinfer_cli.models import bundle_file


def serve(  # noqa: PLR0913, PLR0917 - one for each option
    bundles: Annotated[list[str], typer.Argument(metavar="NAME|BUNDLE...", help="Models to serve.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one.", show_default="8000")] = None,
    tenants: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may use it: made by `heinfer tenant add`.")
    ] = None,
    no_auth: Annotated[
        bool | None, typer.Option("--no-auth", help="Without API keys, on a loopback address.", show_default=False)
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Serve only what this public key has signed.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that evaluate.", show_default="one a core")] = None,
    backend: Annotated[
        str | None, typer.Option(help="native or tenseal.", show_default="native where it is installed")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of one evaluation, on native.", show_default="1")] = None,
) -> None:
    """Serve compiled models over HTTP. HEINFER_SERVER_* variables set what no option does."""
    with needs("server"):
        from heinfer_server.beginning import leave_signals

        leave_signals()  # before imports that take a second
        from pydantic import ValidationError

        from heinfer_server import Settings, run
        from heinfer_server.settings import problems_of

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "tenants": tenants,
        "no_auth": no_auth,
        "trust": None if trust is None else tuple(trust),
        "workers": workers,
        "backend": backend,
        "threads": threads,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        settings = Settings(bundles=tuple(map(bundle_file, bundles)), **chosen)
    except ValidationError as error:
        raise SettingError(problems_of(error)) from None
    run(settings)
