"""Start several processes of one job on this machine, as torchrun does."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from typing import Any


def launch(function: Callable[..., int], *args: Any, processes: int) -> int:
    """Call `function(*args)` in `processes` new processes and return its exit code.

    Each gets torchrun's variables: RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT. If one fails, the others are ended; a stop signal is passed on to all.
    """
    import torch.distributed as dist
    import torch.multiprocessing as mp

    from lowbit.common.preemption import SIGNALS

    # The parent runs the store, so that its port is certainly free.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    code = mp.get_context("spawn").Value("i", 0)
    running = mp.start_processes(
        _process,
        args=(processes, store.port, code, function, args),
        nprocs=processes,
        join=False,
        start_method="spawn",
    )

    def pass_on(signum: int, frame: object) -> None:
        for process in running.processes:
            if process.is_alive():
                process.terminate()

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        while not running.join():
            pass
    except mp.ProcessExitedException as error:
        if error.exit_code < 0:
            print(f"error: {error}; continue from its last state with --resume.", file=sys.stderr)
        return max(1, error.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code.value


def _process(
    rank: int, processes: int, port: int, code: Synchronized, function: Callable, args: tuple
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    found = function(*args)
    if (
        found == os.EX_TEMPFAIL
    ):  # not a failure, in which the others would be ended while they leave
        code.value = found
    elif found:
        sys.exit(found)
