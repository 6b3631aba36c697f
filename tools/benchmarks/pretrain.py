"""Cases of `lowbit-bench bench pretrain`: a step over the forward and backward passes it needs."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from lowbit.data.views.training_views import ViewSource, view_source
from lowbit.pretrain.recipe import Recipe
from lowbit.pretrain.trainer import Trainer
from lowbit.quant import use_fused_kernels
from lowbit.tools.benchmarks.timing import Case, ratio_rows

CPU = {"architecture": "resnet18_cifar", "dataset": "digits", "batch_size": 32, "device": "cpu"}
GPU = {**CPU, "batch_size": 512, "device": "cuda", "amp": "bf16", "channels_last": True}


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    rounds = 2 if quick else 7
    yield from plain_step(rounds, CPU)
    yield from quantized_steps(rounds, CPU)
    if torch.cuda.is_available():
        yield from quantized_steps(20, GPU)
        yield from whole_run(GPU)


def plain_step(rounds: int, settings: dict[str, Any]) -> Iterator[Case]:
    """SimSiam by the trainer, over the same passes in a hand-written loop."""
    recipe = Recipe(**settings, epochs=1000)
    variants = {"hand-written loop": hand_written(recipe), "plain on SimSiam": steps_of(recipe)}
    targets = {"plain on SimSiam": 1.02}
    yield from ratio_rows(variants, "hand-written loop", rounds, targets, note=_note(recipe))


def quantized_steps(rounds: int, settings: dict[str, Any]) -> Iterator[Case]:
    """Four encoder passes with quantizers, over two plain steps, which are four passes without."""
    for pairing, framework, target in (("ssql", "simsiam", 1.06), ("cq-c", "simclr", 1.05)):
        recipe = Recipe(**settings, framework=framework, epochs=1000)
        plain, ideal = steps_of(recipe), f"two plain steps of {framework}"

        def twice(plain: Callable[[], None] = plain) -> None:
            plain()
            plain()

        quantized = recipe.model_copy(update={"pairing": pairing})
        name = f"{pairing} on {framework}"
        variants = {ideal: twice}
        for fused in (True, False):
            step = steps_of(quantized)

            def run(step: Callable[[], None] = step, fused: bool = fused) -> None:
                use_fused_kernels(fused)
                step()

            variants[f"{name}, {'fused' if fused else 'eager'}"] = run
        targets = {f"{name}, fused": target}
        yield from ratio_rows(variants, ideal, rounds, targets, note=_note(recipe))


def whole_run(settings: dict[str, Any], steps: int = 100) -> Iterator[Case]:
    """Seconds of a run, data included, over those of its steps on a prepared view."""
    for pairing in ("plain", "ssql"):
        recipe = Recipe(**settings, pairing=pairing, epochs=1000)
        seconds = []
        for source in (_source(recipe), Ready(_source(recipe))):
            step = steps_of(recipe, source)
            step()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            torch.cuda.synchronize()
            seconds.append((time.perf_counter() - start) / steps)
        rate = recipe.batch_size / seconds[0]
        name = f"{pairing} with its data, {rate:,.0f} images/s ({_note(recipe)})"
        yield Case(name, seconds[0], "views ready", seconds[1], seconds[0] / seconds[1], 1.05)


class Ready:
    """A source that makes its views once."""

    def __init__(self, source: ViewSource) -> None:
        self.source = source
        self.labels = source.labels

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, batches: torch.Tensor, epoch: int) -> Iterator["Ready"]:
        batch = next(iter(self.source.epoch(batches, epoch)))
        self.one = batch.view()
        for _ in batches:
            yield self

    def view(self) -> torch.Tensor:
        return self.one


def steps_of(recipe: Recipe, source: ViewSource | None = None) -> Callable[[], None]:
    """Return a function that takes the trainer's next step."""
    torch.manual_seed(0)
    trainer = Trainer(recipe, source or _source(recipe), device=torch.device(recipe.device))

    def endless() -> Iterator[None]:
        while True:
            yield from trainer.train_epoch()
            trainer.record.fold()
            trainer.end_epoch()

    steps = endless()
    return lambda: next(steps)


def hand_written(recipe: Recipe) -> Callable[[], None]:
    """Return a function that takes a step of SimSiam as a plain script would."""
    torch.manual_seed(0)
    source = _source(recipe)
    network = Trainer(recipe, source, device=torch.device(recipe.device)).framework
    f, h = network.encoder, network.predictor
    optimizer = torch.optim.SGD(
        [p for p in network.parameters() if p.requires_grad],
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )

    def step() -> None:
        (batch,) = source.epoch(torch.randint(len(source), (1, recipe.batch_size)), 0)
        z1, z2 = f(batch.view()), f(batch.view())
        p1, p2 = h(z1), h(z2)
        loss = -(
            F.cosine_similarity(p1, z2.detach()).mean()
            + F.cosine_similarity(p2, z1.detach()).mean()
        )
        optimizer.zero_grad(set_to_none=True)
        (loss / 2).backward()
        optimizer.step()

    return step


def _source(recipe: Recipe) -> ViewSource:
    return view_source(
        recipe.dataset,
        recipe.split,
        size=recipe.image_size,
        augmentation=recipe.augmentation.model_dump(),
        device=recipe.device,
        seed=recipe.seed,
    )


def _note(recipe: Recipe) -> str:
    return f"{recipe.architecture}, {recipe.batch_size} x {recipe.image_size} px, {recipe.device}"
