"""This file is about naming a trace on the command line: a format and a path, or rates."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.simulate.traces import (
    azure_conversation,
    modality_of,
    mooncake,
    poisson,
    servegen,
    steady,
)

Trace = Callable[[], Iterator[SimRequest]]
FORMATS = ("servegen", "azure-conversation", "mooncake")


def open_trace(spec: str, *, start_s: float, end_s: float) -> Trace:
    """`servegen:PATH`, `azure-conversation:PATH` or `mooncake:PATH`; each call reads it anew."""
    kind, _, name = spec.partition(":")
    path = Path(name)
    if kind not in FORMATS or not name:
        raise ValueError(f"--trace: want FORMAT:PATH with {', '.join(FORMATS)}, got {spec!r}")
    if not path.is_file():
        raise ValueError(f"--trace: no file {name!r}")
    match kind:
        case "servegen":
            return lambda: servegen(path, start_s=start_s, end_s=end_s)
        case "azure-conversation":
            return lambda: azure_conversation(path, start_s=start_s, end_s=end_s)
        case _:
            return lambda: mooncake(path, start_s=start_s, end_s=end_s)


def rates(
    *,
    rps: float,
    text_tokens: int,
    output_tokens: int,
    images: int,
    image_tokens: int,
    duration_s: float,
    seed: int,
) -> Trace:
    """Poisson arrivals of equal requests, lengths exponential around their means."""

    def make(at_s: float, random: Random) -> SimRequest:
        return SimRequest(
            at_s,
            max(1, round(random.expovariate(1.0 / text_tokens))),
            max(1, round(random.expovariate(1.0 / output_tokens))),
            (image_tokens,) * images,
            modality=modality_of(images),
        )

    return lambda: poisson(steady(rps), rps, make, end_s=duration_s, seed=seed)
