"""This file is about where bytes from another host arrive, before they are copied into a pool.

A read by the network card can't be called back: when its peer falls silent, it may still write long
after everybody has given up. So it never writes into a pool. It writes into a slot, registered
once, and a slot whose read was given up rests until that read has ended. The copy from slot to pool
costs a few percent of the link's time where memory is twenty times as fast as the network.
"""

import asyncio
import logging
from collections import Counter
from typing import Any

import torch

from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.nixl_agent import NixlAgent

logger = logging.getLogger(__name__)

SLOT_BYTES = 16 << 20  # 0.3 ms of a 400 Gbit/s link: long against the cost of a read's start
MAX_SLOTS = 16  # of a worker; they are made when needed and kept
MAX_SLOTS_PER_POOL = 2  # one fills while the other is emptied; a peer that stalls keeps no more
LOOK_S = 0.02  # how often who waits for a slot looks whether a resting one has woken


class Slot:
    """One piece of registered memory, and the read that fills it."""

    def __init__(self, memory: torch.Tensor, owner: str) -> None:
        self.memory, self.owner = memory, owner
        self.transfer: Any = None


class Staging:
    """The slots of one worker, on the device of its pools. Belongs to the event loop."""

    def __init__(self, agent: NixlAgent, device: torch.device) -> None:
        self._agent, self._device = agent, device
        self._free: list[Slot] = []
        self._resting: list[Slot] = []  # given up, but their reads may still write
        self._num_slots = 0
        self._num_taken: Counter[str] = Counter()  # by owner, resting ones included
        self._given = asyncio.Event()

    @property
    def num_resting(self) -> int:
        """Slots whose reads were given up and have not ended."""
        self._wake()
        return len(self._resting)

    async def take(self, owner: str, timeout_s: float) -> Slot:
        """A slot for one read of `owner`, a pool of a peer.

        Raises:
            TimeoutError: none became free in time: peers stall.
            NoDescriptor: NIXL refuses the memory of a new one.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                self._wake()
                if not self._free and self._num_slots < MAX_SLOTS:
                    await self._make()
                if self._free and self._num_taken[owner] < MAX_SLOTS_PER_POOL:
                    slot = self._free.pop()
                    slot.owner = owner
                    self._num_taken[owner] += 1
                    return slot
                self._given.clear()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._given.wait()
                except TimeoutError:
                    continue

    def give_back(self, slot: Slot) -> None:
        """Whatever became of its read. A read that is not over keeps the slot until it is."""
        self._resting.append(slot)
        self._wake()
        if slot in self._resting:
            logger.warning("a read of a peer was given up", extra={"pool": slot.owner})

    async def _make(self) -> None:
        self._num_slots += 1  # at once: others may come while this one is being made
        try:
            memory = await asyncio.to_thread(self._registered)
        except BaseException:
            self._num_slots -= 1
            raise
        self._free.append(Slot(memory, ""))

    def _registered(self) -> torch.Tensor:
        try:
            memory = torch.empty(SLOT_BYTES, dtype=torch.uint8, device=self._device)
        except RuntimeError as error:  # out of memory; on the CPU torch has no name for it
            raise NoDescriptor(f"no memory to receive into: {error}") from error
        if memory.is_cuda:  # the card knows no streams: whoever had this memory must be done
            torch.cuda.synchronize(self._device)
        self._agent.register(memory)
        return memory

    def _wake(self) -> None:
        resting = []
        for slot in self._resting:
            if slot.transfer is not None:
                try:
                    if not self._agent.is_over(slot.transfer):
                        resting.append(slot)
                        continue
                except ConnectionLost:
                    pass  # over as well
                self._agent.end(slot.transfer)
                slot.transfer = None
            self._num_taken[slot.owner] -= 1
            self._free.append(slot)
            self._given.set()
        self._resting = resting
