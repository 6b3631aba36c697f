"""The pairings against the papers' equations, written out a second time with frozen precisions."""

import gc
from unittest.mock import Mock
from weakref import ref

import pytest
import torch
from torch import nn

from lowbit.backbones import create_backbone
from lowbit.pretrain import Recipe
from lowbit.pretrain.frameworks import FRAMEWORKS, create_framework
from lowbit.pretrain.frameworks.losses import nt_xent
from lowbit.pretrain.pairings import PAIRINGS, get_pairing, total
from lowbit.pretrain.step import Bits, Step
from lowbit.quant import (
    FP,
    MinMax,
    Precision,
    observe,
    quantized_layers,
    reuse_weights,
    set_precision,
)

CQ = ("cq-a", "cq-b", "cq-c", "cq-quant")


class _Fixed:
    """Stand in for `Bits`: hand out the given precisions one after another."""

    def __init__(self, *precisions):
        self._left = list(precisions)

    def independent(self):
        return self._left.pop(0)

    shared = independent


def _framework(name, pairing="plain", *, policy=None, double=False):
    torch.manual_seed(0)
    recipe = Recipe(
        framework=name,
        pairing=pairing,
        policy=policy,
        architecture="resnet10_slim",
        dataset="digits",
        dim=16,
        hidden_dim=8,
        queue_size=24,
    )
    framework = create_framework(
        recipe.framework, create_backbone("resnet10_slim"), recipe.framework_options
    )
    if recipe.quant_policy is not None:
        framework.quantize(recipe.quant_policy)
    return (framework.double() if double else framework).train()


def _views(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 8, 3, 32, 32, generator=generator).to(dtype).unbind(0)


def _step(framework, *precisions, dtype=torch.float32):
    """A step whose views are v1 and v2, and whose image is x, whatever the images."""
    v1, v2, x = _views(dtype)
    batch = Mock(view=Mock(side_effect=[v1, v2]), image=Mock(return_value=x))
    return Step(framework, batch, bits=_Fixed(*precisions))


def _passes(network):
    """Note what passes of a network embed: each view and the precision it was set to, in order."""
    made = []

    def note(module, args):
        layers = quantized_layers(module)
        conv = layers.get("backbone.layer1.0.conv1")
        bits = conv.w_quant.bits if conv and conv.w_quant.active else "FP"
        for images in args[0].float().split(len(_views()[0])):
            view = ["v1", "v2", "x"][next(i for i, v in enumerate(_views()) if v.equal(images))]
            made.append(f"{view} {bits}")

    network.register_forward_pre_hook(note)
    return made


def _loss(framework, pairing, *precisions, dtype=torch.float32, reduction=None):
    pairing = get_pairing(pairing)
    terms = dict(pairing.terms(_step(framework, *precisions, dtype=dtype)))
    return total(torch.stack(list(terms.values())), reduction or pairing.reduction)


def _z(framework, view, precision):
    """Embed outside of `Step`."""
    set_precision(framework.encoder, precision)
    return framework.encoder.projector(framework.encoder.backbone(view))


def _d(p, z):
    """D(p, z) = -mean_i cos(p_i, z_i), without autograd's knowledge of z."""
    z = z.detach()
    return -((p * z).sum(1) / (p.norm(dim=1) * z.norm(dim=1))).mean()


Q, Q1, Q2 = Precision(3, 5), Precision(4, 4), Precision(7, 7)


def test_plain_simsiam_is_its_equation():
    framework = _framework("simsiam", double=True)
    loss = _loss(framework, "plain", dtype=torch.float64)
    v1, v2, _ = _views(torch.float64)
    z1, z2 = _z(framework, v1, FP), _z(framework, v2, FP)
    h = framework.predictor
    torch.testing.assert_close(loss, (_d(h(z1), z2) + _d(h(z2), z1)) / 2)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ssql_is_the_mean_of_both_losses_with_ranges_of_the_same_step(reduction):
    """L_q = (D(p1q, z2) + D(p2q, z1))/2 and L_aux = (D(p1, z2) + D(p2, z1))/2, in float64."""
    framework = _framework("simsiam", "ssql", double=True)
    loss = _loss(framework, "ssql", Q, dtype=torch.float64, reduction=reduction)
    gradient = torch.autograd.grad(loss, framework.encoder.backbone.conv1.weight)[0]
    v1, v2, _ = _views(torch.float64)
    h = framework.predictor
    with observe(framework.encoder, reset=True):
        z1, z2 = _z(framework, v1, FP), _z(framework, v2, FP)
    z1q, z2q = _z(framework, v1, Q), _z(framework, v2, Q)
    quantized = (_d(h(z1q), z2) + _d(h(z2q), z1)) / 2
    auxiliary = (_d(h(z1), z2) + _d(h(z2), z1)) / 2
    expected = (quantized + auxiliary) / (2 if reduction == "mean" else 1)
    torch.testing.assert_close(loss, expected)
    other = torch.autograd.grad(expected, framework.encoder.backbone.conv1.weight)[0]
    torch.testing.assert_close(gradient, other)
    assert (quantized - auxiliary).abs() > 1e-6  # the two differ, or nothing was quantized


