"""SGDT's step: decay, momentum, update, codes and count in one pass over the weights.

SGD's step is so cheap that taking it at one rate and keeping a share of it (see
`lowbit.quant.transition.shared_step`) would cost half as much again. Here it is one kernel per layer, or
on a CPU a few operations on pieces that stay in the cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn, optim

from lowbit.quant.kernels import torch_compiled
from lowbit.quant.transition.codes import Codes, Piece, flat


def applies_to(optimizer: optim.Optimizer, codes: Codes, *, in_one_kernel: bool = False) -> bool:
    """Whether `optimizer` is plain SGD with momentum, on weights that can be split."""
    if optimizer._base is not optim.SGD:
        return False
    special = ("nesterov", "maximize", "dampening", "differentiable")
    groups = optimizer._latent_groups()
    if any(not group["momentum"] or any(group[key] for key in special) for group in groups):
        return False
    weights = [layer.weight for layer in codes.layers]
    if any(w.grad is None or not torch_compiled.is_compatible(w, w.grad) for w in weights):
        return False
    if any(w.dtype != torch.float32 or w.grad.dtype != torch.float32 for w in weights):
        return False
    return codes.kernels() is not None if in_one_kernel else weights[0].device.type == "cpu"


def fused_step(optimizer: optim.Optimizer, codes: Codes, rate: Tensor) -> None:
    """Step each layer's weights at its rate in one pass; everything else by the base optimizer."""
    rates, inverses, buffers = rate.float(), codes.inverses(), codes.buffers()
    step = codes.kernels().sgd_transition_step
    changed = [
        step(
            *map(flat, (weight, weight.grad, _momentum(optimizer, weight))),
            *buffers[i],
            rates[i : i + 1],
            inverses[i],
            decay=group["weight_decay"],
            momentum=group["momentum"],
            levels=codes.bounds[i],
        )
        for i, (weight, group) in enumerate(_weights(optimizer))
    ]
    with _without_gradients(codes):
        optimizer.base_step()
    codes.settle(changed)


def batched_step(optimizer: optim.Optimizer, codes: Codes, rate: Tensor) -> None:
    """Do the same with eager operations on a CPU, where reading a rate does not wait."""
    rates = rate.tolist()
    weights, groups = zip(*_weights(optimizer), strict=True)
    grads = [weight.grad for weight in weights]
    momenta = [_momentum(optimizer, weight) for weight in weights]

    def move(pieces: list[Piece]) -> None:
        for piece in pieces:
            group = groups[piece.layer]
            w, g, v = (piece.of(tensors) for tensors in (weights, grads, momenta))
            if group["weight_decay"]:
                g = g.add(w, alpha=group["weight_decay"])
            v.mul_(group["momentum"]).add_(g)
            w.add_(v, alpha=-rates[piece.layer])

    codes.advance(move)
    with _without_gradients(codes):
        optimizer.base_step()


def _weights(optimizer: optim.Optimizer) -> Iterator[tuple[nn.Parameter, dict]]:
    """Latent weights in the order of their codes, each with its group."""
    for group in optimizer._latent_groups():
        for weight in group["params"]:
            yield weight, group


def _momentum(optimizer: optim.Optimizer, weight: nn.Parameter) -> Tensor:
    state = optimizer.state[weight]
    if state.get("momentum_buffer") is None:
        state["momentum_buffer"] = torch.zeros_like(weight)
    return state["momentum_buffer"]


@contextmanager
def _without_gradients(codes: Codes) -> Iterator[None]:
    """Hide the latent weights from the base optimizer: they have already been stepped."""
    grads = [layer.weight.grad for layer in codes.layers]
    for layer in codes.layers:
        layer.weight.grad = None
    try:
        yield
    finally:
        for layer, grad in zip(codes.layers, grads, strict=True):
            layer.weight.grad = grad
