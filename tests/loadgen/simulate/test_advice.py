"""Advice names a fleet that keeps the SLO, or says plainly that none does, and why."""

import json

import pytest

from epidote_core.slo import Slo
from epidote_loadgen.simulate.advice import advise
from epidote_loadgen.simulate.cli import main
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.simulate.trace_spec import Trace, rates

PROFILE = load_profile("internvl2-26b-a100")


def trace(images: int, rps: float = 2.0) -> Trace:
    return rates(
        rps=rps,
        text_tokens=500,
        output_tokens=60,
        images=images,
        image_tokens=576,
        duration_s=60.0,
        seed=0,
    )


def test_load_without_media_gets_no_encoder() -> None:
    found = advise(trace(images=0), PROFILE, Slo(ttft_s=3.0, tpot_s=0.1))
    assert (found.encode, found.meets_slo) == (0, True)
    assert min(found.prefill, found.decode) >= 1
    assert "encode" not in found.limit


def test_load_with_media_gets_one_at_least() -> None:
    assert advise(trace(images=1), PROFILE, Slo(ttft_s=3.0, tpot_s=0.1)).encode >= 1


@pytest.mark.parametrize(
    ("slo", "told"),
    [
        (["--ttft", "0.05"], "TTFT 50 ms can't be met by any number of workers"),
        (["--tpot", "0.01"], "TPOT 10 ms can't be met by any number of workers"),
    ],
)
def test_slo_that_nothing_meets_is_said_so_with_the_nearest_fleet_and_exit_code_1(
    slo: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = ["--advise", "--rps", "2", "--duration", "60"]
    assert main([*load, *slo]) == 1
    shown = capsys.readouterr().out
    assert "no fleet meets the SLO" in shown
    assert "cheapest" not in shown
    assert "nearest: " in shown
    assert told in shown
    assert main([*load, *slo, "--json"]) == 1
    advised = json.loads(capsys.readouterr().out)
    assert advised["meets_slo"] is False
    assert advised["cheapest"] is None
    assert told in advised["limit"]


def test_pool_without_roles_is_named_where_it_is_cheaper(
    capsys: pytest.CaptureFixture[str],
) -> None:
    load = ["--advise", "--rps", "0.2", "--images", "0", "--duration", "120"]
    assert main([*load, "--tpot", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("cheapest fleet: 1 worker without roles")
