"""An op that is wrong on a device is found before it is timed, whatever is wrong with it."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from epidote_kernels import ops

FOLDER = pathlib.Path(__file__).parents[2] / "kernels" / "bench"
IN_PLACE = ("rope_kv_write", "apply_penalties", "unpack_blocks", "scatter_blocks", "copy_blocks")
# ops whose cases have another name
NAMES = {
    "paged_decode_attention": "paged_decode",
    "paged_prefill_attention": "paged_prefill",
    "vision_attention": "vision",
}
# what no case is about, or what runs in other ops' cases; loading is not timed
TIMED = sorted(
    set(ops.__all__) - {"rope_table", "rope_cos_sin", "mrope_cos_sin", "quantize_weight"}
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A file of the benches' folder, which is in no package."""
    monkeypatch.setenv("EPIDOTE_KERNELS", "torch")
    monkeypatch.syspath_prepend(str(FOLDER))
    torch.manual_seed(0)
    return importlib.import_module


def verdicts(bench: Callable[[str], Any], op: str) -> list[str]:
    """What the check says of each toy case of `op`."""
    check, found = bench("correctness").check, []
    with torch.inference_mode():
        for group in bench("kernel_cases").groups("cpu", torch.float32, toy=True).values():
            for case in group():
                if case.name.split()[0] == NAMES.get(op, op):
                    found.append(check(case, torch.float32))
    return found


def of_zeros(found: Any) -> Any:
    if isinstance(found, Tensor):
        return torch.zeros_like(found)
    return tuple(map(of_zeros, found)) if isinstance(found, tuple) else found


@pytest.mark.parametrize("op", TIMED)
def test_every_op_is_checked_and_found_out_where_it_answers_with_zeros(
    op: str, bench: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verdicts(bench, op)
    assert right
    assert not any(right)
    real = getattr(ops, op)
    if op in IN_PLACE:  # writes nothing; `rope_kv_write` gives the queries back as they were
        monkeypatch.setattr(ops, op, lambda *given, **_: given[0])
    else:
        monkeypatch.setattr(ops, op, lambda *given, **more: of_zeros(real(*given, **more)))
    found = verdicts(bench, op)
    assert len(found) == len(right)
    assert all(found)


def case_of(bench: Callable[[str], Any], run: Callable[[], Any], want: Tensor) -> Any:
    return bench("bench_ops").Case(name="op", run=run, twin=lambda: want, num_bytes=1.0)


def test_memory_that_is_never_written_holds_no_number(bench: Callable[[str], Any]) -> None:
    def half_written() -> Tensor:
        out = torch.empty(8, 4)
        out[:4] = 0.0
        return out

    check = bench("correctness").check
    assert "inf" in check(case_of(bench, half_written, torch.zeros(8, 4)), torch.float32)
    assert torch.empty(8, 4).dtype is torch.float32
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_wrong_row_of_a_thousand_is_found(bench: Callable[[str], Any]) -> None:
    want = torch.randn(10_000, 16)
    got = want.clone()
    got[4711] += 1.0
    errors = bench("correctness").relative_errors(got, want)
    assert errors[0] < 2e-2 < errors[1]
    found = bench("correctness").check(case_of(bench, lambda: got, want), torch.bfloat16)
    assert found.endswith("in one row")


def test_a_case_whose_twin_changes_nothing_is_refused(bench: Callable[[str], Any]) -> None:
    held = torch.ones(3)
    case = bench("bench_ops").Case(
        name="op", run=lambda: None, twin=lambda: None, num_bytes=1.0, written=(held,)
    )
    assert "shows nothing" in bench("correctness").check(case, torch.float32)


def test_what_must_be_left_alone_is_compared_and_put_back(bench: Callable[[str], Any]) -> None:
    held, query = torch.zeros(4), torch.ones(2)

    def twin() -> None:
        held[0] = 1.0

    def careless() -> None:
        held[:2] = 1.0
        query.zero_()

    case = bench("bench_ops").Case(
        name="op", run=careless, twin=twin, num_bytes=1.0, written=(held,), spoilt=(query,)
    )
    assert "relative error" in bench("correctness").check(case, torch.float32)
    assert held.tolist() == [0.0] * 4
    assert query.tolist() == [1.0, 1.0]
