"""The verbs put together, and what becomes of their errors."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from heinfer import __version__
from heinfer.errors import HeinferError, ServiceError
from heinfer_cli.calibrate import calibrate
from heinfer_cli.check import check
from heinfer_cli.compile import compile_network
from heinfer_cli.demo import demo
from heinfer_cli.keys import keys
from heinfer_cli.plan import plan
from heinfer_cli.predict import predict
from heinfer_cli.serve import serve
from heinfer_cli.signing import sign, verify
from heinfer_cli.stored import backup, confirm_clock
from heinfer_cli.tenant import tenant
from heinfer_cli.train import train

REFUSED = 2
"""Exit code for what the user can put right, as for a wrong option."""


class _Verbs(TyperGroup):
    """Shows errors that are raised on purpose as one line: code, cause and way out."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HeinferError as error:
            if ctx.params["debug"]:
                raise
            code = error.server_code if isinstance(error, ServiceError) else error.code
            said = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))  # names of files may be
            line = Text(f"error {code}: {said}", style="red")
            Console(stderr=True).print(line, soft_wrap=True)
            raise typer.Exit(REFUSED) from error


app = typer.Typer(
    name="heinfer",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heinfer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error came up.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show which heinfer this is.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Run a neural network on images it is not allowed to see."""


app.command("train")(train)
app.command("check")(check)
app.command("compile")(compile_network)
app.command("plan")(plan)
app.command("calibrate")(calibrate)
app.command("sign")(sign)
app.command("verify")(verify)
app.command("serve")(serve)
app.add_typer(tenant, name="tenant")
app.command("backup")(backup)
app.command("confirm-clock")(confirm_clock)
app.command("predict")(predict)
app.add_typer(keys, name="keys")
app.command("demo")(demo)


def main() -> None:
    """Run the command line of this process."""
    sys.exit(app())
