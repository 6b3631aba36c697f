"""What a layer computes on fake-quantized floats is what integers and a few factors compute.

Codes are whole numbers; with x = s_a A + o_a and w = s_w W + o_w a layer is

    y = s_a s_w (A * W) + s_a o_w (A * 1) + o_a s_w (1 * W) + o_a o_w (1 * 1),

where 1 is a tensor of ones, zero where padding is: padding is the value 0, which need not be code 0.
"""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.quant import QUANTIZERS, Precision, calibrate, quantize, quantized_layers
from lowbit.quant.adaptive import rescale_head

TOLERANCE = 1e-5  # of the output's largest magnitude; float32 sums over at most 4608 products

WEIGHTS = {
    "MinMax symmetric": ("MinMax", {"scheme": "symmetric", "range": "call"}),
    "MinMax affine": ("MinMax", {"scheme": "affine", "range": "call"}),
    "MinMax zero": ("MinMax", {"scheme": "zero_anchored", "range": "call"}),
    "MinMax min": ("MinMax", {"scheme": "min_anchored", "range": "call"}),
    "MinMax floor": ("MinMax", {"scheme": "zero_anchored", "range": "call", "rounding": "floor"}),
    "LSQ": ("LSQ", {}),
    "LSQPlus": ("LSQPlus", {}),
    "DoReFa": ("DoReFa", {}),
    "DoReFa modified": ("DoReFa", {"scheme": "modified"}),
    "DoReFa stretched": ("DoReFa", {"scheme": "stretched"}),
    "DoReFa centered": ("DoReFa", {"scheme": "centered"}),
    "ScaledDoReFa": ("ScaledDoReFa", {}),
    "Interval": ("Interval", {}),
    "EWGS": ("EWGS", {}),
    "Sign": ("Sign", {}),
    "Sign mean": ("Sign", {"magnitude": "mean"}),
}
ACTIVATIONS = {
    "MinMax affine": ("MinMax", {}),
    "MinMax mse": ("MinMax", {"observer": "mse"}),
    "MinMax min": ("MinMax", {"scheme": "min_anchored"}),
    "MinMax running": ("MinMax", {"scheme": "zero_anchored", "range": "running"}),
    "LSQ": ("LSQ", {}),
    "LSQPlus": ("LSQPlus", {}),
    "PACT": ("PACT", {}),
    "DoReFa": ("DoReFa", {}),
    "Interval": ("Interval", {}),
    "EWGS": ("EWGS", {}),
    "Sign": ("Sign", {}),
}
LAYERS = {
    "padded": lambda: nn.Conv2d(8, 6, 3, padding=1, bias=False),
    "strided": lambda: nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2),
    "grouped": lambda: nn.Conv2d(8, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False),
    "linear": lambda: nn.Linear(8, 6),
}


