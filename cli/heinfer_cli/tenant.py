"""heinfer tenant: who may use a service."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from heinfer.errors import SettingError
from heinfer.extras import needs

if TYPE_CHECKING:
    from heinfer_server.admission.tenants import Tenant, TenantFile, Terms

tenant = typer.Typer(
    no_args_is_help=True,
    help="Who may use a service: `heinfer serve --tenants FILE` takes their API keys; a change counts at once.",
)

Name = Annotated[str, typer.Argument(help="Of the tenant.")]
File = Annotated[
    Path,
    typer.Option("--tenants", metavar="FILE", envvar="HEINFER_SERVER_TENANTS", help="File of the tenants."),
]


Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="How long the API key is good: 90d, 12h, or until a date, 2030-01-31 (UTC)."),
]
ModelNames = Annotated[
    str | None, typer.Option("--models", metavar="NAME,...", help="The only models that the API key is good for.")
]


@tenant.command("add")
def add(name: Name, tenants: File, expires: Expires = None, models: ModelNames = None) -> None:
    """Add a tenant, and print its first API key; it is shown this once and stored nowhere."""
    typer.echo(_file(tenants).add(name, _terms(expires, models)))


@tenant.command("key")
def key(name: Name, tenants: File, expires: Expires = None, models: ModelNames = None) -> None:
    """Make another API key for a tenant, and print it; the others stay good until they are revoked."""
    typer.echo(_file(tenants).add_key(name, _terms(expires, models)))


@tenant.command("revoke")
def revoke(
    name: Name, key_id: Annotated[str, typer.Argument(help="Eight digits, which the API key has.")], tenants: File
) -> None:
    """Make an API key worthless."""
    _file(tenants).revoke(name, key_id)


@tenant.command("remove")
def remove(name: Name, tenants: File) -> None:
    """Remove a tenant with its API keys; a service deletes its evaluation keys, uploads and jobs within seconds."""
    _file(tenants).remove(name)


@tenant.command("list")
def list_tenants(tenants: File) -> None:
    """Show the tenants and their API keys: by their ids, with until when and for what they are good."""
    table = Table("tenant", "API key", "made (UTC)", "good until", "for", box=None)
    for entry in _file(tenants).tenants():
        for number, api_key in enumerate(entry.keys):
            until = "" if api_key.expires is None else _moment(api_key.expires)
            models = "all models" if api_key.models is None else ", ".join(api_key.models)
            table.add_row("" if number else entry.name, api_key.id, _moment(api_key.created), until, models)
        if not entry.keys:
            table.add_row(entry.name, "none", "", "", "")
    Console().print(table)


@tenant.command("keys")
def keys(
    tenants: File,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Of the tenant, or the id of one who is there no more; all of them without.", show_default=""
        ),
    ] = None,
    key_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", envvar="HEINFER_SERVER_KEY_FOLDER", help="Where the service keeps keys."),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Have the service delete them, with uploads and jobs, within seconds.")
    ] = False,
) -> None:
    """Show the sets of evaluation keys that a tenant has stored in a service's folder, or have them deleted."""
    file = _file(tenants)
    if purge:
        if name is None:
            raise SettingError("say whose keys are to go: a tenant, or an id that the list without --purge shows")
        file.purge(name)
        typer.echo("purged: a service that runs deletes them within seconds, another when it starts")
    elif key_folder is None:
        raise SettingError("say where the service keeps keys: --key-folder FOLDER, or HEINFER_SERVER_KEY_FOLDER")
    else:
        Console().print(_stored(file.tenants(), name, key_folder))


def _stored(tenants: list[Tenant], name: str | None, key_folder: Path) -> Table:
    from heinfer_server.operator.stored import stored_sets

    names = {tenant.id: tenant.name for tenant in tenants}
    if name is not None and name not in (*names.values(), *names) and not re.fullmatch("[0-9a-f]{16}|default", name):
        raise SettingError(f"there is no tenant {name}: `heinfer tenant list` shows them")
    table = Table("tenant or id", "key set", "bytes", "registered (UTC)", "last used", box=None)
    for entry in stored_sets(key_folder):
        whose = names.get(entry.tenant, entry.tenant)
        if name in (None, entry.tenant, whose):
            times = _moment(entry.created), _moment(entry.used)
            table.add_row(whose, entry.key_set[:8], f"{entry.size:,}", *times)
    return table


def _terms(expires: str | None, models: str | None) -> Terms:
    with needs("server"):
        from heinfer_server.admission.tenants import Terms

    names = None if models is None else tuple(name.strip() for name in models.split(","))
    return Terms(None if expires is None else _end(expires, datetime.now(UTC)), names)


def _end(expires: str, now: datetime) -> float:
    """When that is, in seconds since the epoch."""
    found = re.fullmatch(r"([0-9]{1,6})([dh])", expires)
    try:
        if found:
            end = now + timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))
        else:
            end = datetime.fromisoformat(expires)
    except (ValueError, OverflowError):
        raise SettingError(f"{expires!r} is no time: write 90d, 12h or a date such as 2030-01-31") from None
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    if end <= now:
        raise SettingError(f"{expires} is over: name a time to come")
    return end.timestamp()


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _file(path: Path) -> TenantFile:
    with needs("server"):
        from heinfer_server.admission.tenants import TenantFile

    return TenantFile(path)
