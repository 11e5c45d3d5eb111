"""This file is about KV in one-byte codes: two workers must mean the same numbers by them.

Every worker measures what its codes count for, on the same sample, so that scales differ by the
rounding of device and number type. A difference that no code shows is let pass; a larger one is
refused, since all that was copied would be wrong by it.
"""

from typing import TYPE_CHECKING

from epidote_workers.messages import POOLS, Nothing
from epidote_workers.transfer.layout import LayoutMismatch, PoolLayout

if TYPE_CHECKING:
    from epidote_workers.parts import Parts
    from epidote_workers.peers import PeerWorker

KvScales = tuple[tuple[float, ...], ...]  # by rank: layers · (keys, values) · heads

# One step of int8 at the largest number of a head, the most that a number of e4m3 is rounded by (3
# bits of mantissa). One step of bfloat16, by which devices may differ, is less than either.
ROUNDING = {"int8": 1 / 127, "float8_e4m3fn": 1 / 16}


def has_codes(layout: PoolLayout) -> bool:
    return layout.dtype in ROUNDING


async def check_codes(peer: "PeerWorker", parts: "Parts") -> None:
    """Before KV is copied from `peer`; asks it once for each connection.

    Raises:
        LayoutMismatch: its codes mean other numbers.
        ConnectionLost, TimeoutError: the peer is gone or does not answer.
    """
    if peer.codes_agree or not has_codes(parts.kv.layout):
        return
    call = peer.connection.call(POOLS, Nothing(), timeout_s=parts.settings.call_timeout_s)
    theirs, ours = (await call).kv_scales, await parts.kv_scales()
    if reason := disagreement(ours, theirs, ROUNDING[parts.kv.layout.dtype]):
        raise LayoutMismatch(f"KV codes of another meaning: {reason}")
    peer.codes_agree = True


def disagreement(ours: KvScales, theirs: KvScales, tolerance: float) -> str:
    """Why one's codes can't be read with the other's scales; "" if they can.

    >>> disagreement(((1.0, 2.0),), ((1.001, 2.0),), 0.01)
    ''
    >>> disagreement(((1.0, 2.0),), ((1.5, 2.0),), 0.01)
    'a scale is 1.5 there, 1 here: give the workers one dtype and one kind of device'
    """
    sizes = tuple([len(scales) for scales in of] for of in (theirs, ours))
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} scales by rank there, {sizes[1]} here"
    for one, other in zip(ours, theirs, strict=True):
        for here, there in zip(one, other, strict=True):
            if not abs(there - here) <= tolerance * abs(here):  # not finite: refused as well
                return (
                    f"a scale is {there:.4g} there, {here:.4g} here: give the workers one dtype and"
                    " one kind of device"
                )
    return ""
