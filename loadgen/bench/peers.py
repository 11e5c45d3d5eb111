"""The stall experiment beside GuideLLM and AIPerf, one after the other against equal mock servers.

    python loadgen/bench/peers.py --guidellm VENV/bin/guidellm --aiperf VENV/bin/aiperf \
        --tokenizer DIR

40 Poisson requests/s for 30 s, the server stalls from 12 s to 17 s, at most 20 requests in flight,
SLO TTFT <= 1 s. For each tool: requests, the attainment that its own figures give, the attainment
of an open loop by the server's law, and CPU seconds of the whole command (its start included).
Peers need virtual environments of their own; one that is not named is left out.
"""  # noqa: INP001

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.spacing import Poisson, send_times
from epidote_loadgen.mock_server.law import LatencyLaw, Stall, true_attainment
from epidote_loadgen.mock_server.process import mock_process
from epidote_loadgen.mock_server.server import MockSettings

LAW = LatencyLaw(ttft_s=0.01, itl_s=0.002, stalls=(Stall(12.0, 5.0),))
RATE, SECONDS, CAP, TTFT_MS = 40, 30, 20, 1000.0
PATIENCE_S = 400.0
Ttfts = list[float | None]


def epidote(url: str, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "epidote_loadgen.cli", "run", "-t", url, "--quiet"]
    load = ["--rps", str(RATE), "--duration", str(SECONDS), "--max-in-flight", str(CAP)]
    sizes = ["--prompt-tokens", "32", "--output-tokens", "4", "--ttft-ms", str(TTFT_MS)]
    return [*command, *load, *sizes, "--json", str(folder / "run.json")]


def epidote_ttfts(folder: Path) -> Ttfts:
    ttfts = json.loads((folder / "run.json").read_text())["requests"]["ttft_s"]
    return [None if ttft is None else 1000.0 * ttft for ttft in ttfts]


def guidellm(program: str, tokenizer: str) -> Callable[[str, Path], list[str]]:
    return lambda url, folder: [
        program, "run", "--disable-progress",
        "--backend", f"kind=openai_http,target={url},model=mock",
        "--profile", f"kind=poisson,rate={RATE},max_concurrency={CAP}",
        "--constraint", f"kind=max_duration,seconds={SECONDS}",
        "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=4",
        "--output", f"kind=json,path={folder / 'guidellm.json'}",
    ]  # fmt: skip


def guidellm_ttfts(folder: Path) -> Ttfts:
    requests = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]["requests"]
    done = [request["time_to_first_token_ms"] for request in requests["successful"]]
    return [*done, *[None] * len(requests["errored"])]


def aiperf(program: str, tokenizer: str) -> Callable[[str, Path], list[str]]:
    return lambda url, folder: [
        program, "profile", "--model", "mock", "--url", url, "--endpoint-type", "chat",
        "--streaming", "--tokenizer", tokenizer, "--request-rate", str(RATE),
        "--arrival-pattern", "poisson", "--concurrency", str(CAP),
        "--benchmark-duration", str(SECONDS), "--synthetic-input-tokens-mean", "32",
        "--output-tokens-mean", "4", "--output-artifact-dir", str(folder), "--ui", "none",
    ]  # fmt: skip


def aiperf_ttfts(folder: Path) -> Ttfts:
    lines = (folder / "profile_export.jsonl").read_text().splitlines()
    found = [json.loads(line)["metrics"].get("time_to_first_token") for line in lines]
    return [None if value is None else value["value"] for value in found]


def measure(
    name: str, command: Callable[[str, Path], list[str]], ttfts: Callable[[Path], Ttfts]
) -> dict[str, Any]:
    with (
        mock_process(MockSettings(law=LAW, num_tokens=4)) as url,
        tempfile.TemporaryDirectory() as path,
    ):
        before = os.times()
        subprocess.run(
            command(url, Path(path)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,  # an SLO that was missed is an exit code of ours
        )
        after = os.times()
        found = ttfts(Path(path))
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    return {
        "tool": name,
        "requests": len(found),
        "attainment": sum(t is not None and t <= TTFT_MS for t in found) / len(found),
        "cpu_s": round(cpu_s, 2),
        "cpu_ms_per_request": round(1000.0 * cpu_s / len(found), 2),
        "load": os.getloadavg(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guidellm", default="")
    parser.add_argument("--aiperf", default="")
    parser.add_argument("--tokenizer", default="")
    args = parser.parse_args()
    times = send_times(Poisson(), constant(RATE), seed=0, duration_s=SECONDS)
    truth = true_attainment(LAW, [(at_s, "") for at_s in times], ttft_s=TTFT_MS / 1000.0)
    print(json.dumps({"tool": "the server's law, open loop", "attainment": truth}))
    print(json.dumps(measure("epidote-loadgen", epidote, epidote_ttfts)), flush=True)
    if args.guidellm:
        command = guidellm(args.guidellm, args.tokenizer)
        print(json.dumps(measure("guidellm", command, guidellm_ttfts)), flush=True)
    if args.aiperf:
        command = aiperf(args.aiperf, args.tokenizer)
        print(json.dumps(measure("aiperf", command, aiperf_ttfts)), flush=True)


if __name__ == "__main__":
    main()