@pytest.mark.parametrize("name", ["simsiam", "byol", "moco_v2", "moco_v3"])
def test_ssql_equals_the_plain_framework_where_quantization_is_the_identity(name, monkeypatch):
    """Value and gradient, with quantizers that return what they are given."""
    monkeypatch.setattr(MinMax, "_quantize", lambda self, x: x)
    framework = _framework(name, "ssql", double=True)
    weight = framework.encoder.backbone.conv1.weight
    passes = _passes(framework.encoder)
    losses = [
        _loss(framework, "ssql", Q, dtype=torch.float64),
        _loss(framework, "plain", dtype=torch.float64),
    ]
    assert "v1 3" in passes  # the quantized branch was there
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_activation_ranges_come_from_this_step_alone():
    """A range left behind by an earlier step must not survive the next one."""
    framework = _framework("simsiam", "ssql", double=True)
    fresh = _loss(framework, "ssql", Q, dtype=torch.float64)
    with torch.no_grad(), observe(framework.encoder, reset=True):
        framework.encoder(1000 * _views(torch.float64)[2])
    torch.testing.assert_close(_loss(framework, "ssql", Q, dtype=torch.float64), fresh)


@pytest.mark.parametrize("name", ["simsiam", "simclr"])
def test_no_gradient_reaches_the_targets_of_ssql(name):
    """The quantized term's gradient with respect to z1 and z2 is not there at all."""
    framework = _framework(name, "ssql")
    step = _step(framework, Q)
    quantized = dict(get_pairing("ssql").terms(step))["v1,q -> v2,FP and back"]
    z1, z2, z1q, z2q = (embedding.z for embedding in step.embeddings)
    reached = torch.autograd.grad(quantized, [z1, z2, z1q, z2q], allow_unused=True)
    assert reached[0] is None and reached[1] is None
    assert all(gradient.abs().max() > 0 for gradient in reached[2:])


def test_no_gradient_reaches_the_targets_of_simsiam():
    framework = _framework("simsiam")
    v1, v2, _ = _views()
    online, target = framework.embed(v1, FP), framework.embed(v2, FP)
    reached = torch.autograd.grad(framework.compare(online, target), target.z, allow_unused=True)
    assert reached == (None,)


def _reference_cq(framework, pairing, q1, q2):
    """Eqs. 4, 7 and 8, and Sec. 4.4's CQ-Quant, on SimCLR."""

    def nce(a, b):
        return nt_xent(a, b, temperature=0.5)

    v1, v2, x = _views(torch.float64)
    f1, f1_plus = _z(framework, v1, q1), _z(framework, v2, q1)
    f2, f2_plus = _z(framework, v1, q2), _z(framework, v2, q2)
    if pairing == "cq-a":
        return nce(f1, f2_plus)
    if pairing == "cq-quant":
        return nce(_z(framework, x, q1), _z(framework, x, q2))
    loss = nce(f1, f1_plus) + nce(f2, f2_plus)
    if pairing == "cq-c":
        loss = loss + nce(f1, f2) + nce(f1_plus, f2_plus)
    return loss


@pytest.mark.parametrize("pairing", CQ)
def test_contrastive_quant_is_its_equation(pairing):
    framework = _framework("simclr", pairing, double=True)
    loss = _loss(framework, pairing, Q1, Q2, dtype=torch.float64)
    torch.testing.assert_close(loss, _reference_cq(framework, pairing, Q1, Q2))


def test_with_equal_precisions_cq_a_is_simclr_and_cq_b_twice_that():
    framework = _framework("simclr", "cq-a", double=True)
    v1, v2, _ = _views(torch.float64)
    simclr = nt_xent(_z(framework, v1, Q1), _z(framework, v2, Q1), temperature=0.5)
    torch.testing.assert_close(_loss(framework, "cq-a", Q1, Q1, dtype=torch.float64), simclr)
    torch.testing.assert_close(_loss(framework, "cq-b", Q1, Q1, dtype=torch.float64), 2 * simclr)


