"""A training iteration in bfloat16 on the CPU; Detectron2's mixed precision is for GPUs.

Needs Detectron2.
"""

import time

import torch
from detectron2.engine import SimpleTrainer


class BFloat16Trainer(SimpleTrainer):
    """Detectron2's plain iteration with its forward pass in bfloat16, which needs no loss scale."""

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()
