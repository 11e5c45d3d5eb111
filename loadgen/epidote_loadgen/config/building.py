"""This file is about making a run's plan of a checked run file."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.client.address import InvalidTarget, header_lines
from epidote_loadgen.config.arrivals_section import (
    OpenSection,
    StreamSection,
    StreamsSection,
    TraceSection,
)
from epidote_loadgen.config.class_section import (
    ImagesSection,
    LengthsSection,
    ParaphrasesSection,
    QuestionsSection,
    TraceClassSection,
)
from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.model_discovery import discover_model
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.config.slo_section import slo_table
from epidote_loadgen.plan import RunPlan, Target
from epidote_loadgen.records import Schedule
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.traces.trace_window import Trace
from epidote_loadgen.workload.body import Api, BodyStyle
from epidote_loadgen.workload.distributions import Fixed
from epidote_loadgen.workload.length_class import LengthClass
from epidote_loadgen.workload.maker import ClassTraits, Maker
from epidote_loadgen.workload.mixed import MixedWorkload
from epidote_loadgen.workload.paraphrase_class import ParaphraseClass
from epidote_loadgen.workload.picture_source import PictureSource
from epidote_loadgen.workload.question_class import QuestionClass
from epidote_loadgen.workload.shared_prefix import SharedPrefix
from epidote_loadgen.workload.trace_class import TraceClass

AnyClass = LengthsSection | QuestionsSection | ParaphrasesSection | TraceClassSection


def build_plan(
    run: RunFile, *, base: Path = Path(), ask_model: Callable[[Target], str] = discover_model
) -> RunPlan:
    """The plan; paths in the file are relative to `base`. Reads the trace or rate file, if any.

    `ask_model` names the model where the file leaves it out.

    Raises:
        InvalidConfig: a file or variable that the run file names can't be used.
        ModelUnknown: the server was asked for its model and did not say.
    """
    try:
        target = run.target.build(base)
        trace = run.arrivals.trace(base) if isinstance(run.arrivals, TraceSection) else None
        arrivals, duration_s = _arrivals(run, trace, base)
        config = plain_config(run)
        if trace is not None:
            config["trace"] = _found_in(trace)
        if run.watch is not None and run.watch.profile:
            # Read now: after the run it would be too late to find it missing.
            config["watch"]["profile"] = _checked_profile(run.watch.profile, base)
        _check_tenants(run, trace)
        # The server last, so that what is wrong with the files is told without one.
        model = run.target.model or ask_model(target)
        config["target"]["model"] = model
        workload = MixedWorkload(
            {
                name: _maker(name, section, run, trace, model)
                for name, section in run.classes.items()
            }
        )
        return RunPlan(
            target=target,
            arrivals=arrivals,
            workload=workload,
            slo=slo_table(run.slo),
            limits=run.limits.build(),
            seed=run.seed,
            num_processes=run.limits.processes,
            confidence=run.confidence,
            duration_s=duration_s,
            config=config,
            config_digest=digest(config),
        )
    except InvalidConfig:
        raise
    except ValueError as error:
        raise InvalidConfig(str(error)) from error


def plain_config(run: RunFile) -> dict[str, Any]:
    """The run file with every default filled in, as JSON values; headers' values are left out."""
    values: dict[str, Any] = run.model_dump(mode="json", by_alias=True, exclude={"output"})
    values["target"]["headers"] = dict.fromkeys(values["target"]["headers"], "(not shown)")
    if values["target"]["proxy_url"]:
        values["target"]["proxy_url"] = values["target"]["proxy_url"].rpartition("@")[2]
    return values


def _check_tenants(run: RunFile, trace: Trace | None) -> None:
    """Every tenant that a header will name can be one.

    Raises:
        InvalidConfig: naming where the tenant stands.
    """
    header = run.target.tenant_header
    if not header:
        return
    named = {
        f"classes.{name}.tenants": list(section.tenants or {})
        for name, section in run.classes.items()
    }
    if trace is not None:
        named[str(trace.path)] = sorted({row.tenant for row in trace.rows if row.tenant})
    for where, tenants in named.items():
        for tenant in tenants:
            try:
                header_lines(((header, tenant),))
            except InvalidTarget as error:
                raise InvalidConfig(
                    f"{where}: tenant {tenant[:60]!r} can't stand in the header "
                    f"target.tenant_header names: {error}"
                ) from error


