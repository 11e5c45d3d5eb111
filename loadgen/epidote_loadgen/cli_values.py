"""This file is about turning flags into a run file: on top of one, or in place of one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.loading import check, load
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.config.yaml_source import YamlSource


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line said; None and empty: nothing."""

    url: str = ""
    model: str = ""
    rps: float | None = None
    users: int | None = None
    duration_s: float | None = None
    num_requests: int | None = None
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
    sets: tuple[str, ...] = ()  # PATH=VALUE, the value as YAML


def run_file(config: Path | None, flags: Flags) -> RunFile:
    """The checked run file.

    Raises:
        InvalidConfig: naming the file and line, or the flag.
    """
    overrides = _overrides(flags)
    if config is not None:
        _only_without_a_file(flags)
        return load(config, overrides)
    if not flags.url:
        raise InvalidConfig("--target: whom to test, as no run file says it")
    values = _quick(flags)
    for dotted, value in overrides.items():
        values = _with(values, dotted.split("."), value)
    return check(YamlSource(name="command line", values=values, lines={}))


def _overrides(flags: Flags) -> dict[str, Any]:
    """Flags that change a run file, by dotted path."""
    named = {
        "target.url": flags.url,
        "target.model": flags.model,
        "seed": flags.seed,
        "limits.processes": flags.processes,
        "limits.max_in_flight": flags.max_in_flight,
        "limits.max_connections": flags.max_connections,
        "watch.metrics_url": flags.watch,
        "arrivals.rate": flags.rps,
        "arrivals.users": flags.users,
        "arrivals.duration_s": flags.duration_s,
        "arrivals.num_requests": flags.num_requests,
    }
    found: dict[str, Any] = {
        path: value for path, value in named.items() if value not in (None, "")
    }
    if flags.arrivals:
        found["arrivals"] = flags.arrivals
    for text in flags.sets:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise InvalidConfig(f"--set: want PATH=VALUE, such as seed=7, got {text!r}")
        try:
            found[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidConfig(f"--set {path}: the value is no YAML: {error}") from error
    return found


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
    if flags.duration_s is None and flags.num_requests is None:
        arrivals["duration_s"] = 30.0
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
        return {"kind": "questions", **images}
    return {
        "kind": "lengths",
        "prompt_tokens": 128 if flags.prompt_tokens is None else flags.prompt_tokens,
        "output_tokens": 64 if flags.output_tokens is None else flags.output_tokens,
        **images,
    }


def _with(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    inner = values.get(keys[0])
    if len(keys) > 1:
        value = _with(inner if isinstance(inner, dict) else {}, keys[1:], value)
    return {**values, keys[0]: value}
