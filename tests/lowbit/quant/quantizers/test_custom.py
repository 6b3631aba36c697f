"""A quantizer of one's own: one file, and everything else asks it what it needs to know."""

import textwrap
from types import SimpleNamespace

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn

from lowbit import detection, pretrain
from lowbit.backbones import create_backbone
from lowbit.detection.detector.quantize import quantize_detector
from lowbit.quant import (
    QUANTIZERS,
    Precision,
    Quantizer,
    calibrate,
    get_policy,
    latent_statistics,
    quantize,
    quantized_layers,
    register,
    t_variant,
)
from lowbit.quant.quantizers import LearnedScale, LinearCodes

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


@pytest.mark.parametrize("kind", ["nowhere:X", "math:pi", "lowbit.quant:Nothing"])
def test_what_cannot_be_imported_is_refused(kind):
    with pytest.raises(ValueError, match="no policy was made"):
        get_policy({"base": "lsq", "weight": {"kind": kind}})


class Steps(LearnedScale):
    """Multiples of a step that starts at a quarter of the mean magnitude; known to nobody else."""

    def levels(self):
        half = 2 ** (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def _statistics(self, x):
        return x.abs().sum(-1 if self.channels else None).unsqueeze(0)

    def _initial_scale(self, mean):
        return mean[0] / 4

    def codes(self, x):
        return (x * (1 / self.scale)).clamp(*self.levels()).round().to(torch.int32)

    def _quantize(self, x):
        y = (x / self.scale).clamp(*self.levels())
        return (y + (y.round() - y).detach()) * self.scale


class LinearSteps(Steps):
    """The same, which says that its codes may be computed without asking."""

    def linear_codes(self):
        return LinearCodes(*self.levels())


class MovingSteps(Steps):
    moves_with_weights = True


class FixedSteps(Steps):
    ranges_need_full_precision = True


class PositiveSteps(Steps):
    positive_only = True


@pytest.fixture(autouse=True)
def registered():
    for cls in (Steps, LinearSteps, MovingSteps, FixedSteps, PositiveSteps):
        register(cls)
    yield
    for cls in (Steps, LinearSteps, MovingSteps, FixedSteps, PositiveSteps):
        del QUANTIZERS[cls.__name__]


def policy_of(weight, activation="LSQ"):
    return {
        "base": "lsq",
        "name": "steps",
        "weight": {"kind": weight},
        "activation": {"kind": activation},
    }


def trained(kind):
    """A network after a few steps of SGDT, and the optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40))
    quantize(net, {**policy_of(kind, kind), "last": "target"}, Precision(3, 3))
    calibrate(net, [torch.randn(32, 8)])
    optimizer = t_variant(torch.optim.SGD)(
        net.parameters(), model=net, lr=0.05, momentum=0.9, target=0.1, total_steps=20
    )
    for _ in range(8):
        optimizer.zero_grad()
        net(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return net, optimizer


@pytest.mark.parametrize("kind", ["Steps", "LinearSteps"])
def test_a_new_quantizer_is_trained_at_a_transition_rate(kind):
    net, optimizer = trained(kind)
    before = [layer.w_quant.codes(layer.weight) for layer in quantized_layers(net).values()]
    net(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
    after = [layer.w_quant.codes(layer.weight) for layer in quantized_layers(net).values()]
    changed = [(a != b).float().mean().item() for a, b in zip(before, after, strict=True)]
    assert optimizer.rates()["rate"] == pytest.approx(changed) and max(changed) > 0


def test_codes_computed_without_asking_are_those_of_the_quantizer():
    (asked, slow), (computed, fast) = trained("Steps"), trained("LinearSteps")
    assert slow._codes.kernels() is None and slow.rates()["rate"] == fast.rates()["rate"]
    for a, b in zip(asked.parameters(), computed.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_latent_statistics_follow_levels_and_grid():
    net, _ = trained("Steps")
    found = latent_statistics(net)
    assert list(found) == ["0", "2"] and found["0"]["range"] == [-4.5, 3.5]
    layer = quantized_layers(net)["0"]
    x = layer.weight.detach() / layer.w_quant.scale
    points = torch.arange(-3.5, 3)
    nearest = (x.flatten()[:, None] - points).abs().amin(1)
    assert found["0"]["mean_distance"] == pytest.approx(nearest.mean().item(), rel=1e-4)


def test_where_a_quantizer_names_no_levels_there_are_no_latent_statistics(monkeypatch):
    monkeypatch.setattr(Steps, "levels", Quantizer.levels)
    net = quantize(nn.Sequential(nn.Linear(4, 4)), policy_of("Steps"), Precision(3, 3))
    assert latent_statistics(net) == {}


def test_a_detection_recipe_asks_whether_transition_points_move():
    fields = {"method": "sgdt", "precision": "4w4a"}
    detection.Recipe(**fields, policy=policy_of("Steps"))
    with pytest.raises(ValidationError, match="its transition points move"):
        detection.Recipe(**fields, policy=policy_of("MovingSteps"))


def test_a_pretraining_recipe_asks_whether_ranges_need_full_precision():
    fields = {
        "architecture": "resnet10_slim",
        "dataset": "digits",
        "framework": "simclr",
        "pairing": "cq-a",
    }
    pretrain.Recipe(**fields, policy=policy_of("Steps", "Steps"))
    with pytest.raises(ValidationError, match="ranges from full-precision passes"):
        pretrain.Recipe(**fields, policy=policy_of("Steps", "FixedSteps"))


def test_options_that_are_not_the_quantizers_are_refused_by_name():
    policy = policy_of("Steps") | {"weight": {"kind": "Steps", "options": {"size": 3}}}
    with pytest.raises(ValueError, match=r"Steps cannot be made.*size.*nothing was quantized"):
        quantize(nn.Sequential(nn.Linear(4, 4)), policy)
    with pytest.raises(ValidationError, match="Steps cannot be made"):
        detection.Recipe(method="sgdt", precision="4w4a", policy=policy)


@pytest.mark.parametrize(("kind", "warned"), [("Steps", False), ("PositiveSteps", True)])
def test_a_detector_warns_of_values_below_zero(kind, warned, caplog):
    detector = nn.Module()
    detector.transform = lambda batch: (SimpleNamespace(tensors=torch.stack(batch)), None)
    detector.backbone = nn.Sequential()
    detector.backbone.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    batches = [[torch.randn(3, 8, 8)]]
    with caplog.at_level("WARNING"):
        quantize_detector(
            detector, get_policy(policy_of("Steps", kind)), Precision(4, 4), batches=batches
        )
    assert ("get negative values" in caplog.text) == warned
