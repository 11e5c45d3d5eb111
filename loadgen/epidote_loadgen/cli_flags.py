"""This file is about the flags that several commands share.

Defaults stand in round brackets: square ones are markup to rich, and would not be shown.
"""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Argument(help="Run file (YAML, see docs/loadgen.md). Without one, flags say it all."),
]
Url = Annotated[
    str,
    typer.Option(
        "--target", "-t", help="http://HOST:PORT, https://… or unix:///PATH.", metavar="URL"
    ),
]
Model = Annotated[str, typer.Option(help="(default: the first that the server lists)")]
Duration = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds of arrivals. (default: 60)")
]
PromptTokens = Annotated[int | None, typer.Option(min=1, help="Of each prompt. (default: 128)")]
OutputTokens = Annotated[int | None, typer.Option(min=1, help="Of each reply. (default: 64)")]
Images = Annotated[int | None, typer.Option(min=0, help="Pictures in each request. (default: 0)")]
Questions = Annotated[
    bool, typer.Option("--questions", help="Ask about the pictures, and score the answers.")
]
TtftMs = Annotated[float | None, typer.Option(help="Promise: TTFT, milliseconds. (default: 1000)")]
TpotMs = Annotated[float | None, typer.Option(help="Promise: mean time per output token.")]
ItlMs = Annotated[float | None, typer.Option(help="Promise: a request's p99 gap.")]
E2eMs = Annotated[float | None, typer.Option(help="Promise: the whole reply.")]
Ratio = Annotated[
    float | None, typer.Option(help="Share of requests that keep it. (default: 0.99)")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of arrivals and payloads. (default: 0)")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Processes that send. (default: by the rate)")
]
Ray = Annotated[
    str, typer.Option(help="Spread the processes over this Ray cluster (auto, HOST:PORT).")
]
MaxInFlight = Annotated[
    int | None, typer.Option(min=1, help="Hold requests back beyond; latency still counts.")
]
MaxConnections = Annotated[int | None, typer.Option(min=1, help="Open no more connections.")]
Watch = Annotated[str, typer.Option(help="Metrics page of the service, watched beside the load.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a field of the run file.", metavar="PATH=VALUE"),
]
JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write the whole run as JSON; - is stdout.")
]
CsvOut = Annotated[Path | None, typer.Option("--csv", help="Write one row a request.")]
ParquetOut = Annotated[Path | None, typer.Option("--parquet", help="The same as Parquet.")]
JunitOut = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML for CI.")]
HtmlOut = Annotated[Path | None, typer.Option("--html", help="Write the report for people.")]
VerdictOut = Annotated[
    Path | None,
    typer.Option(help="Write the verdict alone, small enough for a pod's termination message."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Nothing on stderr but warnings and errors.")
]
