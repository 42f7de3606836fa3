"""heinfer tenant: who may use a service."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from heinfer.cli.extras import needs

if TYPE_CHECKING:
    from heinfer_server.admission.tenants import TenantFile

tenant = typer.Typer(
    no_args_is_help=True,
    help="Who may use a service: `heinfer serve --tenants FILE` takes their API keys; a change counts at once.",
)

Name = Annotated[str, typer.Argument(help="Of the tenant.")]
File = Annotated[
    Path,
    typer.Option("--tenants", metavar="FILE", envvar="HEINFER_SERVER_TENANTS", help="File of the tenants."),
]


@tenant.command("add")
def add(name: Name, tenants: File) -> None:
    """Add a tenant, and print its first API key; it is shown this once and stored nowhere."""
    typer.echo(_file(tenants).add(name))


@tenant.command("key")
def key(name: Name, tenants: File) -> None:
    """Make another API key for a tenant, and print it; the others stay good until they are revoked."""
    typer.echo(_file(tenants).add_key(name))


@tenant.command("revoke")
def revoke(
    name: Name, key_id: Annotated[str, typer.Argument(help="Eight digits, which the API key has.")], tenants: File
) -> None:
    """Make an API key worthless."""
    _file(tenants).revoke(name, key_id)


@tenant.command("remove")
def remove(name: Name, tenants: File) -> None:
    """Remove a tenant with all its API keys; its evaluation keys go when they have not been used for long."""
    _file(tenants).remove(name)


@tenant.command("list")
def list_tenants(tenants: File) -> None:
    """Show the tenants and the ids of their API keys."""
    table = Table("tenant", "API key", "made")
    for entry in _file(tenants).tenants():
        for number, api_key in enumerate(entry.keys):
            made = datetime.fromtimestamp(api_key.created, UTC).isoformat(timespec="seconds")
            table.add_row("" if number else entry.name, api_key.id, made)
        if not entry.keys:
            table.add_row(entry.name, "none", "")
    Console().print(table)


def _file(path: Path) -> TenantFile:
    with needs("server"):
        from heinfer_server.admission.tenants import TenantFile

    return TenantFile(path)
