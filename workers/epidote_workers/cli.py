"""This file is about the command `epidote`.

Exit codes: 0 done, 1 the service failed or refused, 2 usage, 3 nobody answers at the URL,
130 interrupted while starting.
"""

import typer

from epidote_workers.cli_ask import ask
from epidote_workers.cli_cache import cache_app
from epidote_workers.cli_experts import experts
from epidote_workers.cli_fleet import roles_app, scale, status
from epidote_workers.cli_gateway import gateway
from epidote_workers.cli_head import head
from epidote_workers.cli_serve import serve
from epidote_workers.cli_worker import worker

app = typer.Typer(
    name="epidote",
    help="Serve multimodal language models on separate encode, prefill and decode workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(head)
app.command()(worker)
app.command()(gateway)
app.command()(ask)
app.command()(status)
app.add_typer(roles_app, name="roles")
app.command()(scale)
app.command()(experts)
app.add_typer(cache_app, name="cache")


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
