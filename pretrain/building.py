"""Build the network and optimizer of a recipe."""

import torch
from torch import nn
from torch.optim import Optimizer

from lowbit.backbones import create_backbone
from lowbit.pretrain.frameworks import Framework, create_framework
from lowbit.pretrain.recipe import Recipe
from lowbit.quant import scales
from lowbit.training import distributed, optimizers
from lowbit.training.mixed_precision import MixedPrecision


def build_framework(recipe: Recipe, arithmetic: MixedPrecision) -> Framework:
    """Return a recipe's framework, quantized, on its device, identical in every process."""
    framework = create_framework(
        recipe.framework, create_backbone(recipe.architecture), recipe.framework_options
    )
    if recipe.sync_bn and distributed.size() > 1:
        framework = _synchronized(framework, arithmetic.device)
    if recipe.quant_policy is not None:
        framework.quantize(recipe.quant_policy)
        _refuse_learned_scales(recipe, framework)
    arithmetic.place(framework)
    distributed.broadcast(framework)
    return framework.train()


def build_optimizer(recipe: Recipe, framework: Framework) -> Optimizer:
    """Return the recipe's optimizer over a framework's trainable parameters.

    SGD and AdamW decay every parameter (official SSQL, MoCo v3), LARS matrices and kernels.
    """
    return optimizers.build_optimizer(
        recipe.optimizer,
        optimizers.groups_with_constant(framework, _predictor(framework, recipe)),
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        beta1=recipe.momentum,
        fused=True,
    )


def _predictor(framework: Framework, recipe: Recipe) -> nn.Module | None:
    """Return the part whose learning rate stays constant (SimSiam's option)."""
    if recipe.predictor_lr == "scheduled":
        return None
    if framework.predictor is None:
        raise ValueError(
            f"predictor_lr is 'fixed', and {recipe.framework} has no predictor; nothing was trained. "
            "Remove predictor_lr."
        )
    return framework.predictor


def _synchronized(framework: Framework, device: torch.device) -> Framework:
    if device.type != "cuda":
        raise ValueError(
            f"sync_bn needs GPUs: torch cannot synchronize batch norms on {device}; nothing was "
            "trained. Set sync_bn to false, or train with one process."
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(framework)


def _refuse_learned_scales(recipe: Recipe, framework: Framework) -> None:
    if scales(framework):
        raise ValueError(
            f"policy {recipe.quant_policy.name!r} learns its scales, and pairing "
            f"{recipe.pairing!r} draws new bits in each step; nothing was trained. Use a policy "
            "whose scales come from ranges: ssql or cq."
        )