def test_pairs_of_equal_precision_still_push_negatives_apart():
    framework = _framework("simclr", "cq-c")
    terms = dict(get_pairing("cq-c").terms(_step(framework, Q1, Q1)))
    assert terms["v1,q1 - v1,q2"] > 0 and terms["v2,q1 - v2,q2"] > 0


def test_the_loss_approaches_simclrs_as_bits_grow():
    framework = _framework("simclr", "cq-a", double=True)
    simclr = _loss(framework, "plain", dtype=torch.float64)
    errors = []
    for bits in (4, 8, 16):
        q = Precision(bits, bits)
        errors.append(abs((_loss(framework, "cq-a", q, q, dtype=torch.float64) - simclr).item()))
    assert errors[2] < 1e-3 and errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("name", ["simsiam", "simclr"])
@pytest.mark.parametrize(
    ("pairing", "precisions", "expected"),
    [
        ("plain", (), ["v1 FP", "v2 FP"]),
        ("ssql", (Q,), ["v1 FP", "v2 FP", "v1 3", "v2 3"]),
        ("cq-a", (Q1, Q2), ["v1 4", "v2 7"]),
        ("cq-b", (Q1, Q2), ["v1 4", "v2 4", "v1 7", "v2 7"]),
        ("cq-c", (Q1, Q2), ["v1 4", "v2 4", "v1 7", "v2 7"]),
        ("cq-c", (Q1, Q1), ["v1 4", "v2 4"]),
        ("cq-quant", (Q1, Q2), ["x 4", "x 7"]),
    ],
)
def test_each_view_and_precision_is_embedded_once_in_order(name, pairing, precisions, expected):
    framework = _framework(name, pairing)
    passes = _passes(framework.encoder)
    dict(get_pairing(pairing).terms(_step(framework, *precisions)))
    assert passes == expected


# What the online and the momentum encoder compute; a target at the precision it is compared at.
ONLINE_AND_KEYS = {
    ("byol", "plain"): ("v1 FP, v2 FP", "v1 FP, v2 FP"),
    ("byol", "ssql"): ("v1 FP, v2 FP, v1 3, v2 3", "v1 FP, v2 FP"),
    ("byol", "cq-a"): ("v1 3, v2 4", "v2 4, v1 3"),
    ("byol", "cq-c"): ("v1 3, v2 3, v1 4, v2 4", "v1 3, v2 3, v1 4, v2 4"),
    ("byol", "cq-quant"): ("x 3, x 4", "x 4, x 3"),
    ("moco_v3", "ssql"): ("v1 FP, v2 FP, v1 3, v2 3", "v1 FP, v2 FP"),
    ("moco_v2", "plain"): ("v1 FP", "v2 FP"),
    ("moco_v2", "ssql"): ("v1 FP, v1 3", "v2 FP"),
    ("moco_v2", "cq-a"): ("v1 3", "v2 4"),
    ("moco_v2", "cq-b"): ("v1 3, v1 4", "v2 3, v2 4"),
    ("moco_v2", "cq-c"): ("v1 3, v1 4, v2 3", "v2 3, v2 4, v1 4"),
    ("moco_v2", "cq-quant"): ("x 3", "x 4"),
}


@pytest.mark.parametrize(("name", "pairing"), list(ONLINE_AND_KEYS))
def test_momentum_frameworks_compute_what_they_compare_and_nothing_else(name, pairing):
    framework = _framework(name, pairing)
    passes = [_passes(network) for network in (framework.encoder, framework.momentum_encoder)]
    dict(get_pairing(pairing).terms(_step(framework, Q, Q1)))
    assert tuple(", ".join(made) for made in passes) == ONLINE_AND_KEYS[name, pairing]


