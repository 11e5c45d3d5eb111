"""This file is about asking the API server whether a spec's objects could be, before it is stored.

    it names a field, or can't read the object   refused, by the field of the spec
    it forbids it (403), or a policy does        let in with a warning: a quota may grow, an account
                                                 or a priority class may be made until then
    it does not answer in time, or is unwell     let in with a warning

What is let in here is asked for again when it is made (`refusals`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epidote_operator.act.objects import PLURALS
from epidote_operator.act.refusals import is_invalid
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.errors import ApiRefused, Cause, KubeError
from epidote_operator.resources.field_origins import origin_of, stumbled_on
from epidote_operator.resources.fleet_values import Defaults
from epidote_operator.resources.trials import Trial, load_test_trials, service_trials
from epidote_operator.spec import load_test, multimodal_service
from epidote_operator.spec.admission import LET_IN, Ruling
from epidote_operator.spec.invalid import InvalidSpec, Problem
from epidote_operator.spec.parsing import parse_load_test, parse_service

logger = logging.getLogger(__name__)

ASKED = {"dryRun": "All", "fieldValidation": "Strict"}
# What others' webhooks say of a pod is no finding about its fields, and some know no dry run.
OTHERS = "admission webhook"


@dataclass(frozen=True, kw_only=True)
class DryRuns:
    """Asks within `deadline_s`: the API server waits for the webhook's answer meanwhile."""

    api: KubeApi
    defaults: Defaults
    deadline_s: float

    async def rule_on(
        self,
        plural: str,
        name: str,
        namespace: str,
        new: Mapping[str, Any],
        old: Mapping[str, Any] | None = None,
    ) -> Ruling:
        """What the server says of a spec that `spec.admission` lets in; `old` is the stored one.

        Objects that the stored spec makes as well are not asked about: whoever changes something
        else is not kept from it.
        """
        before = [] if old is None else self._trials(plural, name, namespace, old)
        known = [trial.manifest for trial in before]
        now = self._trials(plural, name, namespace, new)
        return await self._ask([trial for trial in now if trial.manifest not in known])

    def _trials(
        self, plural: str, name: str, namespace: str, spec: Mapping[str, Any]
    ) -> list[Trial]:
        try:
            if plural == multimodal_service.PLURAL:
                return service_trials(name, namespace, parse_service(spec), self.defaults)
            if plural == load_test.PLURAL:
                return load_test_trials(name, namespace, parse_load_test(spec), self.defaults)
        except InvalidSpec:  # a stored one, from before a stricter rule
            pass
        return []

    async def _ask(self, trials: Sequence[Trial]) -> Ruling:
        if not trials:
            return LET_IN
        tasks = [asyncio.create_task(self._try(trial)) for trial in trials]
        _, late = await asyncio.wait(tasks, timeout=self.deadline_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        problems: dict[Problem, None] = {}
        warnings: dict[str, None] = {}
        for trial, task in zip(trials, tasks, strict=True):
            if task in late:
                ruling = _unasked(trial, f"no answer within {self.deadline_s:g} s")
            else:
                ruling = task.result()
            problems |= dict.fromkeys(ruling.problems)
            warnings |= dict.fromkeys(ruling.warnings)
        return Ruling(problems=tuple(problems), warnings=tuple(warnings))

    async def _try(self, trial: Trial) -> Ruling:
        manifest = trial.manifest
        path = paths.collection(
            manifest["apiVersion"],
            PLURALS[manifest["kind"]],
            manifest["metadata"]["namespace"],
        )
        try:
            await self.api.request("POST", path, params=ASKED, body=manifest)
        except ApiRefused as refused:
            if not is_invalid(refused) or OTHERS in refused.words:
                return _unasked(trial, refused.words)
            causes = refused.causes or (Cause(field="", message=refused.words),)
            return Ruling(problems=tuple(_problem(trial, cause) for cause in causes))
        except KubeError as error:
            return _unasked(trial, str(error))
        return LET_IN


def _problem(trial: Trial, cause: Cause) -> Problem:
    field = cause.field if cause.field not in ("", "<nil>") else stumbled_on(cause.message)
    return Problem(
        path=origin_of(field, trial.manifest, trial.origin),
        wanted=f"must make a {trial.manifest['kind']} that the API server accepts",
        found=cause.message,
    )


def _unasked(trial: Trial, why: str) -> Ruling:
    kind, where = trial.manifest["kind"], trial.origin.rest
    logger.info("not known whether it can be", extra={"field": where, "why": why})
    return Ruling(warnings=(f"{where}: whether its {kind} can be made is not known now: {why}",))
