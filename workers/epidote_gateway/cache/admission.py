"""This file is about which new answers are kept: whole ones, ended normally, still true."""

import logging
import uuid
from collections.abc import Sequence

from epidote_core.generation import TokenChunk
from epidote_gateway.cache.answer_codec import encode_answer, measure
from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.lookup import Miss
from epidote_gateway.cache.protocols import Document

logger = logging.getLogger(__name__)
ENTRY_BYTES = 900  # an entry in memory besides its texts and vector; see bench cache_scale.py


def admit(
    state: CacheState,
    miss: Miss,
    chunks: Sequence[TokenChunk],
    *,
    num_choices: int,
    prompt_tokens: int,
    took_s: float,
) -> Entry | None:
    """Keep the answer to `miss`, if the policy of this moment has it; it may be served at once."""
    policy = state.policy
    category = policy.category(miss.category)
    if policy.must_classify and miss.judges is not state.judges:
        return None  # judged by a policy that may have had it enabled
    measured = measure(chunks, num_choices)
    if not (policy.enabled and category.enabled and measured.is_normal):
        return None
    if measured.is_truncated and not policy.requests.truncated:
        return None
    body = encode_answer(chunks)
    if len(body) > category.max_entry_bytes:
        return None
    asked, now_s = miss.asked, state.unix_time()
    is_comparable = miss.vector is not None and miss.judges.vectors == state.judges.vectors
    vector = miss.vector if is_comparable else None
    stored = b"" if vector is None else vector.astype("<f4").tobytes()
    entry = Entry(
        entry_id=uuid.uuid4().hex,
        exact=asked.exact,
        context=asked.context,
        after=asked.after(measured.text),
        category=category.name,
        is_named=miss.is_named,
        own=miss.own if miss.own != category.name else "",
        kept_out=policy.kept_out,
        tenant=asked.tenant,
        model=asked.model,
        text=asked.text if miss.vector is not None else "",
        media=asked.media,
        embedder=state.judges.vectors if vector is not None else "",
        created_s=now_s,
        saved_s=took_s,
        max_tokens=asked.max_tokens,
        prompt_tokens=prompt_tokens,
        num_tokens=measured.num_tokens,
        total_tokens=measured.total_tokens,
        is_truncated=measured.is_truncated,
        num_turns=asked.num_turns,
        num_bytes=ENTRY_BYTES + len(body) + len(asked.text) + len(stored),
    )
    if state.barriers.forbids(entry, miss.num_invalidations, now_s):
        return None
    longest_s = min(policy.category(name).longest_s for name in entry.categories)
    document = Document(entry_id=entry.entry_id, facts=entry.facts(), vector=stored, body=body)
    if not state.keeper.keep(document, longest_s):
        logger.warning("the store is too slow, an answer is not kept")
        return None
    replaced = state.catalog.exact(entry.exact)
    if replaced is not None:
        state.drop(replaced, "replaced")
    state.catalog.add(entry, vector)
    if entry.text and vector is None:
        state.without_vector.append(entry)
    state.make_room()
    return entry
