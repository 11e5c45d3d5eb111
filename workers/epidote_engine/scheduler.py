"""This file is about what the next step computes, and who gives way when KV blocks run out.

A step takes every running decode first, then further chunks of running prompts, then admits
waiting sequences, all under one token budget. Pure: no clock, no tensors.
Source: Sarathi-Serve (Agrawal et al., OSDI 2024); recompute on preemption: vLLM (SOSP 2023).

Who holds blocks, and who may lose them:

| phase            | holds                           | may lose them to others       |
| ---------------- | ------------------------------- | ----------------------------- |
| waiting          | cached or forked prefix, if any | yes, the last in order first  |
| running          | its prompt, and output so far   | yes, unless a peer copies it  |
| reserved, leased | its prompt                      | no: a peer writes or reads it |
"""

from bisect import insort
from collections.abc import Callable, Iterator

from epidote_engine.blocks import BlockPool
from epidote_engine.plan import Limits, Plan
from epidote_engine.sequence import Mode, Phase, Sequence


class Scheduler:
    """Owns every unfinished sequence. `can_recompute(sequence)` says whether its media could be
    had again if its blocks were dropped (and holds them, if so); otherwise they are parked."""

    def __init__(
        self,
        pool: BlockPool,
        block_size: int,
        limits: Limits,
        can_recompute: Callable[[Sequence], bool] = lambda _: True,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.limits = limits
        self.waiting: list[Sequence] = []  # in order
        self.running: list[Sequence] = []  # in order
        self.reserving: list[Sequence] = []  # in order of arrival
        self.held: dict[str, Sequence] = {}  # reserved or leased, by request
        self.forking: list[Sequence] = []
        self.num_preemptions = 0
        self.hit_tokens = 0
        self.query_tokens = 0
        self._can_recompute = can_recompute

    def add(self, seq: Sequence) -> None:
        """Take a sequence in; the owner has checked that it fits into an empty pool."""
        match seq.phase:
            case Phase.RESERVING:
                insort(self.reserving, seq, key=lambda s: s.order)
            case Phase.FORKING:
                self.forking.append(seq)
            case _:
                insort(self.waiting, seq, key=lambda s: s.order)

    def sequences(self) -> Iterator[Sequence]:
        """Everyone, in no particular order."""
        yield from self.waiting
        yield from self.running
        yield from self.reserving
        yield from self.held.values()
        yield from self.forking

    # -- prefix cache -------------------------------------------------------------------------

    def hold_prefix(self, seq: Sequence, limit: int) -> None:
        """Let `seq` hold the longest cached prefix of its first `limit` tokens, if longer."""
        if not self.limits.prefix_caching or seq.parked or seq.shares_last_block:
            return
        seq.extend_hashes(self.block_size, limit)
        found = self.pool.longest_prefix(seq.hashes[: limit // self.block_size])
        tokens = len(found) * self.block_size
        if tokens > seq.num_computed:
            self.pool.share(found)
            self.pool.release(seq.blocks)
            seq.blocks, seq.num_computed, seq.num_named = found, tokens, len(found)

    # -- Mode.DECODE --------------------------------------------------------------------------

    def _grant_reservations(self, plan: Plan) -> None:
        """First come, first served; the first that does not fit stops the rest."""
        while self.reserving:
            seq = self.reserving[0]
            if len(self.running) + self._num_reserved() >= self.limits.max_num_seqs:
                return
            self.hold_prefix(seq, len(seq.token_ids))
            needed = self._blocks_for(len(seq.token_ids)) - len(seq.blocks)
            # every running sequence may want one more block before this one starts
            if not self._free_up(needed + len(self.running), seq, plan):
                self._strip(seq)
                return
            self.reserving.pop(0)
            seq.num_cached = seq.num_computed
            self._count_hit(seq)
            seq.blocks.extend(self.pool.allocate(needed))
            seq.phase = Phase.RESERVED
            self.held[seq.request_id] = seq
            plan.granted.append(seq)

    def commit(self, seq: Sequence) -> None:
        """The prompt's KV is in place and `token_ids` ends with the first sampled token."""
        del self.held[seq.request_id]
        seq.num_computed = len(seq.token_ids) - 1
        self._name_blocks(seq, seq.num_computed)
        self._run(seq)

    # -- the step -----------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """Decide the next step, allocate its blocks, and preempt where that takes it."""
        plan = Plan()
        self._grant_reservations(plan)
        budget = self.limits.max_batched_tokens
        unfinished: list[Sequence] = []
        position = 0
        while position < len(self.running):  # preemption shortens the list from its end
            seq = self.running[position]
            position += 1
            if not seq.is_decoding:
                unfinished.append(seq)
            elif len(seq.token_ids) >= seq.longest:
                continue  # its last token is on its way
            elif budget > 0 and self._grow(seq, plan):
                plan.decodes.append(seq)
                budget -= 1
        for seq in unfinished:
            if seq.phase is Phase.RUNNING:
                budget -= self._prefill(seq, budget, plan)
        self._admit(plan, budget)
        return plan

    def advance(self, plan: Plan) -> list[Sequence]:
        """The step is under way: its tokens count as computed for the next one.

        Returns the sequences with a new token to sample, in batch order. `name_blocks` follows
        once the step is done.
        """
        for seq in plan.decodes:
            seq.num_computed += 1
            if seq.num_computed % self.block_size == 0:
                plan.completed.append((seq, seq.num_computed))
        sampling = list(plan.decodes)
        for seq, _start, end in plan.prefills:
            seq.num_computed = end
            plan.completed.append((seq, end))
            if end == len(seq.token_ids):
                sampling.append(seq)
        return sampling

    def name_blocks(self, plan: Plan) -> None:
        """The step is done and the tokens in its blocks are known: others may find full blocks."""
        for seq, num_computed in plan.completed:
            # meanwhile it may have ended, or lost its blocks to others
            if num_computed <= min(seq.num_computed, len(seq.blocks) * self.block_size):
                self._name_blocks(seq, num_computed)

    def lease(self, seq: Sequence) -> None:
        """Mode.PREFILL: the prompt is computed; hold its blocks for a peer."""
        self.running.remove(seq)
        seq.phase = Phase.LEASED
        self.held[seq.request_id] = seq

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let `child` start from what it has in common with `parent`, whose prompt is computed."""
        self.forking.remove(child)
        common = parent.prompt_len
        for ours, theirs in zip(
            child.token_ids[common:], parent.token_ids[common : parent.num_computed], strict=False
        ):
            if ours != theirs:
                break
            common += 1
        common = min(common, parent.num_computed, len(child.token_ids) - 1)
        child.blocks = parent.blocks[: self._blocks_for(common)]
        self.pool.share(child.blocks)
        child.num_computed = common
        child.shares_last_block = common % self.block_size != 0
        child.hashes = parent.hashes[: common // self.block_size]
        child.num_named = min(parent.num_named, common // self.block_size)
        child.phase = Phase.WAITING
        self.add(child)

    def finish(self, seq: Sequence) -> None:
        """Forget `seq` in whatever phase it is and free what it holds."""
        match seq.phase:
            case Phase.WAITING:
                self.waiting.remove(seq)
            case Phase.RUNNING:
                self.running.remove(seq)
            case Phase.RESERVING:
                self.reserving.remove(seq)
            case Phase.FORKING:
                self.forking.remove(seq)
            case Phase.RESERVED | Phase.LEASED:
                del self.held[seq.request_id]
        seq.phase = Phase.FINISHED
        seq.parked = False
        self.pool.release(seq.blocks)
        seq.blocks = []

    def errors(self) -> list[str]:
        """Everything about phases, lists and blocks that does not fit together."""
        found = self.pool.errors([seq.blocks for seq in self.sequences()])
        expected = (
            (self.waiting, {Phase.WAITING}),
            (self.running, {Phase.RUNNING}),
            (self.reserving, {Phase.RESERVING}),
            (list(self.held.values()), {Phase.RESERVED, Phase.LEASED}),
            (self.forking, {Phase.FORKING}),
        )
        for group, phases in expected:
            found += [
                f"{s.request_id}: {s.phase} in a wrong list" for s in group if s.phase not in phases
            ]
        for seq in self.sequences():
            held = len(seq.blocks) * self.block_size
            if not seq.parked and seq.num_computed > held:
                found.append(f"{seq.request_id}: {seq.num_computed} tokens in {held} slots")
            if seq.parked and seq.blocks:
                found.append(f"{seq.request_id}: parked, yet holds blocks")
        if len(self.running) > self.limits.max_num_seqs:
            found.append(f"{len(self.running)} sequences run, {self.limits.max_num_seqs} may")
        return found

    # -- inside -------------------------------------------------------------------------------

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def _run(self, seq: Sequence) -> None:
        seq.phase = Phase.RUNNING
        insort(self.running, seq, key=lambda s: s.order)

    def _grow(self, seq: Sequence, plan: Plan) -> bool:
        """A block for the decode's next token; False: `seq` itself had to give way."""
        if seq.num_computed < len(seq.blocks) * self.block_size:
            return True
        while self.pool.num_free == 0:
            victim = self._victim()
            if victim is None:
                return False  # only leases and reservations are left; they end
            self._preempt(victim, plan)
            if victim is seq:
                return False
        seq.blocks.extend(self.pool.allocate(1))
        plan.grown.append(seq)
        return True

    def _victim(self) -> Sequence | None:
        """Who gives way: a waiting holder, else the last to run (maybe the one who asks)."""
        for holder in reversed(self.waiting):
            if holder.blocks:
                return holder
        for runner in reversed(self.running):
            if runner.mode is not Mode.PREFILL:
                return runner
        return None

    def _preempt(self, victim: Sequence, plan: Plan) -> None:
        """Take all blocks of a waiting or running sequence; it waits in its old place."""
        if self._can_recompute(victim):
            self._strip(victim)
        elif victim.num_computed:
            plan.saves.append((victim, victim.blocks[: self._blocks_for(victim.num_computed)]))
            self.pool.release(victim.blocks)
            victim.blocks, victim.parked, victim.shares_last_block = [], True, False
            victim.num_named = 0
        if victim.phase is Phase.RUNNING:
            self.num_preemptions += 1
            self.running.remove(victim)
            plan.preempted.append(victim)
            victim.phase = Phase.WAITING
            insort(self.waiting, victim, key=lambda s: s.order)

    def _strip(self, seq: Sequence) -> None:
        self.pool.release(seq.blocks)
        seq.blocks, seq.num_computed, seq.num_named = [], 0, 0
        seq.shares_last_block = False

    def _prefill(self, seq: Sequence, budget: int, plan: Plan) -> int:
        """Plan the next chunk; returns its length, 0 when the budget is spent."""
        start = seq.num_computed
        count = min(len(seq.token_ids) - start, budget, self.limits.chunk_tokens)
        if count > 0:
            plan.prefills.append((seq, start, start + count))
        return max(count, 0)

    def _admit(self, plan: Plan, budget: int) -> None:
        index = 0
        while budget > 0 and index < len(self.waiting):
            if len(self.running) + self._num_reserved() >= self.limits.max_num_seqs:
                return
            seq = self.waiting[index]
            if seq.missing_media:
                index += 1  # text never waits for images
                continue
            if seq in plan.preempted or not self._make_room(seq, plan):
                return
            self.waiting.remove(seq)  # _make_room may have moved others
            self._start(seq, plan)
            if seq.is_decoding:  # a parked decode, or a fork with one token to go
                plan.decodes.append(seq)
                budget -= 1
            else:
                budget -= self._prefill(seq, budget, plan)

    def _num_reserved(self) -> int:
        return sum(seq.phase is Phase.RESERVED for seq in self.held.values())

    def _make_room(self, seq: Sequence, plan: Plan) -> bool:
        """Hold the cached prefix and see to it that the whole sequence fits."""
        if not seq.parked:
            self.hold_prefix(seq, len(seq.token_ids) - 1)
        if seq.shares_last_block and self.pool.is_private(seq.blocks[-1]):
            seq.shares_last_block = False  # the parent is gone: nothing to copy
        needed = self._missing_blocks(seq)
        # room for those who run to go on for a while, or admission and preemption alternate
        if self._free_up(needed + len(self.running), seq, plan):
            return True
        if seq.blocks and not self.running and not self.held:
            self._preempt(seq, plan)  # its own shared blocks are what is in the way
            return not seq.parked and self._missing_blocks(seq) <= self.pool.num_free
        return False

    def _missing_blocks(self, seq: Sequence) -> int:
        return self._blocks_for(len(seq.token_ids)) - len(seq.blocks) + seq.shares_last_block

    def _free_up(self, count: int, seq: Sequence, plan: Plan) -> bool:
        """Whether `count` blocks are free after waiting sequences gave theirs."""
        while count > self.pool.num_free:
            holder = next((s for s in reversed(self.waiting) if s.blocks and s is not seq), None)
            if holder is None:
                return False
            self._preempt(holder, plan)
        return True

    def _start(self, seq: Sequence, plan: Plan) -> None:
        if seq.num_cached < 0:
            seq.num_cached = 0 if seq.parked else seq.num_computed
            self._count_hit(seq)
        if seq.parked:
            plan.restores.append(seq)
            seq.parked = False
        if seq.shares_last_block:
            shared = seq.blocks.pop()
            own = self.pool.allocate(1)[0]
            plan.copies.append((shared, own))
            self.pool.release([shared])
            seq.blocks.append(own)
            seq.shares_last_block = False
        seq.blocks.extend(self.pool.allocate(self._missing_blocks(seq)))
        plan.admitted.append(seq)
        self._run(seq)

    def _count_hit(self, seq: Sequence) -> None:
        self.hit_tokens += seq.num_cached
        self.query_tokens += len(seq.token_ids)

    def _name_blocks(self, seq: Sequence, num_computed: int) -> None:
        if not self.limits.prefix_caching:
            return
        full = num_computed // self.block_size
        if full > seq.num_named:
            seq.extend_hashes(self.block_size, num_computed)
            for index in range(seq.num_named, full):
                self.pool.name(seq.blocks[index], seq.hashes[index])
            seq.num_named = full
