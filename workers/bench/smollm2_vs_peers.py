"""SmolLM2-135M served by Epidote, by `transformers serve` and, if given, by vLLM's CPU build.

Same machine, same run, bf16, one OpenMP thread each, greedy, 50 tokens a stream, concurrency 1, 4
and 8. The servers take turns for some rounds, and each figure is the median of its rounds: on a
busy machine only the ratios mean anything.

    python workers/bench/smollm2_vs_peers.py --vllm-python PATH --rounds 3 --json OUT
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from result_file import conditions, write_result
from service import epidote, free_port, running
from streams import closed_loop

QUESTIONS = (
    "Tell me about the history of bread.",
    "Explain how a bicycle stays upright.",
    "Write a short story about a lighthouse.",
    "What should a visitor see in Paris?",
    "Describe how rain forms.",
    "Why do cats purr?",
    "Give me advice for learning the violin.",
    "How does a computer add two numbers?",
)
NUM_TOKENS = 50


def bodies(model: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": QUESTIONS[i % len(QUESTIONS)]}],
            "max_tokens": NUM_TOKENS,
            "temperature": 0,
        }
        for i in range(count)
    ]


@contextlib.contextmanager
def transformers_serve(model_dir: str) -> Iterator[tuple[str, str]]:
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", model_dir, "--device", "cpu",
        "--dtype", "bfloat16", "--continuous-batching", "--cb-num-blocks", "512",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    hub = Path("/tmp/epidote-bench-hub")
    hub.mkdir(exist_ok=True)  # /v1/models answers 500 when this folder is missing
    with running(
        command,
        ready_url=f"http://127.0.0.1:{port}/health",
        log_path=f"/tmp/transformers-serve-{port}.log",
        deadline_s=400,
        env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)},
    ):
        yield f"http://127.0.0.1:{port}", model_dir


@contextlib.contextmanager
def vllm_cpu(python: str, model_dir: str) -> Iterator[tuple[str, str]]:
    port = free_port()
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", model_dir,
        "--dtype", "bfloat16", "--max-model-len", "1024", "--enforce-eager",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    env = {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with running(
        command,
        ready_url=f"http://127.0.0.1:{port}/health",
        log_path=f"/tmp/vllm-{port}.log",
        deadline_s=600,
        env=env,
    ):
        yield f"http://127.0.0.1:{port}", model_dir


@contextlib.contextmanager
def ours() -> Iterator[tuple[str, str]]:
    flags = ["--workers", "1", "--roles", "all=1", "--dtype", "bfloat16"]
    with epidote(*flags, model="smollm2") as url:
        yield url, "smollm2"


def measure(url: str, model: str, per_level: int) -> dict[int, float]:
    """Generated tokens per second at each concurrency, prompts included in the time."""
    asyncio.run(closed_loop(url, bodies(model, 2), concurrency=2))  # warm-up
    rates: dict[int, float] = {}
    for concurrency in (1, 4, 8):
        work = bodies(model, per_level * concurrency)
        results, seconds = asyncio.run(closed_loop(url, work, concurrency=concurrency))
        failed = [result.error for result in results if result.error]
        if failed:
            raise RuntimeError(f"{len(failed)} requests failed, first: {failed[0]}")
        rates[concurrency] = sum(r.num_tokens or len(r.arrivals_s) for r in results) / seconds
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vllm-python", help="python of an environment that has vllm (optional)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-level", type=int, default=3, help="requests per stream and level")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    from epidote_engine.config import load_model_spec

    model_dir = str(load_model_spec("smollm2").path)
    servers: dict[str, Any] = {
        "epidote": ours,
        "transformers serve": lambda: transformers_serve(model_dir),
    }
    if options.vllm_python:
        servers["vllm (cpu)"] = lambda: vllm_cpu(options.vllm_python, model_dir)
    seen: dict[str, list[dict[int, float]]] = {name: [] for name in servers}
    for round_index in range(options.rounds):
        for name, start in servers.items():
            with start() as (url, model):
                rates = measure(url, model, options.per_level)
            seen[name].append(rates)
            print(f"# round {round_index + 1} {name}: {rates}", file=sys.stderr, flush=True)
    medians = {
        name: {c: statistics.median(r[c] for r in rounds) for c in (1, 4, 8)}
        for name, rounds in seen.items()
    }
    print("tokens/s             c=1      c=4      c=8")
    for name, rates in medians.items():
        print(f"{name:18s}" + "".join(f"{rates[c]:9.1f}" for c in (1, 4, 8)))
    for name, rates in medians.items():
        if name != "epidote":
            ratios = "".join(f"{medians['epidote'][c] / rates[c]:8.2f}x" for c in (1, 4, 8))
            print(f"ours / {name:11s}{ratios}")
    if options.json:
        report = {
            **conditions("torch", "transformers"),
            "dtype": "bfloat16",
            "threads": 1,
            "new_tokens": NUM_TOKENS,
            "requests_per_stream_and_level": options.per_level,
            "median_tokens_per_s": medians,
            "rounds": seen,
        }
        write_result(options.json, report)


if __name__ == "__main__":
    main()
