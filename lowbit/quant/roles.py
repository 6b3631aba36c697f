"""Sort a quantized network's parameters by role, which optimizers treat differently."""

from collections import defaultdict

from torch import nn

from lowbit.quant.convert import quantized_layers, scales
from lowbit.quant.layers import OutputScale
from lowbit.quant.quantizers.base import Quantizer

ROLES = ("other", "norm", "scale", "latent")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


def parameters_by_role(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Assign each trainable parameter of `model` to one role, in the model's order.

    `latent` are weights that are quantized, `scale` the parameters of quantizers (scales, offsets, bounds,
    output scales), `norm` the parameters of normalization layers, `other` the rest.

    Example:
        >>> from lowbit.quant import quantize
        >>> conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        >>> model = quantize(nn.Sequential(conv, norm, nn.Conv2d(4, 4, 1, bias=False)), "lsq")
        >>> {role: len(members) for role, members in parameters_by_role(model).items()}
        {'other': 2, 'norm': 2, 'scale': 2, 'latent': 1}
    """
    roles = {
        id(parameter): "norm"
        for module in model.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    roles |= {id(layer.weight): "latent" for layer in quantized_layers(model).values()}
    roles |= {id(scale): "scale" for scale in scales(model)}
    members: dict[str, list[nn.Parameter]] = {role: [] for role in ROLES}
    for parameter in model.parameters():
        if parameter.requires_grad:
            members[roles.get(id(parameter), "other")].append(parameter)
    return members


def scales_by_lr_factor(model: nn.Module) -> dict[float, list[nn.Parameter]]:
    """Group the learned parameters of quantizers by the factor of their learning rate.

    It is the quantizer's own (`Quantizer.scale_lr_factor`), so that a rate which a method's paper
    states for its scales is the default.

    Example:
        >>> from lowbit.quant import quantize
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False))
        >>> mixed = {"base": "lsq", "activation": {"kind": "Interval"}}
        >>> found = scales_by_lr_factor(quantize(model, mixed))
        >>> {factor: len(members) for factor, members in found.items()}
        {1.0: 1, 0.1: 1}
    """
    found: dict[float, list[nn.Parameter]] = defaultdict(list)
    for owner in model.modules():
        if isinstance(owner, Quantizer | OutputScale):
            found[owner.scale_lr_factor] += [p for p in owner.parameters() if p.requires_grad]
    return {factor: members for factor, members in found.items() if members}
