"""This file is about roles that no fleet can fill: crossed bounds, ratios, groups, minima."""

from collections.abc import Iterator

from epidote_operator.spec.invalid import Problem, names, repeated, shown
from epidote_operator.spec.model_source import ServedModality
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.role_bounds import RoleName
from epidote_operator.spec.splits import Range, largest_split, smallest_split


def role_problems(spec: MultimodalServiceSpec) -> list[Problem]:
    """What is wrong with roles, ratios and groups; the splits only if nothing else is."""
    found = [*_roles(spec), *_ratios(spec), *_groups(spec)]
    return found or list(_splits(spec))


def _roles(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    text_only = not _needs_encode(spec.model.modalities)
    for number, item in enumerate(spec.roles):
        path = f"spec.roles[{number}]"
        if item.min_workers > item.max_workers:
            yield Problem(
                path=f"{path}.minWorkers",
                wanted=f"must be at most maxWorkers ({item.max_workers})",
                found=shown(item.min_workers),
            )
        if item.max_workers < 1:
            yield Problem(
                path=f"{path}.maxWorkers",
                wanted="must be at least 1: the model needs every role",
                found=shown(item.max_workers),
            )
        if item.name is RoleName.ENCODE and text_only:
            yield Problem(
                path=f"{path}.name",
                wanted="must be Prefill or Decode where the model takes text alone",
                found=shown(item.name.value),
            )
    yield from repeated("spec.roles", [item.name for item in spec.roles], ".name")


def _ratios(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    for number, item in enumerate(spec.ratios):
        path = f"spec.ratios[{number}]"
        if item.numerator is item.denominator:
            yield Problem(
                path=f"{path}.denominator",
                wanted="must be another role than numerator",
                found=shown(item.denominator.value),
            )
        if item.min_percent > item.max_percent:
            yield Problem(
                path=f"{path}.minPercent",
                wanted=f"must be at most maxPercent ({item.max_percent})",
                found=shown(item.min_percent),
            )
    pairs = [f"{item.numerator.value}/{item.denominator.value}" for item in spec.ratios]
    yield from repeated("spec.ratios", pairs)


def _groups(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    if not spec.groups:
        return
    served, placed = spec.model.modalities, set[ServedModality]()
    for number, group in enumerate(spec.groups):
        for place, modality in enumerate(group.modalities):
            path = f"spec.groups[{number}].modalities[{place}]"
            if modality not in served:
                yield Problem(
                    path=path,
                    wanted=f"must be one of model.modalities ({names(served)})",
                    found=shown(modality.value),
                )
            elif modality in placed:
                yield Problem(
                    path=path,
                    wanted="must belong to one group only",
                    found=shown(modality.value),
                )
            placed.add(modality)
    if left := [modality for modality in served if modality not in placed]:
        yield Problem(
            path="spec.groups",
            wanted=f"must hold every modality of the model ({names(served)})",
            found=f"none with {names(left)}",
        )
    yield from repeated("spec.groups", [group.name for group in spec.groups], ".name")


def _splits(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    pool = spec.pool
    try:
        total = splits_range(spec)
    except _NoSplit as none:
        yield Problem(
            path="spec.ratios",
            wanted=f"must permit a split within the roles' bounds ({none})",
            found="none that keeps every ratio",
        )
        return
    if pool.most < total.least:
        budget_binds = pool.most < pool.max_workers
        yield Problem(
            path="spec.pool.gpuBudget" if budget_binds else "spec.pool.maxWorkers",
            wanted=f"must be at least {total.least * (pool.gpus if budget_binds else 1)}, the least"
            " that the roles' bounds and ratios need",
            found=shown(pool.gpu_budget if budget_binds else pool.max_workers),
        )
    if total.most < pool.min_workers:
        yield Problem(
            path="spec.roles",
            wanted=f"must permit {pool.min_workers} workers, the least of the pool, under bounds"
            " and ratios",
            found=f"at most {total.most}",
        )


class _NoSplit(ValueError):
    """Bounds and ratios leave none."""


def splits_range(spec: MultimodalServiceSpec) -> Range:
    """Least and most workers that roles and ratios permit, all groups together.

    Bounds are of each group; the groups share the pool.

    Raises:
        ValueError: they permit none; the message has the bounds.
    """
    least = most = 0
    for modalities in [group.modalities for group in spec.groups] or [spec.model.modalities]:
        ranges = _ranges(spec, modalities)
        smallest, largest = smallest_split(ranges, spec.ratios), largest_split(ranges, spec.ratios)
        if smallest is None or largest is None:
            raise _NoSplit(
                ", ".join(
                    f"{role.value} {item.least} to {item.most}" for role, item in ranges.items()
                )
            )
        least += sum(smallest.values())
        most += sum(largest.values())
    return Range(least=least, most=most)


def _ranges(
    spec: MultimodalServiceSpec, modalities: tuple[ServedModality, ...]
) -> dict[RoleName, Range]:
    top = spec.pool.max_workers
    given = {
        item.name: Range(
            least=max(1, item.min_workers),
            most=max(1, item.min_workers, min(item.max_workers, top)),
        )
        for item in spec.roles
    }
    unlisted = Range(least=1, most=max(1, top))
    return {
        role: given.get(role, unlisted)
        for role in RoleName
        if role is not RoleName.ENCODE or _needs_encode(modalities)
    }


def _needs_encode(modalities: tuple[ServedModality, ...]) -> bool:
    return any(modality is not ServedModality.TEXT for modality in modalities)
