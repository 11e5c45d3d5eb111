"""This file is about one choice of one request while an engine works on it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from epidote_core.block_hash import BlockHash, block_hash, media_in_block, root_hash
from epidote_core.generation import Choice, GenerateRequest

IN_FLIGHT = -1  # stands for a token id that only the device knows


class Mode(StrEnum):
    """Which stages of a request an engine is asked for."""

    GENERATE = "generate"  # prefill and decode here
    PREFILL = "prefill"  # compute the prompt, sample one token, hold the blocks
    DECODE = "decode"  # reserve blocks for a prompt computed elsewhere, then decode


class Phase(StrEnum):
    """Where a sequence is.

    waiting ⇄ running → finished      (back by preemption)
    reserving → reserved → running    Mode.DECODE
    running → leased → finished       Mode.PREFILL
    forking → waiting                 choices beyond the first, until the first one's prompt is done
    """

    WAITING = "waiting"
    RUNNING = "running"
    RESERVING = "reserving"
    RESERVED = "reserved"
    LEASED = "leased"
    FORKING = "forking"
    FINISHED = "finished"


@dataclass(eq=False, slots=True)
class Sequence:
    """Mutable state, owned by the scheduler; identity is equality.

    `token_ids` is prompt + output. Tokens [0, num_computed) have their KV in `blocks`, or, while
    `parked`, in host memory. Only the last of `token_ids` is not computed when a step decodes.
    With overlapped steps the last `num_in_flight` of `token_ids` are `IN_FLIGHT`: sampled on the
    device, not known here yet.
    """

    request: GenerateRequest
    choice: Choice
    mode: Mode
    arrival: int
    token_ids: list[int]
    phase: Phase = Phase.WAITING
    blocks: list[int] = field(default_factory=list)
    hashes: list[BlockHash] = field(default_factory=list)  # names of the first full blocks
    num_named: int = 0  # blocks offered to the prefix cache (or found in it)
    num_computed: int = 0
    num_cached: int = -1  # prefix-cache hit of the first admission, in tokens; -1: not admitted
    parked: bool = False
    shares_last_block: bool = False  # a fork's partial block, to be copied before it writes
    missing_media: set[str] = field(default_factory=set)  # keys that must be ready to go on
    row: int = -1  # in the runner's batch state, while running
    replayed_to: int = 0  # tokens that were known when it was (re)started: prompt + emitted
    longest: int = 2**62  # with this many tokens it has ended, whatever the last one is
    num_in_flight: int = 0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def prompt_len(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def num_outputs(self) -> int:
        return len(self.token_ids) - len(self.request.prompt_token_ids)

    @property
    def order(self) -> tuple[int, int]:
        """Sooner first: priority, then arrival."""
        return (self.request.priority, self.arrival)

    @property
    def is_decoding(self) -> bool:
        """Only one token, an output, is not computed. The prompt's last token is no decode."""
        return len(self.token_ids) - 1 == self.num_computed >= self.prompt_len

    def launch(self) -> None:
        """A token of it is being sampled."""
        self.token_ids.append(IN_FLIGHT)
        self.num_in_flight += 1

    def land(self, token_id: int) -> None:
        """The first token in flight is known."""
        self.token_ids[-self.num_in_flight] = token_id
        self.num_in_flight -= 1

    def extend_hashes(self, block_size: int, num_tokens: int) -> None:
        """Name every full block of the first `num_tokens` tokens."""
        media = self.request.media
        for index in range(len(self.hashes), num_tokens // block_size):
            parent = self.hashes[-1] if index else root_hash(self.request.cache_salt)
            start, end = index * block_size, (index + 1) * block_size
            within = media_in_block(media, start, end) if media else ()
            self.hashes.append(block_hash(parent, self.token_ids[start:end], within))


def sequences_of(request: GenerateRequest, mode: Mode, arrival: int) -> Iterator[Sequence]:
    """One sequence per choice; a prefill computes the first choice alone."""
    choices = request.choices[:1] if mode is Mode.PREFILL else request.choices
    for number, choice in enumerate(choices):
        tokens = [*request.prompt_token_ids, *choice.emitted_token_ids]
        first = Phase.RESERVING if mode is Mode.DECODE else Phase.WAITING
        yield Sequence(
            request=request,
            choice=choice,
            mode=Mode.GENERATE if number else mode,
            arrival=arrival + number,
            token_ids=tokens,
            phase=Phase.FORKING if number else first,
            replayed_to=len(tokens),
        )
