"""This bench is about the cache under load: the planner's advice relaxes it, and lets go again.

One hour on a pretend clock, with the real cache and the planner's real rule (`pressure.advise`).
The fleet carries a fixed number of requests a second; for twenty minutes half as many again come
as it can take. Questions are intents in many wordings, compared by their words (the mechanism is
measured here, not the sentence model), so that every answer can be judged: the right one is the
one for the same intent. The same questions are asked with and without adaptation.

    python workers/bench/cache_pressure.py --output workers/bench/results/cache_pressure.json
"""

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random
from typing import Any

from result_file import conditions, write_result

from epidote_core.generation import FinishReason, TokenChunk
from epidote_gateway.answers import Facts, Job
from epidote_gateway.cache.cached_answers import CachedAnswers
from epidote_gateway.cache.fakes import FakeClock, WordMeaning, make_job
from epidote_gateway.cache.policy import parse_policy
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_planner.policy import PressurePolicy
from epidote_planner.pressure import advise

TICK_S = 5.0
PHASES = (("before", 1200.0, 0.9), ("overload", 1200.0, 2.2), ("after", 1200.0, 0.9))
WORDS = [f"w{number}" for number in range(600)]
FILLERS = ["please", "could", "you", "tell", "me", "again", "now", "exactly", "kindly", "today"]


class Intents:
    """Questions of eight words; a wording drops one or none and adds up to three fillers.

    Intents come in pairs that differ in two words: near enough to be taken for each other once the
    threshold is low.
    """

    def __init__(self, count: int, rng: Random) -> None:
        self._rng = rng
        self._words: list[list[str]] = []
        for _ in range(count // 2):
            words = rng.sample(WORDS, 10)
            self._words += [words[:8], [*words[:6], *words[8:]]]

    def ask(self) -> tuple[int, str]:
        """(intent, wording); half of the questions are about a tenth of the intents."""
        rng = self._rng
        popular = rng.random() < 0.5
        number = rng.randrange(len(self._words) // 10 if popular else len(self._words))
        words = list(self._words[number])
        if rng.random() < 0.4:
            words.pop(rng.randrange(len(words)))
        words += rng.sample(FILLERS, rng.randrange(4))
        rng.shuffle(words)
        return number, " ".join(words)


class Fleet:
    """Answers with the number of the intent; counts what it is asked."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.intent = 0

    async def stream(self, job: Job, facts: Facts) -> AsyncGenerator[list[TokenChunk], None]:
        self.num_asked += 1
        text = str(self.intent)
        yield [TokenChunk(index=0, token_ids=(1,), text=text, finish_reason=FinishReason.STOP)]


def policy_of(adapts: bool) -> dict[str, Any]:
    category: dict[str, Any] = {"name": "default", "threshold": 0.86, "ttlSeconds": 300}
    if adapts:
        category["loadAdaptation"] = {
            "thresholdStep": 0.08,
            "thresholdFloor": 0.78,
            "ttlStretch": 2.0,
            "maxTtlSeconds": 900,
        }
    return {
        "categories": [category],
        "guards": {"enabled": False},
        "pressure": {"enter": 0.1, "leave": 0.02, "holdSeconds": 30, "releaseSeconds": 300},
    }


async def play(adapts: bool, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clock, rng = FakeClock(), Random(options.seed)
    intents, fleet = Intents(options.intents, rng), Fleet()
    store = SqliteStore(folder / f"{adapts}.sqlite3", unix_time=clock.unix)
    given = Collaborators(
        meaning=WordMeaning(), store=store, rng=Random(2), clock=clock, unix_time=clock.unix
    )
    cache = ResponseCache(parse_policy(policy_of(adapts)), given)
    await cache.loaded()
    answers = CachedAnswers(fleet, cache)
    rule = PressurePolicy()
    overloaded_since_s: float | None = None
    told: dict[str, Counter[str]] = {name: Counter() for name, _, _ in PHASES}
    switches: list[tuple[float, bool]] = []
    began_s, due = clock(), 0.0
    for phase, length_s, load in PHASES:
        count = told[phase]
        for _ in range(int(length_s / TICK_S)):
            due += load * options.capacity_rps * TICK_S
            asked_before = fleet.num_asked
            while due >= 1.0:
                due -= 1.0
                fleet.intent, text = intents.ask()
                facts, said = Facts(), ""
                async for item in answers.stream(make_job(text), facts):
                    said += "".join(chunk.text for chunk in item)
                outcome: Any = facts.cache
                count["requests"] += 1
                count[outcome.status] += 1
                count["relaxed"] += outcome.is_relaxed
                wrong = said != str(fleet.intent)
                count["wrong"] += wrong
                count["wrong, relaxed"] += wrong and outcome.is_relaxed
            clock.pass_s(TICK_S)
            need = (fleet.num_asked - asked_before) / (options.capacity_rps * TICK_S)
            advised = advise(need, 1, overloaded_since_s, clock(), rule)
            overloaded_since_s = advised.overloaded_since_s
            cache.tell_pressure(advised.advice.cache_pressure)
            relaxed = cache.state.relaxation.is_relaxed
            if relaxed != (switches[-1][1] if switches else False):
                switches.append((round(clock() - began_s), relaxed))
            count["ticks over capacity"] += need > 1.0
    await cache.aclose()
    phases = {}
    for name, count in told.items():
        total = count["requests"]
        phases[name] = {
            "requests": total,
            "upstream_ratio": round(count["miss"] / total, 4),
            "relaxed_hits_ratio": round(count["relaxed"] / total, 4),
            "wrong_ratio": round(count["wrong"] / total, 4),
            "wrong_among_relaxed": count["wrong, relaxed"],
            "ticks_over_capacity": count["ticks over capacity"],
        }
    return {"phases": phases, "relaxation_switched_at_s": switches}


async def compare(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        fixed = await play(False, options, Path(folder))
        adaptive = await play(True, options, Path(folder))
    before, after = (r["phases"]["overload"]["upstream_ratio"] for r in (fixed, adaptive))
    return {
        "bench": "cache_pressure",
        "conditions": conditions(),
        "seed": options.seed,
        "intents": options.intents,
        "capacity_rps": options.capacity_rps,
        "phases_s_and_load": PHASES,
        "policy": policy_of(True),
        "fixed": fixed,
        "adaptive": adaptive,
        "upstream_traffic_cut_under_overload": round(1 - after / before, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--intents", type=int, default=1200)
    parser.add_argument("--capacity-rps", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report = asyncio.run(compare(options))
    print(json.dumps(report, indent=2))
    if options.output:
        write_result(options.output, report)


if __name__ == "__main__":
    main()
