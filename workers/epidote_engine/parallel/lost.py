"""This file is about ranks that are gone; whoever starts their processes notices, too."""

from epidote_core.errors import EpidoteError

NOTICE_S = 1.0  # between a broken connection and the end of the process at its other end


class RankLost(EpidoteError):
    """A process that holds a part of the model is gone: the rest is of no use."""
