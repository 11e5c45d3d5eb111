"""This file is about the simulator's flags: their units, defaults and what each one refuses."""

import argparse
from collections.abc import Callable
from math import isfinite
from pathlib import Path

from epidote_loadgen.simulate.named_policies import POLICIES
from epidote_loadgen.simulate.profiles import profile_names
from epidote_loadgen.simulate.trace_spec import FORMATS

MOST_RPS = 10_000.0
MOST_DURATION_S = 31 * 86_400.0
MOST_TOKENS = 1_000_000
MOST_IMAGES = 1_000
MOST_WORKERS = 10_000


def parser() -> argparse.ArgumentParser:
    """Every number is bounded, so that a slip of the keyboard is told and not simulated."""
    top = argparse.ArgumentParser(
        prog="epidote-loadgen simulate",
        description="Run a scaling policy over a trace, or advise the cheapest fleet for it. "
        "Exit status: 0 the SLO was met, 1 missed, 2 a wrong command.",
        epilog="example: epidote-loadgen simulate --rps 8 --images 1 --html run.html",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    top.add_argument(
        "--profile",
        default="internvl2-26b-a100",
        help=f"{', '.join(profile_names())}, or the path of a JSON file",
    )
    top.add_argument("--policy", choices=POLICIES, default="epidote", help="who decides")
    top.add_argument("--advise", action="store_true", help="print the cheapest fleet instead")
    load = top.add_argument_group("load: a trace, or rates")
    load.add_argument("--trace", help=f"FORMAT:PATH, with {', '.join(FORMATS)}")
    load.add_argument(
        "--start", type=seconds(0.0, MOST_DURATION_S), default=0.0, help="seconds into the trace"
    )
    load.add_argument(
        "--duration", type=seconds(1.0, MOST_DURATION_S), default=1800.0, help="seconds"
    )
    load.add_argument("--rps", type=number(1e-3, MOST_RPS), default=4.0, help="requests/s")
    load.add_argument(
        "--text-tokens", type=count(1, MOST_TOKENS), default=500, help="of a prompt, on average"
    )
    load.add_argument(
        "--output-tokens", type=count(1, MOST_TOKENS), default=130, help="of an answer, on average"
    )
    load.add_argument("--images", type=count(0, MOST_IMAGES), default=1, help="of a request")
    load.add_argument(
        "--image-tokens", type=count(1, MOST_TOKENS), default=576, help="of one image"
    )
    slo = top.add_argument_group("promise")
    slo.add_argument("--ttft", type=seconds(1e-3, 86_400.0), default=5.0, help="seconds")
    slo.add_argument("--tpot", type=seconds(1e-4, 3600.0), default=0.1, help="seconds")
    slo.add_argument(
        "--quantile",
        type=number(0.01, 0.9999),
        default=0.99,
        help="share of the requests that is promised both",
    )
    fleet = top.add_argument_group("fleet")
    fleet.add_argument("--initial", type=workers, default="4,5,2", help="encode,prefill,decode")
    fleet.add_argument(
        "--startup",
        type=seconds(0.0, 86_400.0),
        help="seconds until a new worker serves; the profile's own if not given",
    )
    fleet.add_argument("--tick", type=seconds(0.1, 3600.0), default=10.0, help="seconds")
    top.add_argument("--seed", type=count(0, 2**63), default=0, help="of arrivals and lengths")
    top.add_argument("--json", action="store_true", help="results as JSON")
    top.add_argument("--html", type=page, help="write the report here")
    return top


def number(least: float, most: float, what: str = "a number") -> Callable[[str], float]:
    """A reader of a finite number inside [least, most]."""

    def read(text: str) -> float:
        wanted = f"want {what} from {least:g} to {most:g}, got {text!r}"
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(wanted) from error
        if not isfinite(value) or not least <= value <= most:
            raise argparse.ArgumentTypeError(wanted)
        return value

    return read


def seconds(least: float, most: float) -> Callable[[str], float]:
    return number(least, most, "seconds")


def count(least: int, most: int) -> Callable[[str], int]:
    """A reader of a whole number inside [least, most]."""

    def read(text: str) -> int:
        wanted = f"want a whole number from {least} to {most}, got {text!r}"
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(wanted) from error
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(wanted)
        return value

    return read


def workers(text: str) -> tuple[int, int, int]:
    """`encode,prefill,decode`, such as 4,5,2."""
    parts = text.split(",")
    try:
        encode, prefill, decode = (count(0, MOST_WORKERS)(part) for part in parts)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(
            f"want encode,prefill,decode workers such as 4,5,2 "
            f"(each from 0 to {MOST_WORKERS}), got {text!r}"
        ) from error
    return encode, prefill, decode


def page(text: str) -> Path:
    """A file that can be written when the run ends: its folder is looked for before the run."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {str(path.parent)!r}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"want a file, {text!r} is a folder")
    return path