def _found_in(trace: Trace) -> dict[str, Any]:
    """What a trace turned out to hold, skipped rows included."""
    return {
        "num_rows": len(trace.rows),
        "num_bad_rows": trace.bad.count,
        "bad_rows": list(trace.bad.first),
    }


def _checked_profile(name: str, base: Path) -> str:
    """The profile's name, or its path from here. Raises ValueError: there is none."""
    if name.endswith(".json"):
        name = str(base / name)
    load_profile(name)
    return name


def digest(config: dict[str, Any]) -> str:
    """Names what was asked of whom: equal files give equal digests."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _arrivals(
    run: RunFile, trace: Trace | None, base: Path
) -> tuple[Schedule | ClosedLoop, float | None]:
    section = run.arrivals
    if isinstance(section, TraceSection):
        assert trace is not None
        last_s = (trace.rows[-1].at_s - trace.start_s) / section.speed
        return section.build(trace, next(iter(run.classes))), last_s
    weights = {name: entry.weight for name, entry in run.classes.items() if entry.weight > 0.0}
    built = section.build(weights, seed=run.seed, base=base)
    if isinstance(section, OpenSection | StreamsSection):
        streams: list[StreamSection] = (
            section.streams if isinstance(section, StreamsSection) else [section]
        )
        if any(stream.duration_s is None for stream in streams):
            return built, None
        return built, max(stream.start_s + (stream.duration_s or 0.0) for stream in streams)
    return built, section.duration_s


def _maker(name: str, section: AnyClass, run: RunFile, trace: Trace | None, model: str) -> Maker:
    traits = ClassTraits(
        name=name,
        seed=run.seed,
        style=BodyStyle(
            model=model,
            api=getattr(section, "api", Api.CHAT),
            temperature=section.temperature,
            extra=section.extra_body,
        ),
        category=section.category,
        tenants=section.tenants or {},
        tenant_header=run.target.tenant_header,
        prefix=_prefix(name, section, run.seed),
    )
    pictures = _pictures(name, section.images, run.seed)
    count = section.images.count.build() if section.images else None
    match section:
        case LengthsSection():
            return LengthClass(
                traits=traits,
                prompt_tokens=section.prompt_tokens.build(),
                output_tokens=section.output_tokens.build(),
                num_images=count or Fixed(0),
                pictures=pictures,
                exact=section.exact,
                template_tokens=section.template_tokens,
                as_ids=section.token_ids,
            )
        case QuestionsSection():
            # A closed loop gives each user neighbouring items, so one session at a time is right.
            is_closed = run.arrivals.kind == "closed"
            return QuestionClass(
                traits=traits,
                num_images=count or Fixed(0),
                pictures=pictures,
                num_turns=section.turns,
                num_sessions=1 if is_closed else section.sessions,
                max_tokens=section.max_tokens,
            )
        case ParaphrasesSection():
            return ParaphraseClass(
                traits=traits,
                reuse=section.groups.build(),
                pictures=pictures,
                kinds=tuple(section.about),
                trap_ratio=section.trap_ratio,
                max_tokens=section.max_tokens,
            )
        case TraceClassSection():
            assert trace is not None  # the file was checked
            return TraceClass(
                traits=traits,
                trace=trace,
                pictures=pictures,
                exact=section.exact,
                side_px=section.image_token_side_px,
                template_tokens=section.template_tokens,
                as_ids=section.token_ids,
            )


def _pictures(name: str, section: ImagesSection | None, seed: int) -> PictureSource:
    section = section or ImagesSection()
    return PictureSource(
        seed=seed,
        name=name,
        resolutions=section.mix(),
        image_format=section.format,
        quality=section.quality,
        max_items=section.max_items,
        reuse=section.reuse.build() if section.reuse else None,
    )


def _prefix(name: str, section: AnyClass, seed: int) -> SharedPrefix | None:
    if section.prefix is None:
        return None
    return SharedPrefix(
        seed=seed, name=name, num_tokens=section.prefix.tokens, reuse=section.prefix.build()
    )
