"""Being told to stop: a training job ends its step, saves, and says that it wants to go on later."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # batch systems warn with the last


class Preempted(SystemExit):
    """A signal came; the state is saved, and the same command goes on from it.

    Where nobody catches it the process ends with exit code 75, by which who started it knows.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = os.EX_TEMPFAIL


class Stop:
    """Whether a signal came; `signum` says which."""

    signum = 0

    def __bool__(self) -> bool:
        return bool(self.signum)

    def __call__(self, signum: int, frame: object) -> None:
        if signum == self.signum == signal.SIGINT:
            raise KeyboardInterrupt  # Ctrl-C twice: at once, and nothing is saved
        self.signum = signum


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Note SIGTERM, SIGINT and SIGUSR1 within the block instead of dying of them.

    Outside the main thread, where Python takes no signals, nothing is noted.
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
    """Let this process, a data loader's worker, ignore signals to stop but for its parent's SIGTERM.

    Whoever stops a job signals all of its processes, and the step under way needs its workers still.
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
