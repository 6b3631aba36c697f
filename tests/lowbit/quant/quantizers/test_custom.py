"""A user's own quantizer: one file, named in YAML."""

import textwrap

import pytest
import torch
import yaml

from lowbit.backbones import create_backbone
from lowbit.quant import Precision, get_policy, quantize, quantized_layers

FILE = '''
import torch
from lowbit.quant import Quantizer

class PowerOfTwo(Quantizer):
    """Round magnitudes to powers of two below the largest."""

    def observe(self, x):
        self.top = x.abs().max().log2().ceil()

    def finish(self):
        self.initialized = True

    def codes(self, x):
        levels = 2 ** (self.bits - 1)
        exponent = x.abs().clamp(min=1e-30).log2().round() - self.top + levels
        return (exponent.clamp(0, levels - 1) * x.sign()).to(torch.int8)

    def _quantize(self, x):
        codes = self.codes(x).to(x.dtype)
        y = codes.sign() * 2 ** (codes.abs() + self.top - 2 ** (self.bits - 1))
        return x + (y - x).detach()
'''

POLICY = """
base: lsq
name: powers
weight: {kind: "my_quantizer:PowerOfTwo"}
"""


def test_used_from_yaml_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_quantizer.py").write_text(textwrap.dedent(FILE))
    monkeypatch.syspath_prepend(tmp_path)
    policy = get_policy(yaml.safe_load(POLICY))
    net = quantize(create_backbone("resnet10_slim"), policy, Precision(3, 3))
    layer = quantized_layers(net)["layer1.0.conv1"]
    weights = layer.quantized_weight().detach()
    assert torch.equal(weights.abs()[weights != 0].log2() % 1, torch.zeros(weights.ne(0).sum()))
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["nowhere:X", "math:pi", "quant:Nothing"])
def test_what_cannot_be_imported_is_refused(kind):
    with pytest.raises(ValueError, match="no policy was made"):
        get_policy({"base": "lsq", "weight": {"kind": kind}})
