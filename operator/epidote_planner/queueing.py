"""This file is about how long requests wait for one of several equal workers.

Sakasegawa's approximation of the M/G/n queue (Annals of the Institute of Statistical
Mathematics, 1977): closed form, so that ten thousand workers cost as much as one.
"""

from dataclasses import dataclass
from math import exp, sqrt


@dataclass(frozen=True, kw_only=True)
class WaitTail:
    """P(wait > t) = `probability`·exp(−`rate`·t)."""

    probability: float
    rate: float

    def beyond(self, seconds: float) -> float:
        if seconds < 0.0:
            return 1.0
        return self.probability * exp(-min(700.0, self.rate * seconds))


NO_WAIT = WaitTail(probability=0.0, rate=1.0)
ENDLESS = WaitTail(probability=1.0, rate=0.0)


def wait_tail(servers: int, *, load: float, service_s: float, variability: float = 1.0) -> WaitTail:
    """Wait at `servers` workers of which `load` are busy on average.

    `variability` is (ca² + cs²)/2: 1 for exponential service, 1/2 for constant service.
    """
    if load <= 0.0:
        return NO_WAIT
    if load >= servers:
        return ENDLESS
    utilization = load / servers
    probability = utilization ** (sqrt(2.0 * (servers + 1)) - 1.0)
    conditional_s = service_s * max(variability, 1e-6) / (servers - load)
    return WaitTail(probability=probability, rate=1.0 / conditional_s)


def both_beyond(first: WaitTail, second: WaitTail, seconds: float) -> float:
    """P(first wait + second wait > seconds) of independent waits.

    >>> both_beyond(NO_WAIT, NO_WAIT, 0.1)
    0.0
    """
    if seconds < 0.0 or first.rate == 0.0 or second.rate == 0.0:
        return 1.0
    slow, fast = sorted((first.rate, second.rate))
    if fast - slow < 1e-9 * fast:  # equal rates: step aside from the singularity
        slow = fast * (1.0 - 1e-6)
    tail_slow = exp(-min(700.0, slow * seconds))
    tail_fast = exp(-min(700.0, fast * seconds))
    together = (fast * tail_slow - slow * tail_fast) / (fast - slow)
    p, q = first.probability, second.probability
    alone_first = p * (1.0 - q) * exp(-min(700.0, first.rate * seconds))
    alone_second = q * (1.0 - p) * exp(-min(700.0, second.rate * seconds))
    return min(1.0, alone_first + alone_second + p * q * together)
