"""This file is about reading experts that are to move in, behind the steps, a few at a time.

A thread reads the checkpoint into buffers that are made beforehand; the engine's thread copies full
ones to the device and lends them again once the copy is done. The thread asks CUDA for nothing:
another thread may be capturing a graph, which such calls would spoil.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from epidote_engine.parallel.slot_changes import MOST, Change

logger = logging.getLogger(__name__)

FAILED = -1
_BUFFERS = 2 * MOST  # one step's experts are copied while the next one's are read


@dataclass(frozen=True, eq=False)
class Buffer:
    """One expert in host memory: gate_up [2·I, hidden], down [hidden, I]; of 8-bit codes also the
    scales of both, [2·I] and [hidden]."""

    gate_up: Tensor
    down: Tensor
    scales: tuple[Tensor, ...] = ()

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return (self.gate_up, self.down, *self.scales)


@dataclass(frozen=True, kw_only=True, eq=False)
class Staged:
    """One step of a move; `buffers` by slot, of this rank's slots alone."""

    layer: int  # among those with experts
    change: Change
    buffers: dict[int, Buffer]


Read = Callable[[int, int, Buffer], None]  # layer with experts, expert, where to


class IncomingExperts:
    """The steps of one move, in order, as they are read. `stop` must follow."""

    def __init__(
        self,
        steps: Iterator[tuple[int, Change]],
        own: range,
        open_files: Callable[[], Read],
        like: tuple[Tensor, ...],
    ) -> None:
        """`own` are this rank's slots; `like` an expert's `Buffer.parts` on the device.

        `open_files` is called by the thread.
        """
        self._steps, self._own, self._open_files = steps, own, open_files
        on_gpu = like[0].is_cuda
        made = []
        for _ in range(_BUFFERS):
            gate_up, down, *scales = (
                torch.empty(t.shape, dtype=t.dtype, pin_memory=on_gpu) for t in like
            )
            made.append(Buffer(gate_up, down, tuple(scales)))
        self._free = deque(made)
        self._copied: deque[tuple[torch.cuda.Event | None, list[Buffer]]] = deque()
        self._staged: deque[Staged] = deque()
        self._changed = threading.Condition()
        self._has_failed = self._is_stopped = False
        self.thread = threading.Thread(target=self._run, name="incoming-experts", daemon=True)
        self.thread.start()

    def num_staged(self, wait_s: float = 0.0) -> int:
        """How many steps are there; `FAILED`: no more will be. Waits up to `wait_s` for one."""
        self._take_back()
        with self._changed:
            self._changed.wait_for(lambda: self._staged or self._has_failed, wait_s)
            return FAILED if self._has_failed else len(self._staged)

    def take(self) -> Staged:
        """The next step, which must be there; `give_back` must follow."""
        with self._changed:
            return self._staged.popleft()

    def give_back(self, staged: Staged) -> None:
        """Its buffers have been copied, or will have been when the device gets here."""
        done = None
        if any(buffer.down.is_pinned() for buffer in staged.buffers.values()):
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        self._copied.append((done, list(staged.buffers.values())))
        self._take_back()

    def stop(self) -> None:
        """Read no more. Does not wait for the thread. Idempotent."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _take_back(self) -> None:
        while self._copied and _is_done(self._copied[0][0]):
            with self._changed:
                self._free.extend(self._copied.popleft()[1])
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            read = self._open_files()
            for layer, change in self._steps:
                buffers: dict[int, Buffer] = {}
                for slot, expert in change.items():
                    if slot in self._own:
                        with self._changed:
                            self._changed.wait_for(lambda: self._free or self._is_stopped)
                            if self._is_stopped:
                                return
                            buffers[slot] = self._free.popleft()
                        read(layer, expert, buffers[slot])
                with self._changed:
                    if self._is_stopped:
                        return
                    self._staged.append(Staged(layer=layer, change=change, buffers=buffers))
                    self._changed.notify_all()
        except Exception:  # not swallowed: every rank gives the move up
            logger.exception("an expert's weights can't be read")
            with self._changed:
                self._has_failed = True
                self._changed.notify_all()


def _is_done(event: torch.cuda.Event | None) -> bool:
    return event is None or bool(event.query())  # type: ignore[no-untyped-call]