def _apply(layer, a, w):
    """The layer's geometry on float64 tensors that hold whole numbers: exact below 2^53."""
    if isinstance(layer, nn.Linear):
        return F.linear(a, w)
    return F.conv2d(a, w, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _accumulate(layer, a, w):
    """Integer accumulation; asserts that it is one, and that 32 bits hold it."""
    total = _apply(layer, a, w)
    assert torch.equal(total, total.round())
    # no partial sum, in whatever order, is larger than so many products of the largest magnitudes
    assert a.abs().max() * w.abs().max() * w[0].numel() < 2**31
    return total


@torch.no_grad()
def _reference_integer_layer(layer, x):
    """The layer's output from integer codes: accumulate, then scale (see the file's docstring).

    Terms whose offset is zero are left out.
    """

    def per_output(value):  # one number, or one for each output channel
        value = torch.as_tensor(value).double().reshape(-1)
        return value if isinstance(layer, nn.Linear) else value.reshape(-1, 1, 1)

    a_codes, w_codes = layer.a_quant.codes(x), layer.w_quant.codes(layer.weight)
    assert not a_codes.is_floating_point() and not w_codes.is_floating_point()
    a, w = a_codes.double(), w_codes.double()
    a_step, a_offset = map(per_output, layer.a_quant.grid(x))
    w_step, w_offset = map(per_output, layer.w_quant.grid(layer.weight))
    ones_a, ones_w = torch.ones_like(a[:1]), torch.ones_like(w)
    y = a_step * w_step * _accumulate(layer, a, w)
    if w_offset.any():
        y = y + a_step * w_offset * _accumulate(layer, a, ones_w)
    if a_offset.any():
        y = y + a_offset * w_step * _accumulate(layer, ones_a, w)
    if a_offset.any() and w_offset.any():
        y = y + a_offset * w_offset * _accumulate(layer, ones_a, ones_w)
    if layer.out_scale is not None:
        y = y * per_output(layer.out_scale.q_scale)
    return y if layer.bias is None else y + per_output(layer.bias)


def _deviation(actual, expected):
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


def _layer(name, weight, activation, *, granularity="tensor", precision, positive):
    policy = {
        "base": "lsq",
        "weight": {
            "kind": WEIGHTS[weight][0],
            "granularity": granularity,
            "options": WEIGHTS[weight][1],
        },
        "activation": {
            "kind": ACTIVATIONS[activation][0],
            "options": ACTIVATIONS[activation][1],
        },
        "first": "target",
    }
    layer = LAYERS[name]()
    x = torch.randn(2, 9, 8) if name == "linear" else torch.randn(2, 8, 9, 9)
    x = x.relu() if positive else x
    net = quantize(nn.Sequential(layer), policy, precision)
    calibrate(net, [x])
    return layer, x, net.eval()


def test_every_quantizer_is_here():
    own = {name for name, cls in QUANTIZERS.items() if cls.__module__.startswith("lowbit.quant.")}
    assert {kind for kind, _ in [*WEIGHTS.values(), *ACTIVATIONS.values()]} == own


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_layers_compute_what_integers_compute(weight, activation, half):
    """By default each layer has each granularity with one precision, and with the other in the next pair."""
    pair = [*WEIGHTS].index(weight) + [*ACTIVATIONS].index(activation)
    for i, name in enumerate(LAYERS):
        for j, granularity in enumerate(("tensor", "channel")):
            precision, positive = (
                (Precision(8, 8), True),
                (Precision(3, 5), False),
            )[(pair + i + j + half) % 2]
            layer, x, net = _layer(
                name,
                weight,
                activation,
                granularity=granularity,
                precision=precision,
                positive=positive,
            )
            deviation = _deviation(net(x), _reference_integer_layer(layer, x))
            assert deviation < TOLERANCE, (name, granularity, precision)


@pytest.mark.parametrize("bits", [8, 2])
@torch.no_grad()
def test_a_rescaled_head_is_integers_times_a_number_its_codes_give(bits):
    """std(w_q) is the step times the deviation of the codes: a stored head needs nothing else."""
    layer, x, net = _layer(
        "linear", "DoReFa modified", "PACT", precision=Precision(bits, bits), positive=True
    )
    plain = _reference_integer_layer(layer, x) - (0 if layer.bias is None else layer.bias)
    assert rescale_head(nn.ModuleDict({"fc": layer}))
    step, _ = layer.w_quant.grid(layer.weight)
    deviation = step.double() * layer.w_quant.codes(layer.weight).double().std()
    expected = plain / (deviation * layer.out_features**0.5)
    expected = expected + (0 if layer.bias is None else layer.bias)
    assert _deviation(net(x), expected) < TOLERANCE


@pytest.mark.parametrize("activation", ["MinMax affine", "MinMax min", "LSQPlus"])
def test_padding_is_the_value_zero_and_not_code_zero(activation):
    """Signed data, so code 0 is the smallest value: padding with it is another layer."""
    layer, x, net = _layer("padded", "LSQ", activation, precision=Precision(4, 4), positive=False)
    wrong = F.pad(x, (1, 1, 1, 1), value=x.min().item())
    layer.padding = (0, 0)
    wrong = _reference_integer_layer(layer, wrong)
    layer.padding = (1, 1)
    assert _deviation(net(x), _reference_integer_layer(layer, x)) < TOLERANCE
    assert _deviation(net(x), wrong) > 0.1


@pytest.mark.parametrize("precision", ["8w8a", "4w4a"])
@pytest.mark.parametrize("policy", ["lsq", {"base": "lsq", "first": 8, "last": 8}], ids=str)
@pytest.mark.parametrize("name", ["resnet18_cifar", "mobilenetv2_cifar", "vit_small"])
def test_every_layer_of_a_network_computes_what_integers_compute(name, policy, precision):
    """Layer by layer on the layer's own input: an error of one code would not wash out."""
    size = 32 if name == "vit_small" else 16
    if name == "vit_small":
        net = timm.create_model("vit_small_patch16_224", img_size=size, depth=4, num_classes=10)
    else:
        net = create_backbone(name)
    images = torch.randn(2, 3, size, size)
    quantize(net, policy, Precision.parse(precision))
    calibrate(net, [images])
    deviations = {}

    def compare(path):
        def hook(layer, args, output):
            deviations[path] = _deviation(output, _reference_integer_layer(layer, *args))

        return hook

    for path, layer in quantized_layers(net).items():
        layer.register_forward_hook(compare(path))
    with torch.no_grad():
        net.eval()(images)
    assert len(deviations) == len(quantized_layers(net)) > 15
    assert {path: d for path, d in deviations.items() if not d < TOLERANCE} == {}
