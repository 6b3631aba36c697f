"""Every family of networks that can be named is computed at the bits it is told at, or is refused."""

import re
from collections.abc import Callable
from functools import cache, partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from lowbit.backbones import create_backbone, list_backbones
from lowbit.quant import calibrate, quantize, quantized_layers, set_precision
from lowbit.quant.asked import require_asked

pytestmark = pytest.mark.slow

_SMALL = (
    "test",
    "atto",
    "femto",
    "zepto",
    "pico",
    "nano",
    "xxt",
    "tiny",
    "micro",
    "mini",
    "xxs",
    "xs",
)
_SMALL += ("xsmall", "small", "s", "n", "t", "lite", "050", "035", "002", "s0", "b0", "m0", "0")

# Auxiliary classifiers, which only training uses: refused until a rule leaves them out.
AUXILIARY = {"googlenet": "*aux*", "inception_v3": "*AuxLogits*"}

# Networks too large for a test: two blocks of them.
SHALLOW = {"deepseek_vit", "gemma4_vit", "vision_transformer_sam"}


def smallest(module: str) -> str:
    """Return the network of one of timm's files that is smallest by its name."""

    def order(name: str) -> tuple[int, int, str]:
        words = re.split(r"[_.]|(?<=[a-z])(?=\d)", name)
        ranks = [_SMALL.index(word) for word in words if word in _SMALL]
        return min(ranks, default=len(_SMALL)), len(name), name

    return min(timm.list_models(module=module), key=order)


@cache
def torchvision_smallest() -> list[str]:
    """Return a small classification network of each of torchvision's files."""
    found: dict[str, str] = {}
    names = torchvision.models.list_models(module=torchvision.models)
    sizes = {n: torchvision.models.get_model_weights(n).DEFAULT.meta["num_params"] for n in names}
    for name in sorted(names, key=sizes.__getitem__):
        found.setdefault(torchvision.models.get_model_builder(name).__module__, name)
    return sorted({*found.values(), "swin_t", "swin_v2_t"})


def compute_at_the_bits_told(
    build: Callable[[], nn.Module], size: int, rules: dict[str, str] | None = None
) -> None:
    torch.manual_seed(0)
    net = build().eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.numel() and p.abs().max() < 0.01:  # layer scales and heads that start at zero
                p.normal_(0, 0.1)
    quantize(net, {"base": "lsq", "rules": rules or {}})
    images = torch.randn(1, 3, size, size)
    calibrate(net, [images])  # refuses by name what was passed by
    with torch.no_grad():
        full = net(images)
        set_precision(net, "4w4a")
        with require_asked(net):
            low = net(images)
        assert not torch.equal(low, full)
        layers = quantized_layers(net)
        for layer in layers.values():  # a latent weight used anywhere would show
            layer.weight.copy_(layer.w_quant(layer.weight))
        torch.testing.assert_close(net(images), low, rtol=1e-3, atol=1e-3 * float(low.std()))
        for layer in layers.values():  # and so do the quantized ones
            layer.w_quant.q_scale.mul_(1.5)
        assert not torch.allclose(net(images), low, rtol=1e-3, atol=1e-3 * float(low.std()))


@pytest.mark.parametrize("module", timm.list_modules())
def test_timm(module):
    name = smallest(module)
    config = timm.get_pretrained_cfg(name)
    fixed = config.fixed_input_size or config.min_input_size
    size = config.input_size[-1] if fixed else 96
    if module in SHALLOW:
        build = partial(timm.create_model, name, num_classes=0, depth=2)
    else:
        build = partial(create_backbone, name)
    compute_at_the_bits_told(build, size)


@pytest.mark.parametrize("name", list_backbones())
def test_own(name):
    size = 224 if name.startswith("vit") else 32
    compute_at_the_bits_told(partial(create_backbone, name), size)


@pytest.mark.parametrize("name", torchvision_smallest())
def test_torchvision(name):
    build = partial(torchvision.models.get_model, name, weights=None)
    if name in AUXILIARY:
        with pytest.raises(ValueError, match=r"passed by \((aux1|AuxLogits)"):
            compute_at_the_bits_told(build, 224)
        compute_at_the_bits_told(build, 224, {AUXILIARY[name]: "fp"})
    else:
        compute_at_the_bits_told(build, 224)
