"""The training loop: everything that changes from step to step, and one epoch of it."""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from backbones import create_backbone
from data import Augment, Split, normalization
from pretrain.frameworks import create_framework
from pretrain.optimizers import create_optimizer, learning_rate
from pretrain.pairings import get_pairing, total
from pretrain.recipe import Augmentation, Recipe
from pretrain.step import Bits, Step
from quant import Precision, quantize, reuse_weights, scales

_NO_AUGMENTATION = Augmentation(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_p=0.0, gray_p=0.0
)


@dataclass(frozen=True)
class Epoch:
    """What one epoch saw, on the host.

    Attributes:
        names: of the pairing's terms.
        terms: their values, (steps, T).
        losses: what was minimized, (steps,).
        drawn: precisions drawn in each step.
        lr: learning rate of the last step.
        feature_std: standard deviation of the last step's normalized projections times sqrt(dim),
            averaged over dimensions; about 1 when they spread evenly, 0 when they collapsed.
        finite: whether the parameters are finite after the last step.
    """

    names: tuple[str, ...]
    terms: Tensor
    losses: Tensor
    drawn: tuple[tuple[Precision, ...], ...]
    lr: float
    feature_std: float
    finite: bool

    def metrics(self) -> dict[str, Any]:
        """Return means and counts as plain data."""
        bits = Counter(str(precision) for step in self.drawn for precision in step)
        means = self.terms.double().mean(0).tolist()
        return {
            "loss": float(self.losses.double().mean()),
            "terms": dict(zip(self.names, means, strict=True)),
            "lr": self.lr,
            "feature_std": self.feature_std,
            "bits": dict(sorted(bits.items())),
        }

    def divergence(self) -> str | None:
        """Say at which step, counted from 1, finite numbers ended, and at what bits; None: nowhere."""
        bad = (~self.losses.isfinite()).nonzero().flatten().tolist()
        if not bad and self.finite:
            return None
        step = bad[0] if bad else len(self.losses) - 1
        what = f"the loss became {self.losses[step]:g}" if bad else "weights became infinite or NaN"
        bits = ", ".join(map(str, self.drawn[step])) or "none"
        return f"{what} at step {step + 1} of {len(self.losses)} (bits drawn: {bits})"


class Trainer:
    """Own the network, the optimizer and the random streams of a run.

    The initial weights depend on the seed and the widths alone, and the streams of image order,
    views and bits are independent: two recipes that differ in the pairing start from the same
    network and see the same views.

    Args:
        recipe: what to train.
        split: the images.
        device: where.
    """

    def __init__(self, recipe: Recipe, split: Split, *, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.pairing = get_pairing(recipe.pairing)
        self.framework = create_framework(create_backbone(recipe.architecture), recipe)
        if recipe.quant_policy is not None:
            quantize(self.framework.encoder, recipe.quant_policy)
            _refuse_learned_scales(recipe, self.framework.encoder)
        self.framework.to(device).train()
        self.optimizer = create_optimizer(
            recipe.optimizer,
            self.framework,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.streams = {
            "order": _stream(recipe.seed, "order"),
            "views": _stream(recipe.seed, "views", device),
            "bits": _stream(recipe.seed, "bits"),
        }
        self._bits = Bits(
            self.streams["bits"],
            weight=recipe.weight_bits,
            activation=recipe.activation_bits,
            shared=recipe.precision_set,
        )
        mean, std = normalization(recipe.dataset)
        augment, prepare = (
            Augment(recipe.image_size, mean=mean, std=std, **options.model_dump())
            for options in (recipe.augmentation, _NO_AUGMENTATION)
        )
        self._augment = partial(augment, generator=self.streams["views"])
        self._prepare = partial(prepare, generator=self.streams["views"])
        self._images = split.images.to(device)
        self.steps = len(split) // recipe.batch_size
        if recipe.epochs and not self.steps:
            raise ValueError(
                f"a batch of {recipe.batch_size} is larger than the {len(split)} images of "
                f"{split.name} {split.split}; nothing was trained. Lower batch_size."
            )

    def train_epoch(self, epoch: int) -> Epoch:
        """Train one epoch, counted from 0; what is left over of the images is dropped."""
        size = self.recipe.batch_size
        order = torch.randperm(len(self._images), generator=self.streams["order"])
        batches = order[: self.steps * size].view(self.steps, size).to(self.device)
        rows, drawn = [], []
        for index, batch in enumerate(batches):
            lr = self._set_learning_rate(epoch, index)
            step = Step(
                self.framework,
                self._images[batch],
                augment=self._augment,
                prepare=self._prepare,
                bits=self._bits,
            )
            self.optimizer.zero_grad(set_to_none=True)
            with reuse_weights(self.framework.encoder):
                terms = dict(self.pairing.terms(step))
                row = torch.stack(list(terms.values()))
                total(row, self.recipe.reduction).backward()
            self.optimizer.step()
            rows.append(row.detach())
            drawn.append(tuple(step.drawn))
        # The device is waited for here, once an epoch, and nowhere in a step.
        table = torch.stack(rows).cpu()  # (steps, T)
        finite = torch.stack([p.detach().isfinite().all() for p in self.framework.parameters()])
        return Epoch(
            names=tuple(terms),
            terms=table,
            losses=total(table, self.recipe.reduction),
            drawn=tuple(drawn),
            lr=lr,
            feature_std=feature_std(step.embeddings[0].z),
            finite=bool(finite.all()),
        )

    def _set_learning_rate(self, epoch: int, step: int) -> float:
        recipe = self.recipe
        lr = learning_rate(
            epoch,
            step,
            lr=recipe.lr,
            epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            steps=self.steps,
            unit=recipe.schedule,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "framework": self.framework.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
            "global_rng": torch.get_rng_state(),  # a network's own dropout draws from it
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.framework.load_state_dict(state["framework"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        torch.set_rng_state(state["global_rng"])


@torch.no_grad()
def feature_std(z: Tensor) -> float:
    """Return how far projections z (N, dim) spread: std of z/|z| over the batch, times sqrt(dim).

    The collapse watch of SimSiam (Chen and He 2021, Fig. 2), where 1/sqrt(dim) means no collapse.
    """
    return float(F.normalize(z, dim=1).std(dim=0).mean()) * math.sqrt(z.shape[1])


def _stream(seed: int, name: str, device: torch.device | str = "cpu") -> Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _refuse_learned_scales(recipe: Recipe, encoder: torch.nn.Module) -> None:
    if scales(encoder):
        raise ValueError(
            f"policy {recipe.quant_policy.name!r} learns its scales, and pairing "
            f"{recipe.pairing!r} draws other bits in each step; nothing was trained. Use a policy "
            "whose scales come from ranges: ssql or cq."
        )
