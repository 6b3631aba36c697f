"""Being told to stop, for a runner: noted at once, acted upon where nothing is torn apart."""

import contextlib
import os
import signal
from collections.abc import Iterator


class StopSignal:
    """Whether SIGINT or SIGTERM came; `pipe` becomes readable then."""

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
    """Note SIGINT and SIGTERM within the block, where no code can be torn apart by them."""
    stop = StopSignal()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
