"""This file is about the commands that watch and change a running service's response cache."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from epidote_core.errors import InvalidRequest
from epidote_gateway.cache.policy import InvalidPolicy
from epidote_gateway.cache.policy_file import read_policy
from epidote_workers.cli_calibrate import calibrate
from epidote_workers.cli_fleet import DEFAULT_URL, Json, Key, Url, ask_service, fail

cache_app = typer.Typer(no_args_is_help=True, help="Watch and change the response cache.")
cache_app.command()(calibrate)
EntryId = Annotated[str, typer.Argument(help="From the header x-epidote-cache, or `lookup`.")]
BASE = "/admin/cache"


@cache_app.command()
def stats(url: Url = DEFAULT_URL, api_key: Key = "", as_json: Json = False) -> None:
    """Show entries, hit ratios and thresholds in force, by category.

    Example: epidote cache stats
    """
    found = ask_service(url, api_key, "GET", BASE)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{found['entries']} entries, {_mib(found['bytes'])} and {_mib(found['index_bytes'])} of"
        f" index in {found['partitions']} partitions; pressure {found['pressure']:.2f}"
    )
    columns = "{:<24} {:>8} {:>10} {:>9} {:>10} {:>9}"
    typer.echo(columns.format("category", "entries", "size", "hits", "threshold", "ttl"))
    for name, c in found["categories"].items():
        shown = name if c["enabled"] else f"{name} (off)"
        hits, threshold = f"{c['hit_ratio']:.1%}", f"{c['threshold']:.3f}"
        typer.echo(
            columns.format(
                shown, c["entries"], _mib(c["bytes"]), hits, threshold, f"{c['ttl_s']:g} s"
            )
        )


@cache_app.command()
def lookup(
    text: Annotated[str, typer.Argument(help="A question.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="Neighbours to show.")] = 5,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's entries.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Only entries of this context, as the first column has it.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    as_json: Json = False,
) -> None:
    """Show what is near a question, and what would refuse it.

    A request is compared within its own context only: the same tenant, model, system prompt,
    earlier turns, pictures and sampling. A text alone does not say in which context it is asked,
    so `near` is no promise of a hit; --context shows those that can compete.

    Example: epidote cache lookup "how do I reset my password"
    """
    body = {"text": text, "limit": limit, "tenant": tenant, "context": context}
    found = ask_service(url, api_key, "POST", f"{BASE}/lookup", body)
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found["is_enabled"]:
        typer.echo(f"category {found['category']} is disabled: never looked up, never kept")
        return
    typer.echo(f"category {found['category']}, threshold {found['threshold']:.3f}")
    for near in found["neighbours"]:
        entry = near["entry"]
        verdict = near["refused_by"] or ("near" if near["is_near_enough"] else "too far")
        turns = f"after {entry['num_turns']} turns" if entry["num_turns"] else "first"
        typer.echo(
            f"{entry['context'][:8]} {turns:<14} {near['similarity']:.3f} {verdict:<12}"
            f" {entry['id']} {entry['text']!r}"
        )
    if found["num_contexts"] > 1:
        typer.echo("each context (first column) is only for requests with the same one")


@cache_app.command()
def evict(
    entry_id: EntryId, url: Url = DEFAULT_URL, api_key: Key = "", as_json: Json = False
) -> None:
    """Remove one entry.

    Example: epidote cache evict 5f0c2a9d4e6b4a7c8d9e0f1a2b3c4d5e
    """
    _say_removed(ask_service(url, api_key, "DELETE", f"{BASE}/entries/{entry_id}"), as_json)


@cache_app.command()
def wrong(
    entry_id: EntryId, url: Url = DEFAULT_URL, api_key: Key = "", as_json: Json = False
) -> None:
    """Report that a hit was wrong: it is removed and its category's threshold tightened.

    Example: epidote cache wrong 5f0c2a9d4e6b4a7c8d9e0f1a2b3c4d5e
    """
    found = ask_service(url, api_key, "POST", f"{BASE}/feedback", {"id": entry_id})
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(f"removed; the category's threshold is {found['category_threshold']:.3f} now")


@cache_app.command()
def invalidate(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    category: Annotated[str | None, typer.Option(help="Of this category.")] = None,
    media: Annotated[str | None, typer.Option(help="About the medium of this key.")] = None,
    older_than: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    as_json: Json = False,
) -> None:
    """Remove the entries that match every given option.

    Example: epidote cache invalidate --category faq --older-than 3600 --dry-run
    """
    body = {
        "tenant": tenant,
        "model": model,
        "category": category,
        "media": media,
        "older_than_s": older_than,
        "dry_run": dry_run,
    }
    if all(value is None for name, value in body.items() if name != "dry_run"):
        fail(InvalidRequest("give at least one option to match; `flush` removes everything"))
    _say_removed(ask_service(url, api_key, "POST", f"{BASE}/invalidate", body), as_json)


@cache_app.command()
def flush(url: Url = DEFAULT_URL, api_key: Key = "", as_json: Json = False) -> None:
    """Remove every entry; answers under way are not kept either.

    Example: epidote cache flush
    """
    _say_removed(ask_service(url, api_key, "POST", f"{BASE}/flush"), as_json)


@cache_app.command()
def policy(url: Url = DEFAULT_URL, api_key: Key = "") -> None:
    """Show the policy in force as JSON, defaults filled in.

    Example: epidote cache policy
    """
    typer.echo(json.dumps(ask_service(url, api_key, "GET", f"{BASE}/policy"), indent=2))


@cache_app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A CachePolicy, or its fields; YAML or JSON.")],
    url: Url = DEFAULT_URL,
    api_key: Key = "",
) -> None:
    """Put a policy in force, without restart or loss.

    Example: epidote cache apply cache-policy.yaml
    """
    try:
        spec = read_policy(file).model_dump(mode="json", by_alias=True)
    except InvalidPolicy as error:
        fail(InvalidRequest(str(error)))
    ask_service(url, api_key, "PUT", f"{BASE}/policy", {"spec": spec})
    typer.echo(f"{file} is in force")


@cache_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A CachePolicy, or its fields; YAML or JSON.")],
) -> None:
    """Check a policy file without a service: its fields, and the files that it names.

    Example: epidote cache check cache-policy.yaml
    """
    from epidote_gateway.cache.meaning.files_check import check_embedder  # of the extra `cache`

    try:
        found = read_policy(file)
        check_embedder(found, file)
    except InvalidPolicy as error:
        fail(InvalidRequest(str(error)))
    for warning in found.unfindable():
        typer.echo(f"warning: {warning}", err=True)
    names = ", ".join(category.name for category in found.categories) or "none"
    typer.echo(f"{file} is valid; categories: {names}")


def _say_removed(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    verb = "would be removed" if found["dry_run"] else "removed"
    typer.echo(f"{found['num_entries']} entries {verb}, {_mib(found['num_bytes'])}")
    if found["pending"]:
        typer.echo(
            f"warning: the store still has {found['pending']} of them; they are owed to it, and"
            " other gateways may serve them until then",
            err=True,
        )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MiB"
