"""What was copied from a loan that had ended is used by nobody: it may be somebody else's by then.

A decoder that stands still longer than its peer waits (a paused container, a stopped process) goes
on copying where it was, from memory that is still mapped.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epidote_core.errors import WorkerLost
from epidote_core.generation import Route
from epidote_core.roles import Role
from epidote_workers.fake_fleet import ask_for, fleet_of, picture, pretend
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import InProcessFleet, Lost, until
from epidote_workers.transfer.layout import KV_POOL, MEDIA_POOL
from epidote_workers.transfer.shared_memory import MappedPool

SPLIT = Route(prefill="p", decode="d")


def lease(fleet: InProcessFleet, lender: str, lease_s: float) -> None:
    parts = fleet.workers[lender]._running
    parts.settings = replace(parts.settings, lease_s=lease_s)


def copy_late(
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
    lender: FakeEngine,
    is_back: Callable[[], bool],
) -> None:
    """Copies from `pool` wait until the lender has its loan back and has used it otherwise."""
    read = MappedPool.read

    async def late(self: MappedPool, *args: Any) -> int:
        if self._layout.name == pool:
            await until(is_back)
            units = lender.kv_pool if pool == KV_POOL else lender.media_pool
            units.tensor.fill_(1e4)
        return await read(self, *args)

    monkeypatch.setattr(MappedPool, "read", late)


async def test_kv_copied_after_its_loan_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet_of(tmp_path, p=Role.PREFILL, d=Role.DECODE) as fleet:
        lender = pretend(fleet, "p")
        lease(fleet, "p", 0.0)
        with monkeypatch.context() as patch:
            copy_late(patch, KV_POOL, lender, lambda: not lender._work)
            with pytest.raises(WorkerLost, match="lent too long") as lost:
                _ = [chunks async for chunks in fleet.client.generate(ask_for("r"), SPLIT)]
        assert lost.value.worker_id == "p"
        assert not lost.value.is_death
        assert not pretend(fleet, "d")._blocks._by_name, "no later request finds it"


async def test_an_embedding_copied_after_its_loan_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet_of(tmp_path, e=Role.ENCODE, p=Role.PREFILL, d=Role.DECODE) as fleet:
        lender, pixels = pretend(fleet, "e"), picture("x", 5)
        lease(fleet, "e", 0.0)
        copy_late(monkeypatch, MEDIA_POOL, lender, lambda: not lender._media.holds())
        route = replace(SPLIT, encode=(("x", "e"),))
        with pytest.raises(Lost) as lost:
            await fleet.ask(ask_for("r", pictures=[pixels]), route, [pixels])
        assert lost.value.worker_id == "e"
        assert not pretend(fleet, "p")._media.is_ready("x")
