"""SimSiam's D and SimCLR's NT-Xent against their closed forms, and the published heads."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lowbit.pretrain import Recipe
from lowbit.pretrain.frameworks import FRAMEWORKS, FrameworkOptions, create_framework
from lowbit.pretrain.frameworks.losses import nt_xent
from lowbit.quant import FP, Precision, get_policy, quantize, quantized_layers, set_precision


class _Features(nn.Module):
    """A backbone small enough to reason about: one convolution, pooled."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.act2 = nn.ReLU()

    def forward(self, x):
        return self.act2(self.conv2(self.act1(self.conv1(x)))).mean((2, 3))


@pytest.mark.parametrize("name", [name for name, _ in FRAMEWORKS])
def test_a_framework_takes_a_step_without_a_recipe(name):
    framework = create_framework(name, _Features(), FrameworkOptions(dim=8, queue_size=6)).train()
    framework.begin_step(0.0)
    a, b = (framework.embed(torch.rand(4, 3, 9, 9), FP) for _ in range(2))
    framework.both_ways(a, b).backward()
    framework.end_step()
    assert a.z.shape == (4, 8)
    assert framework.backbone.conv1.weight.grad.abs().sum() > 0


def test_a_recipe_hands_its_fields_to_the_framework():
    fields = {
        "dim": 8,
        "hidden_dim": 4,
        "projector_layers": 2,
        "projector_norm": "all",
        "temperature": 0.3,
        "ema": 0.0,
        "ema_schedule": "cosine",
        "queue_size": 6,
    }
    base = {"framework": "moco_v2", "architecture": "resnet20", "dataset": "digits"}
    assert Recipe(**base).framework_options == FrameworkOptions()
    assert Recipe(**base, **fields).framework_options == FrameworkOptions(**fields)


def _framework(name, **options):
    return create_framework(name, _Features(), FrameworkOptions(**options))


def _reference_nt_xent(a, b, temperature):
    """Sum over the 2N anchors, each with its positive and 2N - 2 negatives, written out."""
    features = [row / row.norm() for row in torch.cat([a, b]).double()]
    n = len(a)
    total = 0.0
    for i, anchor in enumerate(features):
        positive = (i + n) % (2 * n)
        negatives = [k for k in range(2 * n) if k not in (i, positive)]
        assert len(negatives) == 2 * n - 2
        similarity = [float(anchor @ other) / temperature for other in features]
        log_sum = math.log(sum(math.exp(similarity[k]) for k in (positive, *negatives)))
        total += log_sum - similarity[positive]
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_is_the_sum_over_all_negatives(temperature):
    a, b = torch.randn(5, 8), torch.randn(5, 8)
    ours = float(nt_xent(a, b, temperature=temperature))
    assert ours == pytest.approx(_reference_nt_xent(a, b, temperature), rel=1e-5)


def test_nt_xent_is_symmetric():
    a, b = torch.randn(7, 8, dtype=torch.float64), torch.randn(7, 8, dtype=torch.float64)
    forward, backward = nt_xent(a, b, temperature=0.5), nt_xent(b, a, temperature=0.5)
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("n", [2, 16])
def test_nt_xent_of_orthogonal_features_with_themselves(n):
    """Closed form: each anchor has one positive at 1/t and 2N - 2 negatives at 0."""
    f = torch.eye(n)
    expected = math.log(math.exp(1 / 0.5) + 2 * n - 2) - 1 / 0.5
    assert float(nt_xent(f, f, temperature=0.5)) == pytest.approx(expected, rel=1e-6)
    assert expected > 0


def test_negative_similarities_still_count():
    """A clamp at 0 would make these two losses equal and the gradient at `b` vanish."""
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    orthogonal = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    apart, aside = (nt_xent(a, b, temperature=0.5) for b in (opposite, orthogonal))
    assert apart < aside
    b = torch.tensor([[-0.6, 0.8], [0.6, 0.8]], requires_grad=True)  # positives point away
    nt_xent(a, b, temperature=0.5).backward()
    assert b.grad.abs().max() > 0.1


def test_simsiams_loss_is_the_negative_cosine_and_stops_at_the_target():
    framework = _framework("simsiam", dim=8, hidden_dim=4)
    p, z = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    online, target = SimpleNamespace(p=p), framework.embed(torch.empty(0), FP)
    target.z = z
    loss = framework.compare(online, target)
    expected = -sum((x @ y) / (x.norm() * y.norm()) for x, y in zip(p, z, strict=True)) / 5
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert p.grad is not None and z.grad is None


def test_simsiams_heads_are_the_published_ones():
    framework = _framework("simsiam", dim=8, hidden_dim=4)
    first, bn1, _, second, bn2, _, last, bn3 = framework.encoder.projector
    assert (first.in_features, first.out_features, second.out_features) == (6, 8, 8)
    assert first.bias is None and second.bias is None
    assert last.bias is not None and not last.bias.requires_grad
    assert bn1.affine and bn2.affine and not bn3.affine
    hidden, bn, _, out = framework.predictor
    assert (hidden.out_features, out.out_features) == (4, 8)
    assert hidden.bias is None and out.bias is not None and bn.affine


@pytest.mark.parametrize(("dim", "width"), [(4, 6), (16, 16)])
def test_simsiams_projector_is_as_wide_as_the_wider_end(dim, width):
    projector = _framework("simsiam", dim=dim, hidden_dim=4).encoder.projector
    assert projector[0].out_features == projector[3].out_features == width


