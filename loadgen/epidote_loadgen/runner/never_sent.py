"""This file is about the result of a run that never began, as nobody answered at its target."""

import time

from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import RunResult, SelfWatch

_NOTHING = SelfWatch(
    num_processes=0,
    cpu_s=0.0,
    cpu_utilization=0.0,
    loop_lag_p99_s=0.0,
    loop_lag_max_s=0.0,
    lateness_p50_s=0.0,
    lateness_p99_s=0.0,
    lateness_max_s=0.0,
    max_in_flight=0,
    num_connections=0,
    num_socket_errors=0,
    prepare_waits=0,
)


def never_sent(plan: RunPlan) -> RunResult:
    """Without records; the verdict says why."""
    return RunResult(
        config_digest=plan.config_digest,
        config=plan.config,
        seed=plan.seed,
        started_at_unix_s=time.time(),
        duration_s=0.0,
        records=(),
        self_watch=_NOTHING,
    )
