"""The optimizer of a recipe: torch's own, or its transition-rate variant, over groups by role."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lowbit.quant import parameters_by_role, target_rate, transition

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def build_optimizer(
    network: nn.Module, recipe: "Recipe", *, total_steps: int, weight_bits: int | None = None
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all trainable parameters of a network.

    Quantizer scales have a group of their own, at `scale_lr`, or `scale_lr_factor` times the
    learning rate. A t-variant takes each quantized weight into a group of its own and freezes the
    scales of weights.

    Args:
        total_steps: of the training; the target rate falls over them.
        weight_bits: b_w of the target rate; needed by t-variants only.
    """
    groups = parameter_groups(network, recipe)
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, **_own_options(recipe)}
    if recipe.transition is None:
        return OPTIMIZERS[recipe.optimizer](groups, **options)
    section = recipe.transition
    return transition(OPTIMIZERS[recipe.optimizer.removesuffix("t")])(
        groups,
        model=network,
        target=target_rate(section.lambda_, weight_bits),
        total_steps=total_steps,
        schedule=section.schedule,
        final_target=section.final_target,
        milestones=[
            epoch * (total_steps // recipe.epochs) for epoch in section.decays(recipe.epochs)
        ],
        factor=section.factor,
        controller=section.controller,
        scope=section.scope,
        eta=section.eta,
        momentum_k=section.momentum,
        decay=section.decay,
        **options,
    )


def parameter_groups(network: nn.Module, recipe: "Recipe") -> list[dict[str, Any]]:
    """Return all trainable parameters, one group a role (`lowbit.quant.roles`)."""
    scale = {
        "lr": recipe.scale_lr or recipe.lr * recipe.scale_lr_factor,
        "weight_decay": recipe.scale_weight_decay,
    }
    return [
        {"params": members, "role": role, "lr": recipe.lr, **(scale if role == "scale" else {})}
        for role, members in parameters_by_role(network).items()
        if members
    ]


def _own_options(recipe: "Recipe") -> dict[str, Any]:
    """Return what only some optimizers take."""
    base = recipe.optimizer.removesuffix("t") if recipe.transition else recipe.optimizer
    if base == "sgd":
        return {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    return {"momentum": recipe.momentum} if base == "rmsprop" else {}
