"""The optimizer of a transfer recipe, over all trainable parameters of a network."""

from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from lowbit.quant import target_rate
from lowbit.training import optimizers
from lowbit.training.oscillation_control import control_oscillation

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def build_optimizer(
    network: nn.Module, recipe: "Recipe", *, total_steps: int, weight_bits: int | None = None
) -> Optimizer:
    """Return the recipe's optimizer.

    Quantizer scales have a separate group, at `scale_lr`, or `scale_lr_factor` times the learning rate;
    if neither is set, the quantizer's own factor applies. A t-variant puts each quantized weight into a
    separate group and freezes the scales of weights. What controls oscillation is attached.

    Args:
        total_steps: of the training; the target rate decays over them.
        weight_bits: b_w of the target rate; needed by t-variants only.
    """
    scale_lr = recipe.scale_lr
    if scale_lr is None and recipe.scale_lr_factor is not None:
        scale_lr = recipe.lr * recipe.scale_lr_factor
    scale = optimizers.scale_settings(scale_lr, recipe.scale_weight_decay)
    rates = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    schedule = None
    if recipe.transition is not None:
        section = recipe.transition
        steps = total_steps // recipe.epochs
        natural = section.lambda_ == "natural"
        schedule = {
            "model": network,
            "target": None if natural else target_rate(section.lambda_, weight_bits),
            "total_steps": total_steps,
            "schedule": section.schedule,
            "final_target": section.final_target,
            "milestones": [epoch * steps for epoch in section.decays(recipe.epochs)],
            "factor": section.factor,
            "controller": section.controller,
            "scope": section.scope,
            "eta": section.eta,
            "momentum_k": section.momentum,
            "highest": section.highest,
            "decay": section.decay,
        }
    optimizer = optimizers.build_optimizer(
        recipe.optimizer,
        optimizers.parameter_groups(network, **rates, scale=scale),
        **rates,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        schedule=schedule,
    )
    if recipe.oscillation is not None:
        control_oscillation(optimizer, network, recipe.oscillation, total_steps=total_steps)
    return optimizer
