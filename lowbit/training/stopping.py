"""Stopping a training by a signal: its loop asks after each step, saves its state and leaves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from lowbit.common.preemption import Preempted, Stop, stop_requests
from lowbit.training import distributed


class StopRequest:
    """Whether this training was told to stop, by a signal to any of its processes.

    The processes' exchange of one step runs beside it on the host and is read at its end, so that
    nobody waits for a device and all of them stop after the same step.

    Args:
        told: true once this process was told to stop.
    """

    def __init__(self, told: Stop) -> None:
        self._told = told
        self._flag: torch.Tensor | None = None
        self._work: dist.Work | None = None
        self._group = distributed.host_group()

    def begin_step(self) -> None:
        """Tell the other processes, at the beginning of a step, what this one was told."""
        if distributed.size() > 1:
            self._flag = torch.tensor([int(bool(self._told))])
            self._work = dist.all_reduce(self._flag, async_op=True, group=self._group)

    def reached(self) -> bool:
        """Return at the end of a step whether to stop, the same in every process."""
        if self._work is None:
            return bool(self._told)
        self._work.wait()
        return bool(self._flag)

    def preempted(self, place: str, state: Path) -> Preempted:
        """Return what the loop raises once its state is saved.

        Args:
            place: where in the training, such as "after epoch 3 of 10".
            state: the file that holds the state.
        """
        return Preempted(
            f"stopped by signal {self._told.signum or 'of another process'} {place}; {state} holds "
            "the state. The same command goes on from it (a single job's: with --resume)."
        )


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGINT and SIGUSR1 within the block, for its loop to act on."""
    with stop_requests() as stop:
        yield StopRequest(stop)
