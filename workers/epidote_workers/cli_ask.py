"""This file is about `epidote ask`: one question from the shell, with pictures."""

import base64
import json
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from epidote_core.errors import EpidoteError
from epidote_workers.cli_fleet import DEFAULT_URL, EXIT_USAGE, Url, fail
from epidote_workers.fleet_table import stage_lines
from epidote_workers.service_client import (
    ServiceError,
    ServiceUnreachable,
    call,
    client,
    decoded,
    refusal,
)


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture file; may be given several times.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: Annotated[
        str,
        typer.Option(help="A key of the service, if it asks for one.", envvar="EPIDOTE_API_KEY"),
    ] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: greedy.")] = 0.0,
) -> None:
    """Ask the model; the answer streams to stdout, who did what to stderr.

    Example: epidote ask "How many circles are there?" --image picture.png
    """
    try:
        parts = [image_part(path) for path in image or ()]
    except OSError as error:
        typer.echo(f"error: --image: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from error
    body = {
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": True,
    }
    try:
        with client(url, api_key) as http:
            body["model"] = call(http, "GET", "/v1/models")["data"][0]["id"]
            extension: dict[str, Any] = {}
            for event in events(http, body):
                for choice in event.get("choices", ()):
                    typer.echo(choice["delta"].get("content") or "", nl=False)
                extension = event.get("epidote") or extension
    except EpidoteError as error:
        fail(error)
    typer.echo()
    if extension:
        typer.echo("\n".join(stage_lines(extension)), err=True)


def image_part(path: Path) -> dict[str, Any]:
    """A picture file as a message part, inlined as a data URL."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def events(http: httpx.Client, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answer's events, with the timings extension in the last one.

    Raises:
        ServiceUnreachable, ServiceError: also for an error in mid-stream.
    """
    headers = {"x-epidote-timings": "1"}
    try:
        with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            if not response.is_success:
                response.read()
                raise refusal(response.status_code, decoded(response))
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if not line.startswith("data: ") or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise ServiceError(str(event["error"].get("message")))
                yield event
    except httpx.HTTPError as error:
        raise ServiceUnreachable(f"no answer from {http.base_url}: {error}") from error
