"""This file is about the command `epidote-loadgen`.

Exit codes: 0 every promise was kept, 1 one was missed, 2 usage, 3 the target is unreachable,
4 inconclusive, the client was the bottleneck, the results could not be told (a broken stdout), or a
bug of ours; 130 Ctrl-C outside of a run. 1 never means anything but "missed".
"""

import sys
import traceback

import typer

from epidote_loadgen.cli_mock import mock_server
from epidote_loadgen.cli_report import compare, report
from epidote_loadgen.cli_run import replay, run
from epidote_loadgen.cli_sweep import sweep
from epidote_loadgen.simulate.cli import main as simulate_main
from epidote_loadgen.verdict.verdict import ExitCode

INTERRUPTED = 130  # as a shell tells it

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
    try:
        app()
    except SystemExit as end:
        # What went wrong within typer ends with 1 as well: an interrupt, a pipe that broke.
        if end.code == ExitCode.MISSED and not isinstance(end.__context__, typer.Exit):
            is_interrupt = isinstance(end.__context__, KeyboardInterrupt | typer.Abort)
            sys.exit(INTERRUPTED if is_interrupt else ExitCode.UNDECIDED)
        raise
    except Exception:  # a gate must not take our bug for a missed promise
        traceback.print_exc()
        sys.exit(ExitCode.UNDECIDED)


if __name__ == "__main__":
    main()
