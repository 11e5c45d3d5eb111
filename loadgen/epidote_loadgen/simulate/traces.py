"""This file is about real traces as simulated requests, and about drawing requests from rates.

`epidote_loadgen.traces` reads the formats; the digitised series and distributions of Azure's
2024 and 2025 traces (Azure/AzurePublicDataset) are read here.
"""

import csv
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf
from pathlib import Path
from random import Random

from epidote_core.modality import Modality
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.traces.reading import TraceFormat, read_rows

VIDEO_IMAGES = 5  # a request with so many images is judged as video: its frames, its SLO
Rate = Callable[[float], float]  # of the time in seconds


def steady(value: float) -> Rate:
    """The same at every time."""
    return lambda at_s: value


def series(path: Path, column: str, *, start_s: float = 0.0) -> Rate:
    """A digitised series (first column: minutes), linear between its points, 0 s at `start_s`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    index = rows[0].index(column)
    times = [60.0 * float(row[0]) - start_s for row in rows[1:]]
    values = [float(row[index]) for row in rows[1:]]

    def at(now_s: float) -> float:
        right = bisect_right(times, now_s)
        if right == 0:
            return values[0]
        if right == len(times):
            return values[-1]
        share = (now_s - times[right - 1]) / (times[right] - times[right - 1])
        return values[right - 1] + share * (values[right] - values[right - 1])

    return at


def relative(rate: Rate, *, typical: float, least: float, most: float) -> Rate:
    """`rate` over its typical value, inside [least, most]."""
    return lambda at_s: min(most, max(least, rate(at_s) / typical))


def servegen(
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float = 86_400.0,
    images: Rate | None = None,
    max_images: int = 49,
    keep_ratio: float = 1.0,
    seed: int = 0,
) -> Iterator[SimRequest]:
    """Requests of [start_s, end_s), from 0 on. `images` multiplies the images of a request.

    Added images repeat the request's own sizes, so a burst changes how many images there are
    and nothing else. `keep_ratio` thins the trace.
    """
    random = Random(seed)
    for row in read_rows(path, trace_format=TraceFormat.SERVEGEN):
        if row.at_s < start_s or (keep_ratio < 1.0 and random.random() >= keep_ratio):
            continue
        if row.at_s >= end_s:
            return
        sizes = row.image_tokens
        if images is not None and sizes:
            wanted = len(sizes) * images(row.at_s)
            count = int(wanted) + (random.random() < wanted - int(wanted))
            count = max(1, min(max_images, count))
            sizes = (sizes * (count // len(sizes) + 1))[:count]
        yield SimRequest(
            row.at_s - start_s,
            row.text_tokens,
            row.output_tokens,
            sizes,
            modality=modality_of(len(sizes)),
        )


def modality_of(num_images: int) -> Modality:
    if num_images >= VIDEO_IMAGES:
        return Modality.VIDEO
    return Modality.IMAGE if num_images else Modality.TEXT


def azure_conversation(
    path: Path, *, start_s: float = 0.0, end_s: float = 7200.0, speed: float = 1.0
) -> Iterator[SimRequest]:
    """Azure's conversation hour of 2023. `speed` > 1 squeezes it into less time."""
    for row in read_rows(path, trace_format=TraceFormat.AZURE):
        if start_s <= row.at_s < end_s:
            yield SimRequest((row.at_s - start_s) / speed, row.text_tokens, row.output_tokens)


def mooncake(
    path: Path, *, start_s: float = 0.0, end_s: float = inf, max_requests: int = 1_000_000
) -> Iterator[SimRequest]:
    """Mooncake's conversation trace, with the identity of its 512-token prefix blocks."""
    for row in islice(read_rows(path, trace_format=TraceFormat.MOONCAKE), max_requests):
        if start_s <= row.at_s < end_s:
            yield SimRequest(
                row.at_s - start_s, row.text_tokens, row.output_tokens, block_ids=row.block_ids
            )


def token_cdf(path: Path) -> Callable[[Random], int]:
    """A sampler for one of the digitised cumulative distributions of token counts."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    shares = [float(row[2]) / 100.0 for row in rows]
    values = [max(1.0, float(row[0])) for row in rows]

    def sample(random: Random) -> int:
        return round(values[min(len(values) - 1, bisect_right(shares, random.random()))])

    return sample


def poisson(
    rate_rps: Rate,
    peak_rps: float,
    make: Callable[[float, Random], SimRequest],
    *,
    end_s: float,
    seed: int = 0,
) -> Iterator[SimRequest]:
    """Requests at a rate that changes with time (thinning); `peak_rps` bounds it from above."""
    random = Random(seed)
    now_s = 0.0
    while True:
        now_s += random.expovariate(peak_rps)
        if now_s >= end_s:
            return
        if random.random() * peak_rps < rate_rps(now_s):
            yield make(now_s, random)
