"""This file is about how long a peer has said nothing, less the pauses of this process itself.

A process that was stopped (a paused container, a frozen virtual machine, a processor that others
had) neither asked nor listened meanwhile: that much is no silence of the peer's. It knows by its
own timer, which fires late. Two limits keep a dead peer from hiding behind this: a loop that lags
a little at every turn has had its chances to read, so small lateness is not forgiven; and of the
pauses between two words of the peer's only the first few are. One would be too few: a loop that
runs its timers before it reads, as uvloop does, may be stopped again before it has read once.
"""

PING_EVERY_S = 0.5  # a client asks so often, a server answers each
PAUSE_PINGS = 2  # a beat that is later than this many pings shows a pause
MAX_PAUSES = 3  # forgiven until the peer is heard again


class Silence:
    """Of one peer. Clocks are those of the event loop."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._pauses = 0

    def end(self, now_s: float) -> None:
        """The peer said something."""
        self._since_s = now_s
        self._pauses = 0

    def length_s(self, now_s: float, due_s: float) -> float:
        """How long the peer has been silent, asked at a beat that was due at `due_s`.

        Ask once a beat: a late one uses up one of the pauses that are forgiven. A peer that says
        nothing more is at most `MAX_PAUSES` pauses less silent than the clock says.
        """
        pause_s = now_s - max(due_s, self._since_s)
        if pause_s > PAUSE_PINGS * PING_EVERY_S and self._pauses < MAX_PAUSES:
            self._pauses += 1
            self._since_s += pause_s
        return now_s - self._since_s
