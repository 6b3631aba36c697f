"""Policies whose networks compute on integers alone."""

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.quant import QuantPolicy, calibrate, dequantize, get_policy, quantize, set_precision
from lowbit.quant.layers import ActivationQuantized, WeightQuantized
from lowbit.quant.quantizers.minmax import MinMax

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def with_grids(net):
    return {n for n, m in net.named_modules() if isinstance(m, ActivationQuantized)}


@pytest.mark.parametrize("policy", ["ssql-int8", "lsq-int8"])
def test_every_convolution_and_addition_reads_codes(policy):
    net = quantize(create_backbone("resnet20"), policy, "4w4a").eval()
    calibrate(net, [IMAGES])
    levels = {}  # of each tensor that a layer or an addition reads

    def note(name):
        def hook(module, args, output=None):
            levels[name] = (args[0] if output is None else output).unique().numel()

        return hook

    for name, module in net.named_modules():
        if isinstance(module, WeightQuantized):
            module.a_quant and module.a_quant.register_forward_hook(
                lambda _, __, output, name=name: note(name)(None, (output,))
            )
        elif isinstance(module, ActivationQuantized):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        net(IMAGES)
    ends = {f"layer{i}.{j}.bn2" for i in (1, 2, 3) for j in (0, 1, 2)}
    assert ends <= set(levels) and "conv1" in levels
    assert max(levels.values()) <= 256
    assert max(levels[name] for name in ends) > 16  # 8 bits there, whatever the precision


def test_nothing_changes_in_full_precision_and_all_can_be_undone():
    net = create_backbone("resnet18").eval()
    with torch.no_grad():
        before = net(IMAGES)
        quantize(net, "lsq-int8", "8w8a")
        calibrate(net, [IMAGES])
        assert not torch.equal(net(IMAGES), before)
        set_precision(net, "FP")
        assert torch.equal(net(IMAGES), before)
        assert torch.equal(dequantize(net)(IMAGES), before)
    assert not [m for m in net.modules() if isinstance(m, MinMax)]


def test_an_activation_inside_a_norm_is_quantized_once():
    net = quantize(create_backbone("mobilenetv2"), "ssql-int8", "4w4a")
    found = with_grids(net)
    assert "bn1.act" in found and "bn1" not in found
    assert {
        "blocks.0.0.bn2",
        "blocks.2.1",
    } <= found  # a bottleneck's end; a sum that is added again


def test_a_transformer_is_refused_unchanged():
    net = create_backbone("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="cannot compute on integers alone"):
        quantize(net, "ssql-int8", "8w8a")
    assert not [m for m in net.modules() if isinstance(m, WeightQuantized)]


def test_the_field_changes_no_other_fingerprint():
    plain = get_policy("ssql")
    assert get_policy("ssql-int8").fingerprint != plain.fingerprint
    assert get_policy({"base": "ssql", "integer_only": False}).fingerprint == plain.fingerprint
    data = plain.to_dict()
    del data["integer_only"]
    assert QuantPolicy(**{**plain.__dict__}).fingerprint == get_policy(data).fingerprint


def test_a_first_layer_in_full_precision_contradicts_it():
    with pytest.raises(ValueError, match="`first` does; no policy was made"):
        get_policy({"base": "lsq", "integer_only": True})
    with pytest.raises(ValueError, match="not true or false"):
        get_policy({"base": "ssql", "integer_only": "yes"})


def test_shared_modules_get_one_grid():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x):
            for _ in range(2):
                x = self.act(self.norm(self.conv(x)) + x)
            return x

    assert with_grids(quantize(Twice(), "ssql-int8", "8w8a")) == {"norm", "act"}
