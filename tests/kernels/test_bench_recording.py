"""What goes wrong while a GPU is measured costs its own figure, and none of the others."""

import importlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

FOLDER = pathlib.Path(__file__).parents[2] / "kernels" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A file of the benches' folder, which is in no package."""
    monkeypatch.setenv("EPIDOTE_KERNELS", "torch")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def raising(words: str) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        raise RuntimeError(words)

    return run


def ran(script: Any, out: pathlib.Path, *given: str) -> tuple[int, dict[str, Any]]:
    code = script.main(["--device", "cpu", "--toy", "--out", str(out), *given])
    return code, json.loads(out.read_text())


def test_a_kernel_that_raises_and_a_group_without_inputs_cost_no_other_line(
    bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script, cases = bench("bench_gpu"), bench("bench_ops")
    real = bench("kernel_cases").groups

    def groups(*given: Any, **more: Any) -> dict[str, Any]:
        found = real(*given, **more)

        def breaks() -> Iterator[Any]:
            yield cases.Case(
                name="broken", run=raising("shared memory: 262144"), twin=lambda: None, num_bytes=1
            )
            yield from found["scores"]()

        return {"first": breaks, "second": raising("no memory"), "third": found["pictures"]}

    monkeypatch.setattr(script, "groups", groups)
    code, result = ran(script, tmp_path / "result.json", "--only", "kernels")
    assert code == 1
    lines = {line["op"].split()[0]: line for line in result["kernels"]}
    assert lines["broken"]["failed"] == "RuntimeError: shared memory: 262144"
    assert lines["second"]["failed"] == "RuntimeError: no memory"
    for name in ("attention_column_sums", "pool_scores", "paged_prefill"):
        assert lines[name]["percent_of_limit"] > 0
    assert [words.split(":")[0] for words in result["failures"]] == ["broken", "second"]


def test_a_part_of_the_engine_that_fails_leaves_the_others_and_is_named(
    bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script = bench("bench_gpu")
    monkeypatch.setattr(script, "decode_steps", raising("graph capture"))
    monkeypatch.setattr(script, "mixed_load", lambda *_, **__: {"highest_rate_rps": 8.0})
    code, result = ran(script, tmp_path / "result.json", "--only", "decode,mixed_load")
    assert code == 1
    assert result["engine"]["decode"] == {"failed": "RuntimeError: graph capture"}
    assert [goal["is_met"] for goal in result["goals"]] == [None, True]
    assert "kernels" not in result


def test_without_time_nothing_is_begun_and_everything_left_out_is_named(
    bench: Callable[[str], Any], tmp_path: pathlib.Path
) -> None:
    code, result = ran(bench("bench_gpu"), tmp_path / "result.json", "--minutes", "0")
    assert code == 0
    assert all("left_out" in line for line in result["kernels"])
    assert "--only mixed_load" in result["engine"]["mixed_load"]["left_out"]
    assert all(goal["is_met"] is None for goal in result["goals"])
    code, result = ran(bench("bench_gpu_peers"), tmp_path / "peers.json", "--minutes", "0")
    assert code == 0
    assert all("left_out" in line for line in result["kernels"])
    assert "left_out" in result["four_pictures"]
    code = bench("bench_gpu_profile").main(
        ["--device", "cpu", "--toy", "--minutes", "0", "--out", str(tmp_path / "profile.json")]
    )
    assert code == 1
    assert not (tmp_path / "profile.json").exists()


def test_ours_wrong_beside_peers_that_are_right_is_told_as_ours(
    bench: Callable[[str], Any],
) -> None:
    peers = bench("peer_kernels")
    want = torch.randn(4, 4)
    comparison = peers.Comparison(
        case="case", ours=lambda: -want, twin=lambda: want,
        peers={"right": lambda: lambda: want, "missing": raising("not installed")},
    )  # fmt: skip
    line = peers.compared(comparison, "cpu", torch.float32, toy=True)
    assert "relative error" in line["wrong"]
    assert "best_peer_over_ours" not in line
    assert line["peers"]["right"]["time_s"] > 0
    assert line["peers"]["missing"] == {"refused": "RuntimeError: not installed"}


def test_ours_is_measured_where_transformers_is_missing(
    bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script, engines = bench("bench_gpu_peers"), bench("peer_engines")
    for name in ("same_model", "same_vision_model"):
        monkeypatch.setattr(engines, name, raising("no transformers"))
    code, result = ran(script, tmp_path / "peers.json", "--only", "engine,four_pictures")
    assert code == 0
    assert result["engine"]["tokens_per_s"]["epidote"] > 0
    assert set(result["engine"]["refused"].values()) == {"RuntimeError: no transformers"}
    assert result["four_pictures"]["ttft_s"]["epidote"] > 0
    assert result["four_pictures"]["refused"] == "RuntimeError: no transformers"


@pytest.mark.parametrize("script", ["bench_gpu", "bench_gpu_peers", "bench_gpu_profile"])
def test_real_sizes_on_a_cpu_are_refused(
    script: str, bench: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench(script).main(["--device", "cpu"])
    assert "add --toy" in capsys.readouterr().err


def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(
    bench: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench("bench_gpu").main(["--device", "cpu", "--toy", "--only", "decode,speed"])
    assert "got speed" in capsys.readouterr().err
