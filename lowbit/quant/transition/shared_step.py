"""One step of any linear optimizer for all layers, of which each layer keeps its share.

A step that is linear in the learning rate goes U/B as far at rate U as at rate B and leaves the same
state. So all layers step together at one rate B that no U exceeds, and each keeps the share U/B of its
step: one foreach or fused step for any number of layers, and no rate the host has to wait for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, optim

from lowbit.quant.transition.codes import Codes, Piece, flat


def shared_step(optimizer: optim.Optimizer, codes: Codes, rate: Tensor) -> None:
    """Step every layer at its group's rate B; then keep the share U/B of the step."""
    weights = [layer.weight.detach() for layer in codes.layers]
    with _ceilings_as_rates(optimizer):
        starts = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(starts, weights)
        optimizer.base_step()
    groups = optimizer._latent_groups()
    rates = rate.split([len(group["params"]) for group in groups])
    share = torch.cat([u / group["ceiling"] for u, group in zip(rates, groups, strict=True)])
    if codes.kernels() is not None:
        _blend(codes, weights, starts, share.float())
        return
    back = (1 - share).to(weights[0].dtype).unbind()

    def move(pieces: list[Piece]) -> None:
        torch._foreach_lerp_(
            [piece.of(weights) for piece in pieces],
            [piece.of(starts) for piece in pieces],
            [back[piece.layer] for piece in pieces],
        )

    codes.advance(move)


@contextmanager
def _ceilings_as_rates(optimizer: optim.Optimizer) -> Iterator[None]:
    """Give latent groups the rate B within the block; restore what a scheduler set afterwards."""
    groups = optimizer._latent_groups()
    kept = [{key: group.get(key) for key in ("lr", "weight_decay")} for group in groups]
    for group in groups:
        if optimizer.decay == "base" and group.get("decoupled_weight_decay"):
            shrink = 1 - float(group["lr"]) * group["weight_decay"]
            stepped = [weight for weight in group["params"] if weight.grad is not None]
            if stepped:
                torch._foreach_mul_(stepped, shrink)
            group["weight_decay"] = 0.0
        group["lr"] = group["ceiling"]
    try:
        yield
    finally:
        for group, values in zip(groups, kept, strict=True):
            group.update({key: value for key, value in values.items() if key in group})


def _blend(codes: Codes, weights: list[Tensor], starts: list[Tensor], share: Tensor) -> None:
    """Keep each layer's share of its step, and count its transitions, in one pass over its weights."""
    blend, inverses, buffers = (
        codes.kernels().blend_transition_step,
        codes.inverses(),
        codes.buffers(),
    )
    codes.settle(
        [
            blend(
                flat(weight),
                flat(start),
                *buffers[i],
                share[i : i + 1],
                inverses[i],
                levels=codes.bounds[i],
            )
            for i, (weight, start) in enumerate(zip(weights, starts, strict=True))
        ]
    )
