"""State that changes from step to step, and the training of one epoch."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.data.views.training_views import Batch, ViewSource
from lowbit.pretrain.building import build_framework, build_optimizer
from lowbit.pretrain.pairings import get_pairing, total
from lowbit.pretrain.recipe import Recipe
from lowbit.pretrain.record import Record
from lowbit.pretrain.step import Bits, Step
from lowbit.quant import reuse_weights
from lowbit.training import distributed
from lowbit.training.lr_schedules import warmup_cosine
from lowbit.training.mixed_precision import MixedPrecision
from lowbit.training.seeding import global_states, named_seed, restore_global_states, stream


class Trainer:
    """Network, optimizer and random streams of a run.

    The initial weights depend only on the seed and the widths, and the streams of image order,
    views and bits are independent: two recipes that differ in the pairing start from the same
    network and see the same views.

    With several processes the batch, its order and the bits are those of one; each process trains on
    its share of every batch and draws its own views. A batch norm, a min-max range and the negatives
    of a contrastive loss see what one process holds at a time: with `accumulate`, a part of that share.
    (With `sync_bn` batch norms see all processes' images; observed ranges and negatives always do.)

    Args:
        recipe: what to train.
        source: of this process' views.
        device: to train on.
        watch: called with each step once its gradients are computed, or with each part of an
            accumulated batch; it must change nothing and wait for no device.

    Attributes:
        epoch: epochs done.
        position: steps done in the current epoch.
        record: losses and bits of that epoch so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: ViewSource,
        *,
        device: torch.device,
        watch: Callable[[Step], None] | None = None,
    ) -> None:
        self.recipe, self.device, self.watch = recipe, device, watch
        self.pairing = get_pairing(recipe.pairing)
        self.arithmetic = MixedPrecision(device, amp=recipe.amp, channels_last=recipe.channels_last)
        self.framework = build_framework(recipe, self.arithmetic)
        self.optimizer = build_optimizer(recipe, self.framework)
        self._parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.streams = {name: stream(recipe.seed, name) for name in ("order", "bits")}
        self._bits = Bits(
            self.streams["bits"],
            weight=recipe.weight_bits,
            activation=recipe.activation_bits,
            shared=recipe.precision_set,
        )
        self.source = source
        self.steps = len(source) // recipe.batch_size
        self.epoch = self.position = 0
        self.record = Record(recipe.reduction, self.steps)
        self._order_state: Tensor | None = None  # of the stream at the start of the current epoch
        self._z: Tensor | None = None
        _check_batch(recipe, source, self.steps)
        if distributed.rank():  # the network's own dropout differs between processes
            torch.manual_seed(named_seed(recipe.seed, f"global/{distributed.rank()}"))

    def train_epoch(self) -> Iterator[None]:
        """Train the rest of the epoch, yielding after each step.

        Images that do not fill a batch are dropped.
        """
        rows = self._positions()[self.position :]
        batches = self.source.epoch(rows.flatten(0, 1), self.epoch)
        for _ in rows:
            self._step(islice(batches, self.recipe.accumulate))
            self.position += 1
            yield

    def end_epoch(self) -> dict[str, Any]:
        """Return the metrics of the finished epoch and advance to the next."""
        metrics = {
            **self.record.metrics(),
            "lr": self._learning_rate(self.steps - 1),
            "feature_std": feature_std(self._z),
        }
        if self.arithmetic.scaler.is_enabled():
            metrics |= {"skipped": self.arithmetic.skipped}
        self.epoch, self.position = self.epoch + 1, 0
        self.record, self._order_state = Record(self.recipe.reduction, self.steps), None
        return metrics

    def _positions(self) -> Tensor:
        """Return this process' images of the epoch, (steps, accumulate, N)."""
        if self._order_state is None:
            self._order_state = self.streams["order"].get_state()
        size, ranks = self.recipe.batch_size, distributed.size()
        order = torch.randperm(len(self.source), generator=self.streams["order"])
        batches = order[: self.steps * size].view(self.steps, self.recipe.accumulate, ranks, -1)
        return batches[:, :, distributed.rank()]

    def _step(self, micro_batches: Iterator[Batch]) -> None:
        """Take one optimizer step on this process' share of a batch."""
        lr = self._learning_rate(self.position)
        for group in self.optimizer.param_groups:
            if group["scheduled"]:
                group["lr"] = lr
        done = self.epoch * self.steps + self.position
        self.framework.begin_step(done / (self.recipe.epochs * self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.recipe.accumulate
        bits = self.streams["bits"].get_state() if parts > 1 else None
        rows = []
        for index, batch in enumerate(micro_batches):
            if index:
                self.streams["bits"].set_state(bits)  # one draw per step
            step = Step(self.framework, batch, bits=self._bits)
            with reuse_weights(self.framework):
                terms = dict(self.pairing.terms(step))
                row = torch.stack(list(terms.values()))
                loss = total(row, self.recipe.reduction) / parts
                self.arithmetic.backward(loss)
            rows.append(row.detach())
            if self.watch is not None:
                self.watch(step)
        distributed.average_gradients(self._parameters)
        self.arithmetic.step(self.optimizer)
        self.framework.end_step()
        row = rows[0] if parts == 1 else torch.stack(rows).mean(0)
        self.record.add(tuple(terms), row, tuple(step.drawn))
        self._z = step.embeddings[0].z.detach()

    def _learning_rate(self, step: int) -> float:
        recipe = self.recipe
        return warmup_cosine(
            self.epoch,
            step,
            lr=recipe.lr,
            epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            steps=self.steps,
            unit=recipe.schedule,
        )

    def divergence(self, *, weights: bool = True) -> str | None:
        """Describe where the current epoch became infinite or NaN; None if it did not.

        Args:
            weights: whether to check the weights too. This waits for the device, which a step
                never does.
        """
        finite = True
        if weights:
            every = [p.detach().isfinite().all() for p in self.framework.parameters()]
            finite = bool(torch.stack(every).all())
        return self.record.divergence(finite=finite)

    def state_dict(self) -> dict[str, Any]:
        """Return everything the next step depends on; every process must call this."""
        own = {
            "source": self.source.state_dict(),
            "rng": global_states(self.device),  # a network's own dropout draws from these
        }
        order = self.streams["order"].get_state() if not self.position else self._order_state
        return {
            "epoch": self.epoch,
            "position": self.position,
            "record": self.record.state_dict(),
            "framework": self.framework.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "arithmetic": self.arithmetic.state_dict(),
            "streams": {"order": order, "bits": self.streams["bits"].get_state()},
            "processes": distributed.gather(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the number of processes differs, so their views cannot be continued.
        """
        if len(state["processes"]) != distributed.size():
            raise ValueError(
                f"{len(state['processes'])} processes have trained this run so far, but "
                f"{distributed.size()} would continue it; nothing was trained. Start as many as before "
                f"(--num-gpus {len(state['processes'])}), or choose another output folder."
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self.record.load_state_dict(state["record"])
        self.framework.load_state_dict(state["framework"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.arithmetic.load_state_dict(state["arithmetic"])
        own = state["processes"][distributed.rank()]
        for name, generator in state["streams"].items():
            self.streams[name].set_state(generator)
        self.source.load_state_dict(own["source"])
        restore_global_states(own["rng"], self.device)


@torch.no_grad()
def feature_std(z: Tensor) -> float:
    """Return the spread of projections z (N, dim): std of z/|z| over the batch, times sqrt(dim).

    SimSiam's collapse indicator (Chen and He 2021, Fig. 2), where 1/sqrt(dim) means no collapse.
    """
    return float(F.normalize(z, dim=1).std(dim=0).mean()) * math.sqrt(z.shape[1])


def _check_batch(recipe: Recipe, source: ViewSource, steps: int) -> None:
    """Refuse a batch that exceeds the images or cannot be divided among the processes."""
    if recipe.epochs and not steps:
        raise ValueError(
            f"a batch of {recipe.batch_size} is larger than the {len(source)} images of "
            f"{source.name} {source.split}; nothing was trained. Lower batch_size."
        )
    parts = recipe.accumulate * distributed.size()
    if recipe.batch_size % parts or recipe.batch_size < 2 * parts:
        raise ValueError(
            f"a batch of {recipe.batch_size} cannot be divided among {distributed.size()} processes in "
            f"{recipe.accumulate} parts each, at least two images a part; nothing was trained. Make "
            f"batch_size a multiple of {parts}."
        )
