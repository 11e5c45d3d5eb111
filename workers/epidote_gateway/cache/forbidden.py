"""This file is about requests that a disabled category keeps out of the cache altogether.

Every user's turn counts, not only the last one: what follows a question about somebody's health is
about his health too. A text that can't be judged (a raw prompt, one too long for the sentence
model) may be of such a category, and is kept out with it.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence

from epidote_gateway.answers import Job
from epidote_gateway.cache.fingerprint import Bypass, digest
from epidote_gateway.cache.judges import Judges

logger = logging.getLogger(__name__)
CAPACITY = 16_384  # texts whose category is remembered; 150 bytes each


class Verdicts:
    """Categories of texts that were judged before, so that an exact hit needs no model."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._judges: Judges | None = None
        self._names: OrderedDict[bytes, str] = OrderedDict()

    async def names(self, texts: Sequence[str], judges: Judges) -> list[str]:
        """The category of each text, by the classifier. Raises what the embedder raises."""
        if judges is not self._judges:
            self._judges = judges
            self._names = OrderedDict()
        names = self._names  # of these judges, whoever comes meanwhile
        keys = [digest(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in names}
        if new:
            vectors = await judges.embedder.embed(list(new.values()))
            for (key, text), vector in zip(new.items(), vectors, strict=True):
                names[key] = judges.classifier.classify(vector, text).name
        found = [names[key] for key in keys]
        for key in keys:
            names.move_to_end(key)
        while len(names) > self._capacity:
            names.popitem(last=False)
        return found


async def forbidding(job: Job, judges: Judges, verdicts: Verdicts) -> tuple[Bypass, str] | None:
    """Why `job` must have nothing to do with the cache, and the category; None if it may."""
    if not judges.policy.has_forbidden:
        return None
    texts = user_texts(job)
    if not texts or not all(judges.embedder.is_whole(text) for text in texts):
        return Bypass.UNCLASSIFIED, ""
    try:
        names = await verdicts.names(texts, judges)
    except Exception:
        # Safe: what can't be judged is not cached.
        logger.exception("embedding failed")
        return Bypass.UNCLASSIFIED, ""
    for name in names:
        category = judges.policy.category(name)
        if not category.enabled:
            return Bypass.CATEGORY, category.name
    return None


def user_texts(job: Job) -> list[str]:
    """What the user said, turn by turn; none for raw prompts."""
    said = []
    for message in job.messages or ():
        if message["role"] != "user":
            continue
        content = message["content"]
        parts = (
            [content]
            if isinstance(content, str)
            else [part["text"] for part in content or () if part["type"] == "text"]
        )
        text = "\n".join(parts).strip()
        if text:
            said.append(text)
    return said
