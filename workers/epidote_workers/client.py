"""This file is about the fleet as a gateway sees it: live views of workers, and calls to them.

Which workers exist is told from outside (`update_members`); how they are comes from their status
streams. A broken connection is known at once, a silent worker after `SILENT_AFTER_S`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from random import Random

from epidote_core.errors import EpidoteError, InvalidRequest, WorkerLost
from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.generation import GenerateRequest, MediaPixels, Route, TokenChunk
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.assignment import check_counts, fewest_switches, safe_batches
from epidote_workers.lifecycle import DrainPolicy
from epidote_workers.member import Member
from epidote_workers.messages import (
    CONSERVATION,
    ENCODE,
    GENERATE,
    PLACE_EXPERTS,
    SWITCH_ROLE,
    EncodeCall,
    GenerateCall,
    Nothing,
    PlaceCall,
    SwitchCall,
)
from epidote_workers.peer_errors import PEER_ERRORS, lost
from epidote_workers.rpc.secret import secret_from

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
ENCODE_TIMEOUT_S = 30.0  # the pixels of a long video take a while to send
SWITCH_DEADLINE_S = 30.0


class FleetClient:
    """Implements the gateway's `Backend`. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        on_lost: Callable[[str], None] = lambda worker_id: None,
        scale: Callable[[int], Awaitable[None]] | None = None,
        rng: Random | None = None,
    ) -> None:
        """`on_lost` hears of workers whose connection broke; `scale` serves `set_num_workers`.

        `rng` spreads reconnections.
        """
        self._members: dict[str, Member] = {}
        self._on_lost, self._scale = on_lost, scale
        self._rng = rng or Random()
        self._secret = secret_from()

    async def start(self) -> None:
        """Nothing to wait for: members connect when they are told of."""

    async def stop(self) -> None:
        """Close every connection: what was under way is cancelled on the workers."""
        members, self._members = list(self._members.values()), {}
        for member in members:
            member.close()
        await asyncio.gather(*(member.closed() for member in members))

    def update_members(self, members: Iterable[WorkerView | tuple[str, str]]) -> None:
        """The workers that exist now, as views or (worker_id, address); others are forgotten.

        A view's role and state hold until the worker itself tells; address "" waits for a later
        update.
        """
        wanted: dict[str, WorkerView | tuple[str, str]] = {}
        for member in members:
            wanted[member.worker_id if isinstance(member, WorkerView) else member[0]] = member
        for worker_id in list(self._members):
            if worker_id not in wanted:
                self._members.pop(worker_id).close()
        for worker_id, told in wanted.items():
            address = told.address if isinstance(told, WorkerView) else told[1]
            known = self._members.get(worker_id)
            if known is not None and known.address != address and address:
                known.close()
                known = None
            if known is None:
                known = self._members[worker_id] = Member(
                    worker_id,
                    address,
                    on_lost=self._on_lost,
                    rng=self._rng,
                    secret=self._secret,
                )
            if isinstance(told, WorkerView):
                known.hear(told)

    @property
    def block_size(self) -> int:
        """Tokens in a KV block; 16 until a worker has told."""
        return next((m.block_size for m in self._members.values() if m.block_size), 16)

    @property
    def wanted_workers(self) -> None:
        """Whoever starts workers decides that."""

    def workers(self) -> Sequence[WorkerView]:
        """Every member in every state, from memory."""
        return [member.view for member in self._members.values()]

    # Requests

    async def generate(
        self, request: GenerateRequest, route: Route
    ) -> AsyncGenerator[list[TokenChunk], None]:
        """See `Backend.generate`."""
        member = self._member(route.decode)
        used = {route.prefill, route.decode, *(worker_id for _, worker_id in route.encode)}
        addresses = {worker_id: self._member(worker_id).address for worker_id in used}
        call = GenerateCall(request=request, route=route, addresses=addresses)
        try:
            stream = member.connection.stream(GENERATE, call)
            try:
                while items := await stream.take():
                    yield items[0] if len(items) == 1 else [c for item in items for c in item]
            finally:
                stream.close()
        except PEER_ERRORS as error:
            raise lost(route.decode, error, had_work=not member.is_leaving) from error

    async def encode(self, worker_id: str, pixels: MediaPixels, *, request_id: str) -> None:
        """See `Backend.encode`. Pixels that the worker has queued or cached travel again: small
        beside what asking first would cost in time."""
        call = EncodeCall(pixels=pixels, request_id=request_id)
        try:
            connection = self._member(worker_id).connection
            await connection.call(ENCODE, call, timeout_s=ENCODE_TIMEOUT_S)
        except PEER_ERRORS as error:
            raise lost(worker_id, error) from error

    # Administration

    async def switch_role(
        self,
        worker_id: str,
        role: Role,
        *,
        deadline_s: float,
        drain: DrainPolicy = DrainPolicy.MIGRATE,
        expected_epoch: int | None = None,
    ) -> SwitchOutcome:
        """See `Backend.switch_role`. `WorkerLost` if the worker dies over it."""
        if worker_id not in self._members:
            raise InvalidRequest(f"worker_id: no worker {worker_id!r}", "worker_id")
        call = SwitchCall(
            role=role, deadline_s=deadline_s, drain=drain, expected_epoch=expected_epoch
        )
        member = self._member(worker_id)
        limit_s = 2 * deadline_s + 60.0  # the drain has the deadline; loading has its own
        try:
            outcome = await member.connection.call(SWITCH_ROLE, call, timeout_s=limit_s)
        except PEER_ERRORS as error:
            raise lost(worker_id, error) from error
        member.note_role(outcome)
        return outcome

    async def set_roles(self, roles: Mapping[Role, int]) -> Sequence[SwitchOutcome]:
        """See `Backend.set_roles`; stops after a batch in which a switch failed."""
        views = self.workers()
        check_counts(roles, len(views))
        outcomes: list[SwitchOutcome] = []
        for batch in safe_batches(views, fewest_switches(views, roles)):
            done = await asyncio.gather(
                *(
                    self.switch_role(switch.worker_id, switch.to_role, deadline_s=SWITCH_DEADLINE_S)
                    for switch in batch
                )
            )
            outcomes.extend(done)
            if not all(outcome.ok for outcome in done):
                break
        return outcomes

    async def set_num_workers(self, num_workers: int) -> None:
        """Ask whoever starts workers.

        Raises:
            InvalidRequest: nobody here can.
        """
        if self._scale is None:
            raise InvalidRequest("this fleet has a fixed number of workers", "num_workers")
        await self._scale(num_workers)

    async def place_experts(self, placement: Placement) -> None:
        """See `Backend.place_experts`. One that can't be reached is left to a later order."""

        target = placement_digest(placement)

        async def tell(member: Member) -> None:
            try:
                await member.connection.call(
                    PLACE_EXPERTS, PlaceCall(placement=placement), timeout_s=CALL_TIMEOUT_S
                )
            except (*PEER_ERRORS, WorkerLost) as error:
                logger.warning(
                    "not told of experts", extra={"worker": member.worker_id, "error": repr(error)}
                )
            else:
                member.note_target(target)

        living = [m for m in self._members.values() if m.view.state is not WorkerState.FAILED]
        await asyncio.gather(*(tell(member) for member in living))

    async def conservation(self) -> Mapping[str, Sequence[str] | None]:
        """What each living worker's bookkeeping finds wrong; None: it did not answer."""
        found: dict[str, Sequence[str] | None] = {}

        async def ask(member: Member) -> None:
            try:
                answer = await member.connection.call(
                    CONSERVATION, Nothing(), timeout_s=CALL_TIMEOUT_S
                )
            except (EpidoteError, TimeoutError) as error:
                found[member.worker_id] = None
                logger.warning(
                    "no conservation", extra={"worker": member.worker_id, "error": repr(error)}
                )
            else:
                found[member.worker_id] = answer.errors

        living = [m for m in self._members.values() if m.view.state is not WorkerState.FAILED]
        await asyncio.gather(*(ask(member) for member in living))
        return found

    def _member(self, worker_id: str) -> Member:
        member = self._members.get(worker_id)
        if member is None:
            raise WorkerLost(f"no worker {worker_id!r} any more", worker_id=worker_id)
        return member
