"""Preemption by signal: a training finishes its step, saves, and exits with a code for resuming."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
)  # batch systems send the last as a warning


class Preempted(SystemExit):
    """Raised after a stop signal once the state is saved; the same command resumes from it.

    If not caught, the process ends with exit code 75, which marks it as resumable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = os.EX_TEMPFAIL


class Stop:
    """Whether a stop signal was received; `signum` is its number."""

    signum = 0

    def __bool__(self) -> bool:
        return bool(self.signum)

    def __call__(self, signum: int, frame: object) -> None:
        if signum == self.signum == signal.SIGINT:
            raise KeyboardInterrupt  # second Ctrl-C: stop at once without saving
        self.signum = signum


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Record SIGTERM, SIGINT and SIGUSR1 within the block instead of terminating.

    Outside the main thread, where Python handles no signals, nothing is recorded.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def obey_parent_alone(worker: int = 0) -> None:
    """Make this data-loader worker ignore stop signals except its parent's SIGTERM.

    A job is stopped by signalling all its processes, and the current step still needs its workers.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parent, args=(os.getppid(),), daemon=True).start()


def _await_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
