"""This file is about who does what: pure decisions on roles, counted per role.

`stages` are those that the model has: all three, or `TEXT_STAGES`.

Words: *counts* are how many workers of each role are wanted; a *switch* gives one live worker
another role; a stage is *covered* when some live worker's role serves it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.worker_view import WorkerView

ORDER = (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL)
GONE = (WorkerState.FAILED,)
Stages = Sequence[Stage]
EVERY_STAGE: Stages = tuple(Stage)
TEXT_STAGES: Stages = (Stage.PREFILL, Stage.DECODE)  # of a model without vision


@dataclass(frozen=True, kw_only=True)
class Switch:
    worker_id: str
    from_role: Role
    to_role: Role


def parse_counts(text: str) -> dict[Role, int]:
    """Counts from `encode=1,prefill=1,decode=2`; roles not named have no worker.

    >>> parse_counts("encode=1,prefill=1,decode=2")[Role.DECODE]
    2

    Raises:
        InvalidRequest: an unknown role, one named twice, or a count that is no number >= 0.
    """
    counts: dict[Role, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, number = part.partition("=")
        if name.strip() not in [role.value for role in Role]:
            raise InvalidRequest(
                f"roles: {name.strip()!r} is no role, use {', '.join(ORDER)}", "roles"
            )
        role = Role(name.strip())
        if role in counts or not number.strip().isdigit():
            raise InvalidRequest(f"roles: wanted {role}=NUMBER once, got {part!r}", "roles")
        counts[role] = int(number)
    return counts


def format_counts(counts: Mapping[Role, int]) -> str:
    """The text that `parse_counts` reads, in the order of the stages."""
    return ",".join(f"{role}={counts[role]}" for role in ORDER if counts.get(role))


def check_counts(
    counts: Mapping[Role, int], num_workers: int, stages: Stages = EVERY_STAGE
) -> None:
    """Refuse counts that can't serve every stage or don't add up.

    Raises:
        InvalidRequest: says what was wanted, what was found.
    """
    total = sum(counts.values())
    if total != num_workers:
        raise InvalidRequest(
            f"roles: {format_counts(counts) or 'nothing'} adds up to {total} workers, "
            f"but there are {num_workers}",
            "roles",
        )
    missing = [stage for stage in stages if not any(counts.get(r) for r in Role if r.serves(stage))]
    if missing:
        raise InvalidRequest(
            f"roles: nobody would serve {' and '.join(missing)} in {format_counts(counts)}; "
            "every stage needs a worker (`all` serves each)",
            "roles",
        )


def resize(shape: Mapping[Role, int], num_workers: int) -> dict[Role, int]:
    """`shape` in proportion for another number of workers, at least one for each of its roles.

    Too few workers for that: every one serves all stages.

    >>> format_counts(resize({Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 2}, 6))
    'encode=1,prefill=2,decode=3'
    """
    roles = [role for role in ORDER if shape.get(role)]
    if num_workers < len(roles):
        return {Role.ALL: num_workers}
    total = sum(shape.values())
    share = {role: shape[role] * num_workers / total for role in roles}
    counts = {role: max(1, int(share[role])) for role in roles}
    while (difference := num_workers - sum(counts.values())) != 0:
        if difference > 0:  # ties: the later stage, which holds requests longest
            role = max(reversed(roles), key=lambda r: share[r] - counts[r])
        else:
            role = max((r for r in roles if counts[r] > 1), key=lambda r: counts[r] - share[r])
        counts[role] += 1 if difference > 0 else -1
    return counts


def _live(workers: Iterable[WorkerView]) -> list[WorkerView]:
    return [worker for worker in workers if worker.state not in GONE]


def _uncovered(roles: Iterable[Role], stages: Stages) -> list[Stage]:
    held = set(roles)
    return [stage for stage in stages if not any(role.serves(stage) for role in held)]


def role_for_newcomer(
    workers: Iterable[WorkerView],
    counts: Mapping[Role, int],
    stages: Stages = EVERY_STAGE,
    *,
    prefers: Role = Role.ALL,
) -> Role:
    """The role that is most missing: first of a stage nobody serves, then the largest gap.

    One that `prefers` a certain role gets it where it is missing at all.
    More workers than counted: the role that `resize` would give the next one.
    """
    held = Counter(worker.role for worker in _live(workers))
    gaps = {role: counts.get(role, 0) - held[role] for role in ORDER}
    if prefers is not Role.ALL and gaps[prefers] > 0:
        return prefers
    if max(gaps.values()) <= 0:
        grown = resize(counts or {Role.ALL: 1}, sum(held.values()) + 1)
        gaps = {role: grown.get(role, 0) - held[role] for role in ORDER}
    uncovered = _uncovered(held.elements(), stages)
    return max(
        ORDER,
        key=lambda role: (
            gaps[role] > 0 and any(role.serves(stage) for stage in uncovered),
            gaps[role],
            -ORDER.index(role),
        ),
    )


def fewest_switches(
    workers: Sequence[WorkerView], counts: Mapping[Role, int]
) -> tuple[Switch, ...]:
    """As few switches as possible from the live workers' roles to `counts`.

    Surplus workers move, least loaded first; a pair that keeps its weights (prefill and decode)
    is preferred over one that must load others.
    """
    held = Counter(worker.role for worker in _live(workers))
    missing = {role: counts.get(role, 0) - held[role] for role in ORDER}
    spare = {role: held[role] - counts.get(role, 0) for role in ORDER}
    movable = sorted(_live(workers), key=_cost_of_moving)
    switches: list[Switch] = []
    for keep_weights in (True, False):
        for worker in list(movable):
            targets = [
                role
                for role in ORDER
                if missing[role] > 0 and (not keep_weights or _shares_weights(worker.role, role))
            ]
            if spare[worker.role] <= 0 or not targets:
                continue
            target = max(targets, key=lambda role: missing[role])
            spare[worker.role] -= 1
            missing[target] -= 1
            movable.remove(worker)
            switches.append(
                Switch(worker_id=worker.worker_id, from_role=worker.role, to_role=target)
            )
    return tuple(switches)


def _cost_of_moving(worker: WorkerView) -> tuple[bool, int, str]:
    load = worker.load
    busy = load.num_running + load.num_waiting + load.num_encoding
    return (worker.state is not WorkerState.ROUTABLE, busy, worker.worker_id)


def _shares_weights(before: Role, after: Role) -> bool:
    return before.needs_language_weights and after.needs_language_weights


def cover(
    workers: Sequence[WorkerView], counts: Mapping[Role, int], stages: Stages = EVERY_STAGE
) -> tuple[Switch, ...]:
    """Switches that give every stage somebody after a loss, until replacements come.

    Takes from the role with most to spare; where no role can spare a worker, one serves all.
    """
    live = _live(workers)
    if not live:
        return ()
    held = Counter(worker.role for worker in live)
    wanted = Counter(held)
    for stage in _uncovered(held.elements(), stages):
        if not _uncovered(wanted.elements(), stages):
            break
        donor = max(
            ORDER,
            key=lambda role: (
                wanted[role],
                role.needs_language_weights,  # to load an encoder is the smaller load
                wanted[role] - counts.get(role, 0),
            ),
        )
        wanted[donor] -= 1
        wanted[Role(stage.value) if wanted[donor] >= 1 else Role.ALL] += 1
    return fewest_switches(live, wanted)


def plan(
    workers: Sequence[WorkerView],
    counts: Mapping[Role, int],
    stages: Stages = EVERY_STAGE,
    *,
    heals: bool,
) -> tuple[Switch, ...]:
    """The switches to make now: towards `counts`, unless too few workers are there for that.

    `heals`: bare stages are covered meanwhile. False while a fleet comes up and somebody for every
    stage is still on the way.
    """
    switches = fewest_switches(workers, counts)
    roles = {worker.worker_id: worker.role for worker in _live(workers)}
    roles |= {switch.worker_id: switch.to_role for switch in switches}
    if _uncovered(roles.values(), stages):
        return cover(workers, counts, stages) if heals else ()
    return switches


def safe_batches(
    workers: Sequence[WorkerView], switches: Sequence[Switch], stages: Stages = EVERY_STAGE
) -> tuple[tuple[Switch, ...], ...]:
    """Groups of switches to run one after the other, each group at once.

    While a group switches, its workers serve nothing, yet every stage that had a routable worker
    keeps one. Where no order can do that (two workers that swap roles), one goes alone.
    """
    roles = {w.worker_id: w.role for w in workers if w.state is WorkerState.ROUTABLE}
    left = list(switches)
    batches: list[tuple[Switch, ...]] = []
    while left:
        uncovered = _uncovered(roles.values(), stages)
        staying, batch = dict(roles), []
        for switch in left:
            without = {i: role for i, role in staying.items() if i != switch.worker_id}
            if _uncovered(without.values(), stages) == uncovered:
                staying = without
                batch.append(switch)
        batch = batch or [left[0]]
        left = [switch for switch in left if switch not in batch]
        roles |= {switch.worker_id: switch.to_role for switch in batch}
        batches.append(tuple(batch))
    return tuple(batches)
