"""Stop a training by signal: the loop checks after each step, saves its state and exits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from lowbit.common.preemption import Preempted, Stop, stop_requests
from lowbit.training import distributed


class StopRequest:
    """Whether any process of this training received a stop signal.

    The exchange between processes runs on the host during a step and is read at its end, so that
    no process waits for a device and all stop after the same step.

    Args:
        told: true once this process received a stop signal.
    """

    def __init__(self, told: Stop) -> None:
        self._told = told
        self._flag: torch.Tensor | None = None
        self._work: dist.Work | None = None
        self._group = distributed.host_group()

    def begin_step(self) -> None:
        """Start sharing this process' stop flag with the others, at the beginning of a step."""
        if distributed.size() > 1:
            self._flag = torch.tensor([int(bool(self._told))])
            self._work = dist.all_reduce(self._flag, async_op=True, group=self._group)

    def reached(self) -> bool:
        """Return, at the end of a step, whether to stop; all processes agree."""
        if self._work is None:
            return bool(self._told)
        self._work.wait()
        return bool(self._flag)

    def preempted(self, place: str, state: Path) -> Preempted:
        """Return the exception to raise once the state is saved.

        Args:
            place: where in the training, such as "after epoch 3 of 10".
            state: the file that holds the state.
        """
        return Preempted(
            f"stopped by signal {self._told.signum or 'of another process'} {place}; {state} holds "
            "the state. The same command resumes from it (for a single job: with --resume)."
        )


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Record SIGTERM, SIGINT and SIGUSR1 within the block, for the training loop to act on."""
    with stop_requests() as stop:
        yield StopRequest(stop)
