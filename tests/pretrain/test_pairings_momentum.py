"""SSQL and Contrastive Quant on BYOL and MoCo, written out a second time with frozen precisions."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from lowbit.backbones import create_backbone
from lowbit.pretrain import Recipe
from lowbit.pretrain.frameworks import create_framework
from lowbit.pretrain.pairings import get_pairing, total
from lowbit.pretrain.step import Step
from lowbit.quant import FP, Precision, observe, set_precision

Q, Q1, Q2 = Precision(3, 5), Precision(4, 4), Precision(7, 7)
VIEWS = torch.rand(3, 6, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double().unbind(0)


def _framework(name, pairing):
    torch.manual_seed(0)
    recipe = Recipe(
        framework=name,
        pairing=pairing,
        architecture="resnet10_slim",
        dataset="digits",
        dim=16,
        hidden_dim=8,
        queue_size=24,
        temperature=0.3,
    )
    framework = create_framework(
        recipe.framework, create_backbone("resnet10_slim"), recipe.framework_options
    )
    if recipe.quant_policy is not None:
        framework.quantize(recipe.quant_policy)
    framework = framework.double().train()
    with torch.no_grad():  # two networks that differ
        for p in framework.momentum_encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return framework


def _loss(framework, pairing, *precisions):
    left, views = list(precisions), list(VIEWS[:2])
    step = Step(
        framework,
        SimpleNamespace(view=lambda: views.pop(0), image=lambda: VIEWS[2]),
        bits=SimpleNamespace(independent=lambda: left.pop(0), shared=lambda: left.pop(0)),
    )
    pairing = get_pairing(pairing)
    terms = dict(pairing.terms(step))
    return total(torch.stack(list(terms.values())), pairing.reduction)


def _net(network, view, precision):
    set_precision(network, precision)
    return network.projector(network.backbone(view))


def _networks(framework):
    """p at a precision from the online network, and sg(z') at a precision from the target."""

    def online(view, precision):
        z = _net(framework.encoder, view, precision)
        return z if framework.predictor is None else framework.predictor(z)

    @torch.no_grad()
    def target(view, precision):
        return _net(framework.momentum_encoder, view, precision)

    return online, target


def _check(framework, loss, expected):
    torch.testing.assert_close(loss, expected)
    weight = framework.encoder.backbone.layer1[0].conv1.weight
    gradients = [torch.autograd.grad(value, weight)[0] for value in (loss, expected)]
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def _regression(p, z):
    """2 - 2 cos, row by row."""
    return torch.stack([2 - 2 * (a @ b) / (a.norm() * b.norm()) for a, b in zip(p, z)]).mean()  # noqa: B905


def test_ssql_on_byol_regresses_full_precision_targets_from_both_branches():
    framework = _framework("byol", "ssql")
    loss = _loss(framework, "ssql", Q)
    online, target = _networks(framework)
    v1, v2, _ = VIEWS
    k1, k2 = target(v1, FP), target(v2, FP)
    with observe(framework.encoder, reset=True):
        p1, p2 = online(v1, FP), online(v2, FP)
    p1q, p2q = online(v1, Q), online(v2, Q)
    quantized = (_regression(p1q, k2) + _regression(p2q, k1)) / 2
    auxiliary = (_regression(p1, k2) + _regression(p2, k1)) / 2
    assert (quantized - auxiliary).abs() > 1e-6
    _check(framework, loss, (quantized + auxiliary) / 2)


@pytest.mark.parametrize("pairing", ["cq-a", "cq-b", "cq-c", "cq-quant"])
def test_contrastive_quant_on_byol_takes_the_target_at_its_own_precision(pairing):
    """Each NCE(a, b) is 1/2 [l(h(a), sg(b')) + l(h(b), sg(a'))], b' at b's precision."""
    framework = _framework("byol", pairing)
    loss = _loss(framework, pairing, Q1, Q2)
    online, target = _networks(framework)
    v1, v2, x = VIEWS

    def nce(a, b):
        return (_regression(online(*a), target(*b)) + _regression(online(*b), target(*a))) / 2

    f1, f1_plus, f2, f2_plus = (v1, Q1), (v2, Q1), (v1, Q2), (v2, Q2)
    pairs = {
        "cq-a": [(f1, f2_plus)],
        "cq-b": [(f1, f1_plus), (f2, f2_plus)],
        "cq-c": [(f1, f1_plus), (f2, f2_plus), (f1, f2), (f1_plus, f2_plus)],
        "cq-quant": [((x, Q1), (x, Q2))],
    }[pairing]
    _check(framework, loss, sum(nce(a, b) for a, b in pairs))


def test_with_equal_precisions_cq_a_on_byol_is_byol_at_that_precision():
    framework = _framework("byol", "cq-a")
    online, target = _networks(framework)
    v1, v2, _ = VIEWS
    loss = _loss(framework, "cq-a", Q1, Q1)
    there = _regression(online(v1, Q1), target(v2, Q1))
    back = _regression(online(v2, Q1), target(v1, Q1))
    torch.testing.assert_close(loss, (there + back) / 2)


def _contrast(q, k, negatives, temperature=0.3):
    """InfoNCE of each query over its key and the rows of `negatives`, by log-sum-exp."""
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    losses = []
    for i in range(len(q)):
        positive = q[i] @ k[i] / temperature
        scores = torch.stack([positive, *(q[i] @ n / temperature for n in negatives(i, k))])
        losses.append(scores.logsumexp(0) - positive)
    return torch.stack(losses).mean()


def test_ssql_on_moco_v2_asks_twice_and_calibrates_on_the_queries_alone():
    framework = _framework("moco_v2", "ssql")
    queue = framework.queue.clone()
    loss = _loss(framework, "ssql", Q)
    online, target = _networks(framework)
    im_q, im_k, _ = VIEWS
    k = target(im_k, FP)
    with observe(framework.encoder, reset=True):
        q_f = online(im_q, FP)
    q = online(im_q, Q)
    terms = [_contrast(rows, k, lambda i, keys: queue) for rows in (q, q_f)]
    _check(framework, loss, (terms[0] + terms[1]) / 2)


def test_ssql_on_moco_v3_contrasts_with_full_precision_keys_of_the_batch():
    framework = _framework("moco_v3", "ssql")
    loss = _loss(framework, "ssql", Q)
    online, target = _networks(framework)
    v1, v2, _ = VIEWS
    k1, k2 = target(v1, FP), target(v2, FP)
    with observe(framework.encoder, reset=True):
        p1, p2 = online(v1, FP), online(v2, FP)
    p1q, p2q = online(v1, Q), online(v2, Q)

    def others(i, keys):
        return [keys[j] for j in range(len(keys)) if j != i]

    pairs = [(p1q, k2), (p2q, k1), (p1, k2), (p2, k1)]
    _check(framework, loss, sum(2 * 0.3 * _contrast(p, k, others) for p, k in pairs) / 4)


def test_batch_norms_of_byols_online_network_see_fp1_fp2_q1_q2_and_the_targets_only_fp():
    framework = _framework("byol", "ssql")
    networks = (framework.encoder, framework.momentum_encoder)
    _loss(framework, "ssql", Q)
    norms = [network.backbone.bn1 for network in networks]
    assert [int(bn.num_batches_tracked) for bn in norms] == [4, 2]
    v1, v2, _ = VIEWS
    means = []
    for view, precision in ((v1, FP), (v2, FP), (v1, Q), (v2, Q)):
        set_precision(framework.encoder, precision)
        means.append(framework.encoder.backbone.conv1(view).mean((0, 2, 3)))
    weights = (0.0729, 0.081, 0.09, 0.1)
    expected = sum(w * mean for w, mean in zip(weights, means, strict=True))
    torch.testing.assert_close(norms[0].running_mean, expected)
    conv = framework.momentum_encoder.backbone.conv1
    set_precision(framework.momentum_encoder, FP)
    fp = [conv(view).mean((0, 2, 3)) for view in (v1, v2)]
    torch.testing.assert_close(norms[1].running_mean, 0.09 * fp[0] + 0.1 * fp[1])


@pytest.mark.parametrize(("name", "pairing"), [("byol", "cq-c"), ("moco_v3", "cq-a")])
def test_no_gradient_reaches_a_target_or_the_momentum_encoder(name, pairing):
    framework = _framework(name, pairing)
    for p in framework.momentum_encoder.parameters():
        p.requires_grad_()  # even then: targets are computed without a graph
    _loss(framework, pairing, Q1, Q2).backward()
    assert all(p.grad is None for p in framework.momentum_encoder.parameters())
    assert all(p.grad is not None for p in framework.encoder.parameters() if p.requires_grad)
