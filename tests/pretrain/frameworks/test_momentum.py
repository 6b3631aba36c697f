"""BYOL, MoCo v2 and MoCo v3: moving averages, queues and losses against what is written by hand."""

import io
import math
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from lowbit.pretrain import Recipe
from lowbit.pretrain.frameworks import FrameworkOptions, create_framework
from lowbit.pretrain.frameworks.losses import info_nce
from lowbit.pretrain.frameworks.momentum import ema_at
from lowbit.quant import FP, Precision, get_policy, observe

MOMENTUM = ("byol", "moco_v2", "moco_v3")


class _Features(nn.Module):
    """A convolution, a batch norm and an activation, pooled."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.act2 = nn.ReLU()

    def forward(self, x):
        return self.act2(self.conv2(self.act1(self.bn1(self.conv1(x))))).mean((2, 3))


def _framework(name, policy=None, **options):
    options = {"dim": 8, "hidden_dim": 4, "queue_size": 10, **options}
    framework = create_framework(name, _Features(), FrameworkOptions(**options))
    if policy is not None:
        framework.quantize(get_policy(policy))
    return framework


def _pair(framework, precision=FP, n=4):
    return [framework.embed(torch.rand(n, 3, 9, 9), precision) for _ in range(2)]


def _move(framework):
    with torch.no_grad():
        for p in framework.encoder.parameters():
            p.add_(torch.randn_like(p))


@pytest.mark.parametrize("name", MOMENTUM)
def test_the_target_moves_by_the_average_of_its_formula(name):
    framework = _framework(name, policy="ssql", ema=0.9, ema_schedule="constant")
    _move(framework)
    expected = [
        0.9 * k.detach().clone() + (1 - 0.9) * q.detach()
        for q, k in zip(
            framework.encoder.parameters(), framework.momentum_encoder.parameters(), strict=True
        )
    ]
    framework.begin_step(0.3)
    for k, value in zip(framework.momentum_encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(k, value)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.9), (0.25, None), (1.0, 1.0)])
def test_the_cosine_leads_the_momentum_to_one(progress, expected):
    formula = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
    assert ema_at(progress, base=0.9, schedule="cosine") == pytest.approx(formula)
    assert expected is None or formula == pytest.approx(expected)
    assert ema_at(progress, base=0.9, schedule="constant") == 0.9
    framework = _framework("moco_v3", ema=0.9)
    weight = framework.momentum_encoder.backbone.conv1.weight
    before = weight.clone()
    _move(framework)
    framework.begin_step(progress)
    moved = framework.encoder.backbone.conv1.weight - before
    torch.testing.assert_close(weight - before, (1 - formula) * moved, atol=1e-6, rtol=1e-5)


def test_statistics_of_norms_and_ranges_of_quantizers_are_the_momentum_encoders_own():
    framework = _framework("byol", policy="cq", ema=0.5)
    a, _ = _pair(framework, Precision(4, 4))
    assert a.z.requires_grad  # the online network alone has seen the view
    online, ours = framework.encoder.backbone, framework.momentum_encoder.backbone
    assert int(online.bn1.num_batches_tracked) == 1 and int(ours.bn1.num_batches_tracked) == 0
    assert online.conv2.a_quant.initialized and not ours.conv2.a_quant.initialized
    framework.begin_step(0.5)
    assert torch.equal(ours.bn1.running_mean, torch.zeros(4))
    assert not ours.conv2.a_quant.initialized and online.conv2.a_quant.initialized
    _ = a.k
    assert int(ours.bn1.num_batches_tracked) == 1 and ours.conv2.a_quant.initialized


@pytest.mark.parametrize("name", MOMENTUM)
def test_the_momentum_encoder_starts_equal_trains_as_train_and_gets_no_gradient(name):
    framework = _framework(name, policy="cq").train()
    a, b = _pair(framework, Precision(4, 4))
    _same(framework.encoder, framework.momentum_encoder)
    assert framework.momentum_encoder.training
    framework.begin_step(0.0)
    framework.both_ways(a, b).backward()
    framework.end_step()
    for p in framework.momentum_encoder.parameters():
        assert not p.requires_grad and p.grad is None
    assert not a.k.requires_grad
    trained = [n for n, p in framework.named_parameters() if p.requires_grad and p.grad is None]
    assert not trained


def _same(online, ours):
    for q, k in zip(online.state_dict().values(), ours.state_dict().values(), strict=True):
        torch.testing.assert_close(q, k)


def test_the_target_runs_at_the_precision_of_its_embedding_and_stores_full_weights():
    framework = _framework("byol", policy="cq")
    framework.eval()
    view = torch.rand(4, 3, 9, 9)
    with torch.no_grad(), observe(framework.momentum_encoder):
        framework.embed(view, FP).k  # noqa: B018
    weight = framework.momentum_encoder.backbone.conv2.weight.clone()
    keys = {bits: framework.embed(view, Precision(bits, bits)).k for bits in (3, 4, 16)}
    full = framework.embed(view, FP).k
    errors = {bits: float((k - full).norm()) for bits, k in keys.items()}
    assert 0 < errors[16] < 1e-3 < errors[3]
    assert not torch.equal(keys[3], keys[4])
    assert torch.equal(framework.momentum_encoder.backbone.conv2.weight, weight)


def test_byol_regresses_unit_vectors():
    """2 - 2 cos is the squared distance of the normalized vectors, and the target is stopped."""
    framework = _framework("byol")
    a, b = _pair(framework)
    loss = framework.compare(a, b)
    distance = F.normalize(a.p, dim=1) - F.normalize(b.k, dim=1)
    torch.testing.assert_close(loss, distance.square().sum(1).mean())
    same = SimpleNamespace(p=b.k, k=b.k)
    assert framework.compare(same, same).abs() < 1e-6
    with torch.no_grad():
        k = framework.momentum_encoder(b.view)
    torch.testing.assert_close(b.k, k)


def test_byols_both_ways_are_averaged():
    framework = _framework("byol")
    a, b = _pair(framework)
    expected = (framework.compare(a, b) + framework.compare(b, a)) / 2
    torch.testing.assert_close(framework.both_ways(a, b), expected)


def _reference_info_nce(q, positives, negatives, temperature):
    """-log softmax of the positive among itself and the negatives, query by query."""
    total = 0.0
    for i in range(len(q)):
        row = q[i] / q[i].norm()
        scores = [float(row @ positives[i])] + [float(row @ other) for other in negatives(i)]
        exponents = [math.exp(s / temperature) for s in scores]
        total -= math.log(exponents[0] / sum(exponents))
    return total / len(q)


def test_mocos_loss_is_infonce_over_its_queue():
    framework = _framework("moco_v2", temperature=0.3)
    a, b = _pair(framework)
    torch.testing.assert_close(b.k.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(framework.queue.norm(dim=1), torch.ones(10))
    expected = _reference_info_nce(a.z.detach(), b.k, lambda i: framework.queue, 0.3)
    assert framework.compare(a, b).item() == pytest.approx(expected, rel=1e-5)
    assert framework.both_ways(a, b).item() == pytest.approx(expected, rel=1e-5)  # one way only
    assert "z" not in vars(b) and "k" not in vars(a)  # what is not compared is not computed


def test_mocos_queue_wraps_and_forgets_the_oldest():
    framework = _framework("moco_v2")  # ten places
    rows = framework.queue.clone()
    pointer = 0
    for n in (4, 4, 4, 3):
        framework.begin_step(0.0)
        _, b = _pair(framework, n=n)
        keys = b.k
        torch.testing.assert_close(framework.queue, rows)  # not before the step is over
        framework.end_step()
        for key in keys:
            rows[pointer % 10] = key
            pointer += 1
        torch.testing.assert_close(framework.queue, rows)
        assert int(framework.queue_ptr) == pointer % 10


def test_the_keys_of_all_micro_batches_enter_the_queue_once():
    framework = _framework("moco_v2")
    framework.begin_step(0.0)
    embeddings = [_pair(framework, n=2)[1] for _ in range(3)]
    for _ in range(2):  # asked for twice, as by a pairing that compares with it twice
        keys = torch.cat([embedding.k for embedding in embeddings])
    framework.end_step()
    torch.testing.assert_close(framework.queue[:6], keys)
    assert int(framework.queue_ptr) == 6


def test_of_more_keys_than_places_the_last_stay():
    framework = _framework("moco_v2", queue_size=3)
    framework.begin_step(0.0)
    _, b = _pair(framework, n=8)
    keys = b.k[-3:]
    framework.end_step()
    torch.testing.assert_close(framework.queue, keys)


def test_keys_of_a_step_given_up_do_not_enter_the_queue():
    framework = _framework("moco_v2")
    _ = _pair(framework)[1].k
    framework.begin_step(0.0)
    kept = _pair(framework, n=2)[1].k
    framework.end_step()
    assert int(framework.queue_ptr) == 2
    torch.testing.assert_close(framework.queue[:2], kept)


def test_moco_v3_contrasts_within_the_batch():
    framework = _framework("moco_v3", temperature=0.3)
    a, b = _pair(framework)
    keys = F.normalize(b.k, dim=1)
    others = {i: [keys[j] for j in range(4) if j != i] for i in range(4)}
    expected = _reference_info_nce(a.p.detach(), keys, others.__getitem__, 0.3)
    assert framework.compare(a, b).item() == pytest.approx(2 * 0.3 * expected, rel=1e-5)
    assert info_nce(a.p, b.k, temperature=0.3).item() == pytest.approx(expected, rel=1e-5)
    both = (framework.compare(a, b) + framework.compare(b, a)) / 2
    torch.testing.assert_close(framework.both_ways(a, b), both)


@pytest.mark.parametrize("name", MOMENTUM)
def test_a_framework_is_all_in_its_state(name):
    """A copy by its state dict goes on to the same bits."""
    first, second = (_framework(name, policy="cq") for _ in range(2))

    def step(framework, seed):
        torch.manual_seed(seed)
        optimizer = torch.optim.SGD([p for p in framework.parameters() if p.requires_grad], lr=0.1)
        optimizer.zero_grad()
        framework.begin_step(0.1)
        a, b = _pair(framework, Precision(4, 4))
        loss = framework.both_ways(a, b)
        loss.backward()
        optimizer.step()
        framework.end_step()
        return loss.detach()

    step(first, 1)
    step(first, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    losses = [step(framework, 3) for framework in (first, second)]
    assert torch.equal(*losses)
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"framework": "byol", "ema": 1.5}, "less than or equal to 1"),
        ({"framework": "byol", "ema_schedule": "linear"}, "'constant' or 'cosine'"),
        ({"framework": "moco_v2", "queue_size": 0}, "greater than or equal to 1"),
        ({"framework": "moco"}, "Did you mean 'moco_v"),
        ({"projector_layers": 2}, "always the published one; nothing was trained. Remove"),
    ],
)
def test_what_a_framework_cannot_be_is_refused(fields, expected):
    with pytest.raises(ValidationError, match=expected):
        Recipe(architecture="resnet20", dataset="digits", **fields)


@pytest.mark.parametrize(
    ("framework", "pairing", "method"),
    [
        ("byol", "plain", "BYOL"),
        ("byol", "ssql", "BYOL+SSQL"),
        ("byol", "cq-c", "BYOL+CQ-C"),
        ("moco_v2", "ssql", "MoCov2+SSQL"),
        ("moco_v3", "plain", "MoCov3"),
    ],
)
def test_methods_are_named_as_the_tables_name_them(framework, pairing, method):
    recipe = Recipe(architecture="resnet20", dataset="digits", framework=framework, pairing=pairing)
    assert recipe.method == method
