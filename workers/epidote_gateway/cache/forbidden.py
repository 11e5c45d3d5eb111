"""This file is about requests that a disabled category keeps out of the cache altogether.

Every user's turn counts, not only the last one: what follows a question about somebody's health is
about his health too. A text that can't be judged (a raw prompt, one too long for the sentence
model, one that the classifier abstains on) may be of such a category, and is kept out with it.
Where a category is volatile, the question must be told likewise, lest it be kept for too long.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence

from epidote_gateway.answers import Job
from epidote_gateway.cache.fingerprint import Bypass, digest
from epidote_gateway.cache.judges import Judges
from epidote_gateway.cache.policy import Doubtful
from epidote_gateway.cache.protocols import Category

logger = logging.getLogger(__name__)
CAPACITY = 16_384  # texts whose category is remembered; 150 bytes each


class Verdicts:
    """Categories of texts that were judged before, so that an exact hit needs no model."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._judges: Judges | None = None
        self._found: OrderedDict[bytes, Category] = OrderedDict()

    async def of(self, texts: Sequence[str], judges: Judges) -> list[Category]:
        """The category of each text, by the classifier. Raises what the embedder raises."""
        if judges is not self._judges:
            self._judges = judges
            self._found = OrderedDict()
        known = self._found  # of these judges, whoever comes meanwhile
        keys = [digest(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors = await judges.embedder.embed(list(new.values()))
            for (key, text), vector in zip(new.items(), vectors, strict=True):
                known[key] = judges.classifier.classify(vector, text)
        found = [known[key] for key in keys]
        for key in keys:
            known.move_to_end(key)
        while len(known) > self._capacity:
            known.popitem(last=False)
        return found


async def forbidding(
    job: Job, judges: Judges, verdicts: Verdicts, *, named: str = ""
) -> tuple[Bypass, str] | None:
    """Why `job` must have nothing to do with the cache, and the category; None if it may.

    `named`: the category that the request gives its question, "" for none.
    """
    policy = judges.policy
    if not policy.must_classify:
        return None
    texts = user_texts(job)
    if not texts or not all(judges.embedder.is_whole(text) for text in texts):
        return Bypass.UNCLASSIFIED, ""
    try:
        found = await verdicts.of(texts, judges)
    except Exception:
        # Safe: what can't be judged is not cached.
        logger.exception("embedding failed")
        return Bypass.UNCLASSIFIED, ""
    for verdict in found:
        category = policy.category(verdict.name)
        if not category.enabled:
            return Bypass.CATEGORY, category.name
    if policy.classifier.doubtful is Doubtful.BYPASS:
        doubts = [
            verdict.similarity == 0.0 or not judges.reads(text)
            for text, verdict in zip(texts, found, strict=True)
        ]
        if named:
            doubts.pop()  # the client knows what its question is about
        elif all(category.enabled for category in policy.sensitive):
            doubts = doubts[-1:]  # earlier turns make no answer volatile
        if any(doubts):
            return Bypass.UNCLASSIFIED, ""
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
