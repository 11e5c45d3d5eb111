"""This file is about requests that end with an error, alone, while the engine goes on."""

from abc import abstractmethod

from epidote_engine.broken_steps import BrokenSteps
from epidote_engine.engine_reports import EngineReports
from epidote_engine.events import Fault, RequestFailed
from epidote_engine.launched import Launched
from epidote_engine.plan import Plan
from epidote_engine.sampler import NO_TOKEN, Sampled
from epidote_engine.sequence import Phase, Sequence

NOTHING_TO_CHOOSE = (
    "no token can be chosen: the model's logits are not finite, or the sampling parameters rule "
    "out every token"
)


class EngineFaults(EngineReports):
    """The part of `Engine` that gives requests up; `Engine` makes what it works with."""

    _broken: BrokenSteps
    _flying: Launched | None
    _plan: Plan | None  # of the step that is being carried out

    @abstractmethod
    def _language_step(self) -> bool:
        """Whether there was anything to do."""

    @abstractmethod
    def _drop(self, seq: Sequence) -> None:
        """Free everything that belongs to one sequence."""

    def _guarded_step(self) -> bool:
        """`_language_step`; one that breaks ends its requests, see `broken_steps`."""
        flying, self._plan = self._flying, None
        try:
            did = self._language_step()
        except Exception as error:  # not swallowed: its requests are told, or it is raised again
            plans = [] if flying is None else [flying.plan]
            plans += [] if self._plan is None else [self._plan]
            self._flying = None
            self._broken.contain(error, plans, self._end_broken, self.conservation_errors)
            return True
        if did:
            self._broken.worked()
        return did

    def _end_broken(self, request_ids: set[str]) -> None:
        fault = Fault.STEP if len(request_ids) > 1 else Fault.COMPUTE
        for request_id in sorted(request_ids):
            self._fail(request_id, "the engine could not compute this request's step", fault)

    def _fail_tokenless(self, sampling: list[Sequence], sampled: Sampled) -> None:
        """End the requests for which a step found no token.

        Before its blocks get names: nobody shall find the KV of such logits.
        """
        for row in (sampled.token_ids == NO_TOKEN).nonzero()[0].tolist():
            if sampling[row].phase is not Phase.FINISHED:
                self._fail(sampling[row].request_id, NOTHING_TO_CHOOSE, Fault.COMPUTE)

    def _fail(self, request_id: str, message: str, fault: Fault) -> None:
        """End a request with an error; one that has ended already is not told again."""
        if request_id not in self._requests:
            return
        for seq in self._requests.close(request_id):
            self._drop(seq)
        self._outbox.append(RequestFailed(request_id=request_id, message=message, fault=fault))
        self._may_progress = True
