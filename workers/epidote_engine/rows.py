"""This file is about the running batch as arrays: one row per running sequence, kept up to date
by small writes instead of being rebuilt from Python objects every step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epidote_engine.sequence import IN_FLIGHT, Sequence

Ints = NDArray[np.int64]


class BatchRows:
    """Rows 0..max_rows-1, each free or owned by one running sequence.

    last_token, num_tokens   of the owner's `token_ids`; a token may be `IN_FLIGHT`
    num_outputs              the output position that is sampled next
    table [row, block]       the owner's blocks; entries past `num_blocks` are stale
    delta                    multimodal position of a generated token minus its index
    sampling                 owner's parameters, one array per parameter
    """

    def __init__(self, max_rows: int, max_blocks: int) -> None:
        self.max_rows = max_rows
        self.last_token = np.zeros(max_rows, np.int64)
        self.num_tokens = np.zeros(max_rows, np.int64)
        self.num_outputs = np.zeros(max_rows, np.int64)
        self.delta = np.zeros(max_rows, np.int64)
        self.table = np.zeros((max_rows, max_blocks), np.int32)
        self.num_blocks = np.zeros(max_rows, np.int64)
        self.seed = np.zeros(max_rows, np.uint64)
        self.choice = np.zeros(max_rows, np.uint64)
        self.sampling: dict[str, NDArray[Any]] = {
            "temperature": np.zeros(max_rows, np.float32),
            "top_k": np.zeros(max_rows, np.int64),
            "top_p": np.ones(max_rows, np.float32),
            "min_p": np.zeros(max_rows, np.float32),
            "presence_penalty": np.zeros(max_rows, np.float32),
            "frequency_penalty": np.zeros(max_rows, np.float32),
            "repetition_penalty": np.ones(max_rows, np.float32),
        }
        self.is_plain = np.ones(max_rows, np.bool_)  # greedy, and nothing else is asked for
        self.num_logprobs = np.full(max_rows, -1, np.int64)  # -1: none wanted
        self.owners: list[Sequence | None] = [None] * max_rows
        self.version = 0  # grows whenever a row changes hands
        self.stay = np.zeros(max_rows, np.int64)  # `version` when the row's owner came
        self._free = list(range(max_rows - 1, -1, -1))

    def assign(self, seq: Sequence, delta: int) -> None:
        """Give `seq` a row and write its state there."""
        row = seq.row = self._free.pop()
        self.owners[row] = seq
        self.version += 1
        self.stay[row] = self.version
        sampling = seq.request.sampling
        self.last_token[row] = seq.token_ids[-1]
        self.num_tokens[row] = len(seq.token_ids)
        self.num_outputs[row] = seq.num_outputs
        self.delta[row] = delta
        self.seed[row] = sampling.seed & (2**64 - 1)
        self.choice[row] = seq.choice.index
        for name, values in self.sampling.items():
            values[row] = getattr(sampling, name)
        self.num_logprobs[row] = -1 if sampling.logprobs is None else sampling.logprobs
        self.is_plain[row] = (
            sampling.is_greedy
            and sampling.logprobs is None
            and not sampling.logit_bias
            and not self.has_penalties(row)
            and sampling.min_tokens <= seq.num_outputs
        )
        self.num_blocks[row] = 0
        self.follow_blocks(seq)

    def release(self, seq: Sequence) -> None:
        """Take the row back; without one nothing happens."""
        if seq.row >= 0:
            self.owners[seq.row] = None
            self._free.append(seq.row)
            self.version += 1
            seq.row = -1

    def follow_blocks(self, seq: Sequence) -> None:
        """Write the blocks that `seq` got since the last look."""
        row, known = seq.row, int(self.num_blocks[seq.row])
        if len(seq.blocks) > known:
            self.table[row, known : len(seq.blocks)] = seq.blocks[known:]
            self.num_blocks[row] = len(seq.blocks)

    def append(self, rows: Ints, token_ids: Ints) -> None:
        """One more output token for each of `rows`."""
        self.last_token[rows] = token_ids
        self.num_tokens[rows] += 1
        self.num_outputs[rows] += 1

    def launch(self, rows: Ints) -> None:
        """A token of each of `rows` is being sampled; `last_token` says so until it is known."""
        self.last_token[rows] = IN_FLIGHT
        self.num_tokens[rows] += 1
        self.num_outputs[rows] += 1

    def settle(self, seq: Sequence, token_id: int) -> None:
        """The next token of `seq` is known: in flight until now, or (one) more than before."""
        if not seq.num_in_flight:
            seq.token_ids.append(token_id)
            return
        seq.land(token_id)
        if seq.row >= 0 and not seq.num_in_flight:
            self.last_token[seq.row] = token_id

    def has_penalties(self, row: int) -> bool:
        sampling = self.sampling
        return bool(
            sampling["presence_penalty"][row]
            or sampling["frequency_penalty"][row]
            or sampling["repetition_penalty"][row] != 1
        )

    def errors(self, running: list[Sequence]) -> list[str]:
        """Rows that are lost, and running sequences without one."""
        found = []
        if {seq for seq in self.owners if seq is not None} != set(running):
            found.append("batch rows and running sequences disagree")
        if len(self._free) + len(running) != self.max_rows:
            found.append(f"{len(self._free)} free rows, {len(running)} used of {self.max_rows}")
        return found
