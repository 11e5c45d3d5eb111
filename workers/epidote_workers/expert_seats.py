"""This file is about where a worker's experts shall lie: what it was told, and how far that is.

A wish may come before there are weights (the worker starts, or encodes now), so it is kept and
told to the engine whenever that has experts in slots and they lie otherwise.
"""

import logging
import time
from collections.abc import Awaitable, Callable

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.worker_view import ExpertsView
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.engine_thread import EngineThread
from epidote_workers.messages import Nothing, PlaceCall

logger = logging.getLogger(__name__)

RETELL_S = 60.0  # without a slot changed: refused, given up, or replaced by another order


class ExpertSeats:
    """One worker's. `want` may be called in any thread, the others in the engine's."""

    def __init__(self, ranks: int, now: Callable[[], float] = time.monotonic) -> None:
        """`ranks` that the model is cut over."""
        self._ranks, self._now = ranks, now
        self._wanted: Placement | None = None
        self._target = ""  # its digest
        self._told: Placement | None = None
        self._begun_s = self._changed_s = 0.0  # first told; told again, or a slot changed
        self._num_told = 0  # slots that had to change when it was told first
        self._refusal = ""
        self._in_force: tuple[Placement, str] = ((), "")
        self._num_moves, self._slot_s = 0, 0.0

    @property
    def is_moving(self) -> bool:
        """Whether another look soon is worth it."""
        return self._wanted is not None and not self._refusal and self._wanted is not self._settled

    @property
    def _settled(self) -> Placement | None:
        return self._wanted if self._in_force[1] in ("", self._target) else None

    def want(self, placement: Placement) -> None:
        """Experts shall lie like this; the engine hears of it at the next look."""
        self._told, self._refusal = None, ""
        self._wanted, self._target = placement, placement_digest(placement)

    def place(self, engine: EngineLike, placement: Placement) -> None:
        """As `want`, and the engine is told at once.

        Raises:
            InvalidRequest: it can't; it will not be asked again.
        """
        self.want(placement)
        present = engine.expert_placement()
        if present is None or present == placement:
            return
        self._tell(engine, placement, present)
        if self._refusal:
            raise InvalidRequest(self._refusal, "placement")

    def service(self, engine: EngineThread) -> Callable[[PlaceCall], Awaitable[Nothing]]:
        """`place` as a call that others make of this worker."""

        async def serve(call: PlaceCall) -> Nothing:
            await engine.call(lambda engine: self.place(engine, call.placement))
            return Nothing()

        return serve

    def look(self, engine: EngineLike) -> ExpertsView | None:
        """Where they lie now, having told the engine what it does not know; None: no slots."""
        present, wanted = engine.expert_placement(), self._wanted
        if present is None:
            self._told, self._in_force = None, ((), "")  # weights will come as they came first
            return None
        if present != self._in_force[0]:
            self._in_force = present, placement_digest(present)
            self._changed_s = self._now()
        if wanted is not None:
            if present == wanted:
                self._note_done(wanted)
            elif self._told is not wanted or self._now() >= self._changed_s + RETELL_S:
                self._tell(engine, wanted, present)
        return ExpertsView(
            ranks=self._ranks,
            placement=present,
            digest=self._in_force[1],
            target=self._target,
            refusal=self._refusal,
            num_moves=self._num_moves,
            slot_s=self._slot_s,
        )

    def _tell(self, engine: EngineLike, wanted: Placement, present: Placement) -> None:
        self._changed_s = self._now()
        if self._told is not wanted:
            self._begun_s = self._changed_s
            self._num_told = sum(
                was != now
                for layers in zip(present, wanted, strict=False)
                for was, now in zip(*layers, strict=False)
            )
        self._told = wanted
        try:
            engine.place_experts(wanted)
        except InvalidRequest as error:  # of another model, or not now: shown, and tried again
            logger.warning("experts not placed", extra={"why": str(error)})
            self._refusal = str(error)
        else:
            self._refusal = ""

    def _note_done(self, wanted: Placement) -> None:
        if self._told is wanted and self._num_told:
            self._num_moves += 1
            self._slot_s = (self._now() - self._begun_s) / self._num_told
            self._num_told = 0
        self._refusal = ""
