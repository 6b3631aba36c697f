"""Several processes that train one detector by a Detectron2 configuration."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from lowbit.detection.with_detectron2.install import import_detectron2

TIMEOUT = timedelta(minutes=30)  # of a collective: the first process may be computing scores


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group that a launcher's variables describe, as Detectron2's own launcher would."""
    import_detectron2()
    from detectron2.utils import comm

    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if count:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if count else "gloo", timeout=TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        yield
    finally:
        dist.destroy_process_group()
