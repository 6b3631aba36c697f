"""Record stop signals, so that a runner can stop at a safe point."""

import contextlib
import os
import signal
from collections.abc import Iterator


class StopSignal:
    """Whether SIGINT or SIGTERM arrived; `pipe` then becomes readable."""

    def __init__(self):
        self.signum = 0
        self.pipe, self._sender = os.pipe()

    def __call__(self, signum: int, frame: object) -> None:
        self.signum = signum
        os.write(self._sender, b"!")

    def close(self) -> None:
        os.close(self.pipe)
        os.close(self._sender)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Record SIGINT and SIGTERM within the block instead of interrupting its code."""
    stop = StopSignal()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
