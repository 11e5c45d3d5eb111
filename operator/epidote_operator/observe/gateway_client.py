"""This file is about the calls of a gateway that the control loop makes.

The gateway is where the fleet is known: workers with roles, states and epochs, and metrics of
what clients saw. Its administration is documented in docs/gateway.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from epidote_core.errors import EpidoteError
from epidote_core.expert_placement import Placement
from epidote_core.roles import Role, WorkerState
from epidote_operator.observe.exposition import Scrape, parse_scrape

TIMEOUT_S = 5.0  # a gateway that is well answers in milliseconds
SWITCH_MARGIN_S = 15.0  # beyond the drain's deadline: rollback, verification, the call itself


class GatewayUnreachable(EpidoteError):
    """No answer in time: nothing is known of what happened to the call."""


class GatewayRefused(EpidoteError):
    """The gateway answered with an error. `code` is the API's, or ""."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """One worker as the gateway sees it."""

    worker_id: str
    role: Role
    state: WorkerState
    epoch: int
    node_id: str = ""
    num_waiting: int = 0
    num_running: int = 0
    num_encoding: int = 0
    queued_prefill_tokens: int = 0
    num_kv_blocks: int = 0
    num_free_kv_blocks: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class FleetReport:
    """All workers at one moment of the caller's clock."""

    at_s: float
    workers: tuple[WorkerReport, ...] = ()
    num_experts: int = 0  # in each layer that has some
    wanted_workers: int | None = None  # by the register; None: it does not say

    def worker(self, worker_id: str) -> WorkerReport | None:
        return next((w for w in self.workers if w.worker_id == worker_id), None)


@dataclass(frozen=True, kw_only=True)
class WorkerExperts:
    """One worker that holds whole experts. Placements are named by their digests."""

    worker_id: str
    ranks: int
    placement: str  # in force
    target: str  # that it was told; "": none
    is_moving: bool
    refusal: str = ""
    slot_s: float = 0.0  # seconds that each slot of its last move took; 0: none yet


@dataclass(frozen=True, kw_only=True)
class FleetExperts:
    """What experts have computed so far, [layer][expert], and where they lie."""

    tokens: tuple[tuple[int, ...], ...]
    workers: tuple[WorkerExperts, ...] = ()  # empty where ranks share every expert
    placements: Mapping[str, Placement] = field(default_factory=dict)

    def placed(self) -> dict[str, tuple[Placement, int]]:
        """Placements in force, with the number of ranks, by digest."""
        return {
            worker.placement: (self.placements[worker.placement], worker.ranks)
            for worker in self.workers
            if worker.placement in self.placements
        }


@dataclass(frozen=True, kw_only=True)
class SwitchAnswer:
    """How a switch ended; `ok` False: rolled back, or refused before anything was tried."""

    ok: bool
    was_tried: bool
    epoch: int
    message: str


