"""Settings that every test shares: no network, one thread a process, reproducible failures."""

import os

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