def test_widths_are_the_published_ones_when_not_given():
    assert _framework("simsiam").predictor[0].in_features == 2048
    assert _framework("simsiam").predictor[0].out_features == 2048
    linears = [m for m in _framework("simclr").encoder.projector if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(6, 6)] * 3


def test_simclrs_head_is_three_layers_with_norms_and_relu_between():
    head = _framework("simclr", dim=5, hidden_dim=7).encoder.projector
    kinds = [type(m).__name__ for m in head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert head[-1].num_features == 5


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"framework": "simclr", "projector_layers": 2, "projector_norm": "none"}, "L R L"),
        ({"framework": "simclr", "projector_layers": 2, "projector_norm": "hidden"}, "L B R L"),
        ({"framework": "byol"}, "L B R L B R L"),
        ({"framework": "byol", "projector_norm": "all"}, "L B R L B R L B"),
        ({"framework": "moco_v2"}, "L R L"),
        ({"framework": "moco_v3"}, "L B R L B"),
    ],
)
def test_projectors_normalize_where_they_are_published_to(fields, expected):
    head = _framework(fields.pop("framework"), dim=5, hidden_dim=7, **fields).encoder.projector
    assert " ".join(type(m).__name__[0] for m in head) == expected
    linears = [m for m in head if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linears] == [7] * (len(linears) - 1) + [5]
    for linear, after in zip(head, [*head[1:], None], strict=True):
        if isinstance(linear, nn.Linear):  # a bias where no batch norm follows
            assert (linear.bias is None) == isinstance(after, nn.BatchNorm1d)


@pytest.mark.parametrize(
    ("name", "dim", "hidden"),
    [("byol", 512, 2048), ("moco_v2", 256, 2048), ("moco_v3", 256, 4096)],
)
def test_widths_of_the_momentum_frameworks_are_the_published_ones(name, dim, hidden):
    framework = _framework(name)
    assert framework.encoder.projector[0].out_features == hidden
    last = [m for m in framework.encoder.projector if isinstance(m, nn.Linear)][-1]
    assert last.out_features == dim
    if name == "moco_v2":
        assert framework.predictor is None and framework.queue.shape == (4096, dim)
    else:
        first, *_ = framework.predictor
        assert (first.in_features, first.out_features) == (dim, hidden)
        assert framework.predictor[3].out_features == dim and len(framework.predictor) == 4


@pytest.mark.parametrize("policy", ["ssql", "cq", {"base": "ssql", "rules": {}}])
def test_no_policy_quantizes_the_predictor(policy):
    framework = _framework("simsiam", dim=8, hidden_dim=4)
    quantize(framework.encoder, policy)
    assert not quantized_layers(framework.predictor)
    framework.predictor.eval()
    z = torch.randn(9, 8)
    before = framework.predictor(z)
    framework.embed(torch.rand(4, 3, 9, 9), Precision(2, 4))
    assert torch.equal(framework.predictor(z), before)


def test_ssqls_projector_has_8_bit_weights_and_no_quantized_activation():
    framework = _framework("simsiam", dim=8, hidden_dim=4)
    quantize(framework.encoder, "ssql", Precision(3, 4))
    layers = quantized_layers(framework.encoder)
    bits = {name: layer.w_quant.bits for name, layer in layers.items()}
    assert bits == {
        "backbone.conv1": 8,
        "backbone.conv2": 3,
        "projector.0": 8,
        "projector.3": 8,
        "projector.6": 8,
    }
    assert not any(hasattr(m, "a_quant") and m.a_quant for m in framework.encoder.projector)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("byol", {"0", "3", "6"}), ("moco_v2", {"0", "2"}), ("moco_v3", {"0", "3"})],
)
def test_ssqls_heads_have_8_bit_weights_in_both_networks_of_a_framework(name, expected):
    framework = _framework(name, dim=8, hidden_dim=4)
    framework.quantize(get_policy("ssql"))
    for network in (framework.encoder, framework.momentum_encoder):
        set_precision(network, Precision(3, 4))
        layers = quantized_layers(network.projector)
        assert {place: layer.w_quant.bits for place, layer in layers.items()} == dict.fromkeys(
            expected, 8
        )
    assert framework.predictor is None or not quantized_layers(framework.predictor)


@pytest.mark.parametrize("name", ["byol", "moco_v2", "moco_v3"])
def test_contrastive_quant_leaves_heads_in_full_precision(name):
    framework = _framework(name, dim=8, hidden_dim=4)
    framework.quantize(get_policy("cq"))
    for network in (framework.encoder, framework.momentum_encoder):
        assert list(quantized_layers(network)) == ["backbone.conv2"]


def test_embedding_at_full_precision_is_the_unquantized_networks():
    framework = _framework("simsiam", dim=8, hidden_dim=4)
    x = torch.rand(6, 3, 9, 9)
    before = framework.embed(x, FP)
    quantize(framework.encoder, "cq")
    framework.embed(x, Precision(4, 4))
    after = framework.embed(x, FP)
    assert torch.equal(before.z, after.z) and torch.equal(before.p, after.p)


def test_an_unknown_framework_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no framework 'simsam'.*Did you mean 'simsiam'"):
        _framework("simsam")