class GatewayClient:
    """One gateway process at `url`; `admin_key` opens its administration."""

    def __init__(self, url: str, admin_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=TIMEOUT_S,
            trust_env=False,
            headers={"Authorization": f"Bearer {admin_key}"} if admin_key else {},
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def fleet(self, now_s: float) -> FleetReport:
        """Every worker in every state."""
        body = await self._call("GET", "/admin/fleet")
        return FleetReport(
            at_s=now_s,
            workers=tuple(_worker(item) for item in body["workers"]),
            num_experts=body.get("num_experts", 0),  # older gateways don't say
            wanted_workers=body.get("wanted_workers"),
        )

    async def experts(self) -> FleetExperts:
        """Tokens that each expert of each layer has computed so far, and where experts lie."""
        body = await self._call("GET", "/admin/experts")
        return FleetExperts(
            tokens=_table(body["tokens"]),
            workers=tuple(_worker_experts(item) for item in body.get("workers", ())),
            placements={
                digest: _table(placement)
                for digest, placement in body.get("placements", {}).items()
            },
        )

    async def place_experts(self, placement: Placement) -> None:
        """Have every worker take this placement; returns when they are told.

        Raises:
            GatewayRefused: no experts (404), they can't be moved (409), or not like this (400).
        """
        await self._call("PUT", "/admin/experts", {"placement": placement})

    async def scrape(self, now_s: float) -> Scrape:
        """Its metrics now."""
        return parse_scrape((await self._send("GET", "/metrics")).text, now_s)

    async def is_ready(self) -> bool:
        """Whether every stage has a routable worker."""
        try:
            return (await self._send("GET", "/readyz")).is_success
        except (GatewayUnreachable, GatewayRefused):
            return False

    async def switch_role(
        self, worker_id: str, role: Role, *, deadline_s: float, epoch: int | None = None
    ) -> SwitchAnswer:
        """Drain, switch and verify one worker; returns when that has ended, either way.

        `epoch`: only if it is still the worker's.

        Raises:
            GatewayRefused: no such worker (404), it was lost meanwhile, or its epoch is another
                one (409).
            GatewayUnreachable: the switch may go on without us.
        """
        answer = await self._send(
            "PUT",
            f"/admin/workers/{quote(worker_id, safe='')}/role",
            body={"role": role.value, "deadline_s": deadline_s}
            | ({} if epoch is None else {"epoch": epoch}),
            timeout_s=deadline_s * 2 + SWITCH_MARGIN_S,
            allowed=(409,),
        )
        body = answer.json()
        if "outcomes" not in body:
            raise _refusal(answer)
        outcome = body["outcomes"][0]
        return SwitchAnswer(
            ok=outcome["ok"],
            was_tried=outcome["drain_s"] > 0.0,
            epoch=outcome["epoch"],
            message=outcome["message"],
        )

    async def set_num_workers(self, num_workers: int) -> None:
        """Ask for this many workers; returns when asked."""
        await self._call("POST", "/admin/scale", {"num_workers": num_workers})

    async def set_roles(self, counts: Mapping[Role, int]) -> None:
        """What the fleet shall count by role: newcomers take the roles that are missing."""
        body = {role.value: count for role, count in counts.items()}
        await self._send("PUT", "/admin/roles", body=body, timeout_s=150.0, allowed=(409,))

    async def put(self, path: str, body: Mapping[str, Any]) -> None:
        """Any other administrative setting."""
        await self._call("PUT", path, body)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Any other administrative request."""
        return await self._call("POST", path, body)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        answer = await self._send(method, path, body=body)
        return dict(answer.json()) if answer.content else {}

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = TIMEOUT_S,
        allowed: tuple[int, ...] = (),
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise GatewayUnreachable(f"{method} {self.url}{path}: {error!r}") from error
        if answer.is_success or answer.status_code in allowed:
            return answer
        raise _refusal(answer)


def _refusal(answer: httpx.Response) -> GatewayRefused:
    try:
        told = answer.json()["error"]
        code, message = str(told.get("code") or ""), str(told["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", answer.text[:300]
    request = answer.request
    return GatewayRefused(
        f"{request.method} {request.url}: {answer.status_code} {message}",
        status=answer.status_code,
        code=code,
    )


def _table(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, rows))


def _worker_experts(item: Mapping[str, Any]) -> WorkerExperts:
    return WorkerExperts(
        worker_id=item["worker_id"],
        ranks=item["ranks"],
        placement=item["placement"],
        target=item["target"],
        is_moving=item["is_moving"],
        refusal=item["refusal"],
        slot_s=item["slot_s"],
    )


def _worker(item: Mapping[str, Any]) -> WorkerReport:
    load = item["load"]
    return WorkerReport(
        worker_id=item["worker_id"],
        role=Role(item["role"]),
        state=WorkerState(item["state"]),
        epoch=item["epoch"],
        node_id=item.get("node_id", ""),
        num_waiting=load["num_waiting"],
        num_running=load["num_running"],
        num_encoding=load["num_encoding"],
        queued_prefill_tokens=load["queued_prefill_tokens"],
        num_kv_blocks=load["num_kv_blocks"],
        num_free_kv_blocks=load["num_free_kv_blocks"],
        prefix_hit_tokens=load["prefix_hit_tokens"],
        prefix_query_tokens=load["prefix_query_tokens"],
    )
