"""This file is about the kinds of media a request may carry beside its text."""

from enum import StrEnum


class Modality(StrEnum):
    """What a request carries; a request with any media is named by its heaviest medium."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"

    @property
    def needs_encode(self) -> bool:
        """Whether a request of this kind passes the encode stage.

        >>> [m.value for m in Modality if m.needs_encode]
        ['image', 'video', 'audio']
        """
        return self is not Modality.TEXT
