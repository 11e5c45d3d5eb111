"""Settings that every test shares: no network, one thread a process, reproducible failures."""

import os
import random
import sys
from collections.abc import Generator
from zlib import crc32

import pytest

# Two cores: OpenMP teams of several processes would fight each other for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "epidote", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("epidote")

# Inputs are fresh in every run; a test that fails says how to have the same ones again. Processes
# that a test starts with pytest draw by the same seed.
SEED = os.environ.setdefault("EPIDOTE_TEST_SEED", str(random.SystemRandom().randrange(2**32)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    seed = crc32(f"{SEED} {item.nodeid}".encode())
    random.seed(seed)
    if torch := sys.modules.get("torch"):  # whoever draws from it has imported it
        torch.manual_seed(seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("random inputs", f"the same again: EPIDOTE_TEST_SEED={SEED}"))
    return report
