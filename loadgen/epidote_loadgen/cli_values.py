"""This file is about turning flags into a run file: on top of one, or in place of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.loading import changed, check
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.config.yaml_source import YamlSource, read_yaml

COMMAND_LINE = "command line"
# Which flag says what in a run file; the first seven only where there is no file.
FLAG_OF = {
    "classes.requests.prompt_tokens": "--prompt-tokens",
    "classes.requests.output_tokens": "--output-tokens",
    "classes.requests.max_tokens": "--output-tokens",
    "classes.requests.images": "--images",
    "slo.all.objectives.0.ttft_ms": "--ttft-ms",
    "slo.all.objectives.0.tpot_ms": "--tpot-ms",
    "slo.all.objectives.0.itl_ms": "--itl-ms",
    "slo.all.objectives.0.e2e_ms": "--e2e-ms",
    "slo.all.objectives.0.ratio": "--ratio",
    "target.url": "--target",
    "target.model": "--model",
    "seed": "--seed",
    "limits.processes": "--processes",
    "limits.max_in_flight": "--max-in-flight",
    "limits.max_connections": "--max-connections",
    "watch.metrics_url": "--watch",
    "arrivals.rate": "--rps",
    "arrivals.users": "--users",
    "arrivals.duration_s": "--duration",
    "arrivals.num_requests": "--requests",
    "arrivals.speed": "--speed",
    "arrivals.start_s": "--start",
    "arrivals.end_s": "--end",
    "arrivals.max_requests": "--requests",
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line said, by the commands' parameters; None and empty: nothing."""

    target: str = ""
    model: str = ""
    rps: float | None = None
    users: int | None = None
    duration: float | None = None
    requests: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    images: int | None = None
    questions: bool = False
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None
    ratio: float | None = None
    seed: int | None = None
    processes: int | None = None
    max_in_flight: int | None = None
    max_connections: int | None = None
    watch: str = ""
    arrivals: dict[str, Any] = field(default_factory=dict)  # a trace, in place of rates
    sets: Sequence[str] | None = None  # PATH=VALUE, the value as YAML

    @classmethod
    def of(cls, said: Mapping[str, Any], **more: Any) -> "Flags":
        """Of a command's parameters (its `locals()`, before anything else is assigned), where it
        has them; `more` comes before."""
        known = {f.name: said[f.name] for f in fields(cls) if f.name in said}
        return cls(**known | more)


def run_file(config: Path | None, flags: Flags) -> RunFile:
    """The checked run file.

    Raises:
        InvalidConfig: naming the file and line, or the flag.
    """
    if flags.rps is not None and flags.users is not None:
        raise InvalidConfig(
            "--rps: not together with --users: users wait for their replies, so the rate follows "
            "from them; give one of the two"
        )
    overrides, sets = _overrides(flags), _sets(flags)
    if config is not None:
        _only_without_a_file(flags)
        source = read_yaml(config)
        _fits_the_file(source, flags)
    else:
        if not flags.target:
            raise InvalidConfig("--target: whom to test, as no run file says it")
        source = YamlSource(name=COMMAND_LINE, values=_quick(flags))
    said = FLAG_OF if config is None else {p: f for p, f in FLAG_OF.items() if p in overrides}
    said = {path: flag for path, flag in said.items() if path not in sets}
    said |= dict.fromkeys(sets, "--set")
    return check(replace(changed(source, overrides | sets), flags=said))


def _overrides(flags: Flags) -> dict[str, Any]:
    """Flags that change a run file, by dotted path."""
    named = {
        "target.url": flags.target,
        "target.model": flags.model,
        "seed": flags.seed,
        "limits.processes": flags.processes,
        "limits.max_in_flight": flags.max_in_flight,
        "limits.max_connections": flags.max_connections,
        "watch.metrics_url": flags.watch,
        "arrivals.rate": flags.rps,
        "arrivals.users": flags.users,
        "arrivals.duration_s": flags.duration,
        "arrivals.num_requests": flags.requests,
    }
    found: dict[str, Any] = {
        path: value for path, value in named.items() if value not in (None, "")
    }
    if flags.arrivals:
        found["arrivals"] = flags.arrivals
    return found


def _sets(flags: Flags) -> dict[str, Any]:
    """What --set says, by dotted path."""
    found: dict[str, Any] = {}
    for text in flags.sets or ():
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise InvalidConfig(f"--set: want PATH=VALUE, such as seed=7, got {text!r}")
        try:
            found[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            why = getattr(error, "problem", None) or "it can't be read"
            raise InvalidConfig(f"--set {path}: the value is no YAML: {why}") from error
    return found


def _fits_the_file(source: YamlSource, flags: Flags) -> None:
    """A rate belongs to an open loop, users to a closed one."""
    arrivals = source.values.get("arrivals")
    kind = str(arrivals.get("kind", "open")) if isinstance(arrivals, dict) else "open"
    for flag, value, wanted in (("--rps", flags.rps, "open"), ("--users", flags.users, "closed")):
        if value is not None and kind != wanted:
            raise InvalidConfig(
                f"{flag}: the arrivals of {source.name} are of kind {kind}, want {wanted}"
            )


def _only_without_a_file(flags: Flags) -> None:
    quick = {
        "--prompt-tokens": flags.prompt_tokens,
        "--output-tokens": flags.output_tokens,
        "--images": flags.images,
        "--questions": flags.questions or None,
        "--ttft-ms": flags.ttft_ms,
        "--tpot-ms": flags.tpot_ms,
        "--itl-ms": flags.itl_ms,
        "--e2e-ms": flags.e2e_ms,
        "--ratio": flags.ratio,
    }
    for name, value in quick.items():
        if value is not None:
            raise InvalidConfig(f"{name}: only without a run file; use --set to change one")


def _quick(flags: Flags) -> dict[str, Any]:
    """A run file of flags alone: one class, one promise."""
    arrivals: dict[str, Any] = {"kind": "open", "rate": 10.0}
    if flags.users is not None:
        arrivals = {"kind": "closed"}
    if flags.duration is None and flags.requests is None:
        # At the default rate and ratio 381 requests are what a perfect service needs to pass.
        arrivals["duration_s"] = 60.0
    limits = {
        "ttft_ms": flags.ttft_ms,
        "tpot_ms": flags.tpot_ms,
        "itl_ms": flags.itl_ms,
        "e2e_ms": flags.e2e_ms,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    objective = {
        **(given or {"ttft_ms": 1000.0}),
        "ratio": 0.99 if flags.ratio is None else flags.ratio,
    }
    values: dict[str, Any] = {
        "target": {},
        "arrivals": arrivals,
        "slo": {"all": {"objectives": [objective]}},
    }
    if not flags.arrivals:
        values["classes"] = {"requests": _quick_class(flags)}
    return values


def _quick_class(flags: Flags) -> dict[str, Any]:
    images = {"images": {"count": flags.images}} if flags.images else {}
    if flags.questions:
        if flags.prompt_tokens is not None:
            raise InvalidConfig(
                "--prompt-tokens: not together with --questions: a question is as long as it is"
            )
        tokens = {} if flags.output_tokens is None else {"max_tokens": flags.output_tokens}
        return {"kind": "questions", **images, **tokens}
    return {
        "kind": "lengths",
        "prompt_tokens": 128 if flags.prompt_tokens is None else flags.prompt_tokens,
        "output_tokens": 64 if flags.output_tokens is None else flags.output_tokens,
        **images,
    }
