"""The engine's calls of the GPU kernels, in Triton's interpreter: experts, and KV of one byte.

On a CPU the twins compute, which take any stride. Here the kernels do, with their own checks, and
must say what the twins say.
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

CASES = (
    ("auto", Architecture.QWEN3_MOE),
    ("int8", Architecture.LLAMA),
    ("fp8", Architecture.QWEN3),
)
RUN = """
import json, sys
from epidote_engine import kv_scales
from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve

kv_scales.SAMPLE_TOKENS = 20  # the interpreter is slow
told = []
for kind, path in json.loads(sys.argv[1]):
    engine = Engine(EngineConfig(
        model=path, num_kv_blocks=12, block_size=16, kv_cache_dtype=kind, static_shapes=True,
        max_num_seqs=1, chunk_tokens=16, count_expert_tokens=True,
    ))
    request = GenerateRequest(
        request_id="a", prompt_token_ids=tuple(range(17)),  # two chunks
        sampling=SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True),
    )
    answers = serve(engine, [request])
    told.append([answers["a", 0].token_ids, engine.expert_tokens()])
print(json.dumps(told))
"""


def lacks_interpreter() -> bool:
    if importlib.util.find_spec("triton") is None:
        return True
    # triton 3.6's cannot run loops with numpy >= 2.4
    return importlib.metadata.version("triton").startswith("3.6")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(lacks_interpreter(), reason="triton or its interpreter is not to be had")
def test_kernels_say_what_their_twins_say(tmp_path: Path) -> None:
    cases = []
    for kind, architecture in CASES:
        path = tmp_path / kind
        save_tiny_model(path, architecture, seed=8)
        cases.append((kind, str(path)))
    told = {}
    for name, more in (
        ("twins", {"EPIDOTE_KERNELS": "torch"}),
        ("kernels", {"EPIDOTE_KERNELS": "triton", "TRITON_INTERPRET": "1"}),
    ):
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(cases)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **more},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told[name] = json.loads(done.stdout)
    assert told["kernels"] == told["twins"]
    assert told["twins"][0][1] is not None  # experts were counted
