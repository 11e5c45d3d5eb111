"""This file is about driving the life cycle: drain, switch, verify, one switch at a time.

What happens to work under way when a worker drains:

    encode    queued media are encoded, and stay for the prefills that will ask for them
    prefill   running prompts are finished and lent until copied; new ones are refused
    decode    after a grace period the streams are handed back (policy `migrate`), with every token
              sent before; the gateway continues them on another worker. Or waited for (`wait`).

Refusals and hand-backs are `WorkerLost` to the gateway: it routes again, the client sees nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from epidote_core.roles import Role, Stage
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.cpu_priority import adjust_thread
from epidote_workers.encode_stage import EncodeStage
from epidote_workers.lifecycle import Action, DrainPolicy, Event, InvalidTransition, advance
from epidote_workers.messages import SwitchCall
from epidote_workers.parts import Parts
from epidote_workers.self_check import SelfCheck

logger = logging.getLogger(__name__)

POLL_S = 0.005  # looking is a set lookup


class Switching:
    """Performs the actions that `lifecycle` decides. Belongs to the loop."""

    def __init__(
        self,
        parts: Parts,
        encoder: EncodeStage,
        check: SelfCheck,
        *,
        on_change: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._parts, self._encoder, self._check = parts, encoder, check
        self._on_change, self._on_failed = on_change, on_failed
        self._tasks: set[asyncio.Task[SwitchOutcome]] = set()
        self._durations: dict[Action, float] = {}

    def crash(self, reason: str) -> None:
        """The worker is broken for good."""
        self._send(Event.CRASHED, message=reason)

    async def first_role(self) -> None:
        """The engine is loaded: verify, then routable (or failed)."""
        await self.adjust_priority()
        await self._perform(self._send(Event.LOADED))

    async def adjust_priority(self) -> None:
        """Text before pictures, where workers share a host's CPU."""
        if self._parts.computes_on_cpu:
            role = self._parts.gate.life.role
            await self._parts.engine.call(lambda _: adjust_thread(role))

    async def switch(self, call: SwitchCall) -> SwitchOutcome:
        """See `Worker.switch_role`. Goes on when the caller is cancelled."""
        task = asyncio.create_task(self._switch(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _switch(self, call: SwitchCall) -> SwitchOutcome:
        before = self._parts.gate.life
        refusal = ""
        if call.expected_epoch is not None and call.expected_epoch != before.epoch:
            refusal = f"epoch is {before.epoch}, not {call.expected_epoch}"
        elif not before.takes_work:
            refusal = f"the worker is {before.state}"
        if refusal or call.role is before.role:
            return self._outcome(before.role, call.role, refusal or "nothing to do")
        self._durations = {}
        action = self._send(Event.SWITCH, role=call.role)
        await self._perform(action, call)
        life = self._parts.gate.life
        outcome = self._outcome(before.role, call.role, life.message)
        logger.info(
            "role switched" if outcome.ok else "role switch undone",
            extra={
                "worker": self._parts.worker_id,
                "from": before.role,
                "to": call.role,
                "why": outcome.message,
            },
        )
        return outcome

    async def drain_for_ever(self, *, deadline_s: float, grace_s: float) -> None:
        """Take no more work; return when none is left or at the deadline."""
        try:
            self._send(Event.STOP)
        except InvalidTransition:  # already on its way somewhere: it is about to stop anyway
            self.crash("stopped in the middle of a switch")
        call = SwitchCall(role=self._parts.gate.life.role, deadline_s=deadline_s, grace_s=grace_s)
        await self._drain(call)

    async def _perform(self, action: Action, call: SwitchCall | None = None) -> None:
        """Do what the life cycle says until it says nothing more."""
        while action is not Action.NOTHING:
            start_s = time.monotonic()
            done = action
            match action:
                case Action.DRAIN:
                    assert call is not None
                    drained = await self._drain(call)
                    self._durations[done] = time.monotonic() - start_s
                    if drained:
                        action = self._send(Event.DRAINED)
                    else:
                        text = f"not drained within {call.deadline_s:g} s"
                        action = self._send(Event.DRAIN_EXPIRED, message=text)
                    continue
                case Action.SWITCH:
                    action = await self._set_role()
                case Action.VERIFY:
                    action = await self._verify()
            self._durations.setdefault(done, time.monotonic() - start_s)

    async def _set_role(self) -> Action:
        role = self._parts.gate.life.role
        try:
            await self._parts.engine.call(lambda engine: engine.set_role(role))
            await self.adjust_priority()
        except Exception as error:  # any failure is answered with the old role
            logger.warning("role not set", extra={"role": role, "error": repr(error)})
            return self._send(Event.SWITCH_FAILED, message=f"{type(error).__name__}: {error}")
        return self._send(Event.SWITCHED)

    async def _verify(self) -> Action:
        role = self._parts.gate.life.role
        try:
            await self._check.run(role)
        except Exception as error:  # any failure is answered with the old role
            logger.warning("self-check failed", extra={"role": role, "error": repr(error)})
            return self._send(Event.VERIFY_FAILED, message=f"{type(error).__name__}: {error}")
        return self._send(Event.VERIFIED)

    async def _drain(self, call: SwitchCall) -> bool:
        """Whether everything left before the deadline."""
        parts, start_s = self._parts, time.monotonic()
        try:
            async with asyncio.timeout(call.deadline_s):
                try:
                    async with asyncio.timeout(call.grace_s):
                        await self._idle(start_s + call.grace_s)
                except TimeoutError:
                    if call.drain is DrainPolicy.MIGRATE:
                        parts.gate.move(Stage.DECODE)
                await self._idle(start_s + call.grace_s)
                await parts.engine.until(
                    lambda engine: True if engine.is_drained() else None, call.deadline_s
                )
        except TimeoutError:
            return False
        return True

    async def _idle(self, until_s: float) -> None:
        """No work in any stage; embeddings that nobody asks for are waited for until `until_s`."""
        while True:
            await self._parts.gate.emptied()
            now_s = time.monotonic()
            if self._encoder.num_queued == 0 and (
                now_s >= until_s or not self._encoder.is_owed(now_s)
            ):
                return
            await asyncio.sleep(POLL_S)

    def _outcome(self, before: Role, wanted: Role, message: str) -> SwitchOutcome:
        life = self._parts.gate.life
        return SwitchOutcome(
            worker_id=self._parts.worker_id,
            from_role=before,
            to_role=wanted,
            ok=life.role is wanted and life.takes_work,
            epoch=life.epoch,
            drain_s=self._durations.get(Action.DRAIN, 0.0),
            switch_s=self._durations.get(Action.SWITCH, 0.0),
            verify_s=self._durations.get(Action.VERIFY, 0.0),
            message=message,
        )

    def _send(self, event: Event, *, role: Role | None = None, message: str = "") -> Action:
        gate = self._parts.gate
        was_failed = gate.life.state == "failed"
        gate.life, action = advance(gate.life, event, role=role, message=message)
        self._on_change()
        if gate.life.state == "failed" and not was_failed:
            self._on_failed(gate.life.message)
        return action
