"""This file is about the command `epidote-loadgen`.

Exit codes: 0 every promise was kept, 1 one was missed, 2 usage, 3 the target is unreachable,
4 inconclusive, or the client was the bottleneck.
"""

import typer

from epidote_loadgen.cli_mock import mock_server
from epidote_loadgen.cli_report import compare, report
from epidote_loadgen.cli_run import replay, run
from epidote_loadgen.cli_sweep import sweep
from epidote_loadgen.simulate.cli import main as simulate_main

app = typer.Typer(
    name="epidote-loadgen",
    help="Load OpenAI-compatible services and judge them by their SLO.",
    epilog="Exit codes: 0 met, 1 missed, 2 usage, 3 unreachable, 4 inconclusive or client-bound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(replay)
app.command()(sweep)
app.command()(report)
app.command()(compare)
app.command("mock-server")(mock_server)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def simulate(context: typer.Context) -> None:
    """Run a scaling policy over a trace in a simulator (simulate --help).

    Example: epidote-loadgen simulate --rps 8 --images 1 --html run.html
    """
    raise typer.Exit(simulate_main(context.args))


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