@pytest.mark.parametrize(("pairing", "calls"), [("ssql", 1), ("cq-a", 2), ("cq-c", 2)])
def test_each_weight_is_quantized_once_a_precision_with_the_same_gradient(pairing, calls):
    framework = _framework("simsiam", pairing, double=True)
    weight = framework.encoder.backbone.layer1[0].conv1.weight
    counted = []
    layer = quantized_layers(framework.encoder)["backbone.layer1.0.conv1"]
    layer.w_quant.register_forward_hook(lambda *_: counted.append(1))
    expected = torch.autograd.grad(_loss(framework, pairing, Q1, Q2, dtype=torch.float64), weight)[
        0
    ]
    counted.clear()
    with reuse_weights(framework.encoder):
        loss = _loss(framework, pairing, Q1, Q2, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(gradient, expected)
    assert len(counted) == calls


def test_batch_norms_see_fp1_fp2_q1_q2_in_this_order():
    """Running means after an SSQL step, from four EMA updates of momentum 0.1 (official SSQL)."""
    framework = _framework("simsiam", "ssql")
    bn = next(m for m in framework.encoder.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    batch_means = []

    def note(_, args):
        views = args[0].detach().split(len(_views()[0]))
        batch_means.extend(view.mean((0, 2, 3)) for view in views)

    bn.register_forward_pre_hook(note)
    dict(get_pairing("ssql").terms(_step(framework, Precision(2, 4))))
    assert int(bn.num_batches_tracked) == 4 and len(batch_means) == 4
    weights = (0.0729, 0.081, 0.09, 0.1)
    expected = sum(w * mean for w, mean in zip(weights, batch_means, strict=True))
    torch.testing.assert_close(bn.running_mean, expected)
    v1, v2, _ = _views()
    conv = framework.encoder.backbone.conv1
    set_precision(framework.encoder, FP)
    torch.testing.assert_close(batch_means[0], conv(v1).mean((0, 2, 3)))
    torch.testing.assert_close(batch_means[1], conv(v2).mean((0, 2, 3)))
    # The stem has 8-bit weights in the quantized passes: close to FP's, but not the same.
    assert not torch.equal(batch_means[2], batch_means[0])
    torch.testing.assert_close(batch_means[2], batch_means[0], atol=0.02, rtol=0.1)


@pytest.mark.parametrize("name", [name for name, _ in FRAMEWORKS])
@pytest.mark.parametrize("pairing", list(PAIRINGS))
def test_every_pairing_trains_every_framework(name, pairing):
    framework = _framework(name, pairing)
    framework.begin_step(0.5)
    loss = _loss(framework, pairing, Q1, Q2)
    assert loss.isfinite()
    loss.backward()
    framework.end_step()
    trained = {n: p.grad for n, p in framework.named_parameters() if p.requires_grad}
    assert not [n for n, gradient in trained.items() if gradient is None]
    assert all(gradient.isfinite().all() for gradient in trained.values())


def _bits(seed=0, **ranges):
    bounds = {"weight": (2, 8), "activation": (4, 8), "shared": (6, 16), **ranges}
    return Bits(torch.Generator().manual_seed(seed), **bounds)


def test_ssql_draws_uniform_independent_bits():
    """Every value of {2..8} x {4..8} within five standard deviations of 1/35."""
    bits, n = _bits(), 7000
    drawn = [bits.independent() for _ in range(n)]
    table = torch.zeros(9, 9)
    for precision in drawn:
        table[precision.weight_bits, precision.activation_bits] += 1
    assert table[:2].sum() == 0 and table[:, :4].sum() == 0
    cells = table[2:, 4:]
    expected = n / 35
    assert ((cells - expected).abs() < 5 * expected**0.5).all()


def test_contrastive_quant_draws_one_q_for_both_with_replacement():
    bits, n = _bits(), 5500
    drawn = [(bits.shared(), bits.shared()) for _ in range(n)]
    assert all(q.weight_bits == q.activation_bits for pair in drawn for q in pair)
    counts = torch.tensor([q1.weight_bits for q1, _ in drawn]).bincount(minlength=17)
    assert counts[:6].sum() == 0
    assert ((counts[6:] - n / 11).abs() < 5 * (n / 11) ** 0.5).all()
    equal = sum(q1 == q2 for q1, q2 in drawn) / n
    assert abs(equal - 1 / 11) < 0.02


def test_draws_follow_the_seed():
    first, again, other = (_bits(seed) for seed in (3, 3, 4))
    rows = [[str(bits.independent()) for _ in range(20)] for bits in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]


def test_an_unknown_pairing_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no pairing 'cq_c'.*Did you mean 'cq-c'"):
        get_pairing("cq_c")


@pytest.mark.parametrize("pairing", ["plain", "ssql", "cq-c"])
def test_a_steps_tensors_are_freed_with_it(pairing):
    """Not when Python next looks for cycles: a few steps' activations would fill a GPU until then."""
    gc.collect()
    gc.disable()
    try:
        step = _step(_framework("simclr", pairing), Precision(4, 4), Precision(5, 5))
        terms = get_pairing(pairing).terms(step)
        loss = torch.stack([each for _, each in terms]).sum()
        loss.backward()
        embeddings = [ref(each) for each in step.embeddings]
        del step, terms, loss
        assert embeddings and not any(each() for each in embeddings)
    finally:
        gc.enable()
