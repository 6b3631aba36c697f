"""The batched linear fit against nn.Linear, cross_entropy and torch.optim.SGD, one at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lowbit.training.lr_schedules import learning_rate
from lowbit.training.seeding import minibatches, stream
from lowbit.transfer.probes.sgd_probe import LinearFit, fit_linear, initial_classifier

P, N, D, C = 3, 90, 7, 4


def _problem(dtype=torch.float32, views=1):
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(P, N, D, generator=generator, dtype=dtype) for _ in range(views)]
    labels = torch.randint(C, (N,), generator=generator)
    weight, bias = initial_classifier(D, C, generator=stream(0, "classifier"))
    return features, labels, (weight.to(dtype), bias.to(dtype))


def _rate(epoch):
    return learning_rate(epoch, 6, lr=0.5, milestones=(3, 5))


def _rates(epoch):
    return [_rate(epoch)]


def _reference_loop(features, labels, initial, *, p, weight_decay, factor=1.0):
    """One plain classifier, as a textbook would train it."""
    fc = nn.Linear(D, C).to(features[0].dtype)
    with torch.no_grad():
        fc.weight.copy_(initial[0])
        fc.bias.copy_(initial[1])
    optimizer = torch.optim.SGD(fc.parameters(), lr=1.0, momentum=0.9, weight_decay=weight_decay)
    order, losses = stream(1, "order"), []
    for epoch in range(6):
        optimizer.param_groups[0]["lr"] = factor * _rate(epoch)
        batch_losses = []
        for batch in minibatches(N, 16, order):
            loss = F.cross_entropy(fc(features[epoch % len(features)][p, batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            batch_losses.append(loss.detach())
        losses.append(torch.stack(batch_losses).mean())
    return fc.weight.detach(), fc.bias.detach(), torch.stack(losses)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_batched_training_equals_a_plain_loop_for_each_precision(
    weight_decay, views, dtype, tolerance
):
    features, labels, initial = _problem(dtype, views)
    curves = []
    weight, bias = fit_linear(
        features,
        labels,
        initial,
        epochs=6,
        batch_size=16,
        learning_rates=_rates,
        momentum=0.9,
        weight_decay=weight_decay,
        generator=stream(1, "order"),
        on_epoch=lambda epoch, lr, losses: curves.append(losses),
    )
    for p in range(P):
        w, b, losses = _reference_loop(features, labels, initial, p=p, weight_decay=weight_decay)
        assert torch.allclose(weight[p, 0], w, rtol=tolerance, atol=tolerance)
        assert torch.allclose(bias[p, 0], b, rtol=tolerance, atol=tolerance)
        assert torch.allclose(torch.stack(curves)[:, p, 0], losses, rtol=tolerance, atol=tolerance)
    assert (weight[0, 0] - initial[0]).norm() > 0.1  # something was learned
    assert not torch.allclose(weight[0], weight[1], atol=1e-2)  # from each one's own features


def _reference_layerwise(features, labels, initial, *, p, optimizer, weight_decay, factor=1.0):
    """One classifier by LARS (bias plain, undecayed) or LARC (both, clipped at the rate), by formula."""
    parts = [t.clone().requires_grad_() for t in initial]
    velocity = [torch.zeros_like(t) for t in parts]
    order = stream(1, "order")
    for epoch in range(6):
        lr = factor * _rate(epoch)
        for batch in minibatches(N, 16, order):
            x = features[epoch % len(features)][p, batch]
            F.cross_entropy(F.linear(x, *parts), labels[batch]).backward()
            for place, (w, v) in enumerate(zip(parts, velocity, strict=True)):
                g, size = w.grad, w.detach().norm()
                if optimizer == "larc":
                    known = size > 0
                    u = g + weight_decay * w.detach() if known else g
                    local = 1e-3 * size / (g.norm() + weight_decay * size) if known else lr
                    ratio = min(float(local) / lr, 1.0)
                else:
                    u = g if place == 1 else g + weight_decay * w.detach()
                    ratio = 1.0 if place == 1 else 1e-3 * size / u.norm()
                v.mul_(0.9).add_(ratio * u)
                w.data -= lr * v
                w.grad = None
    return [w.detach() for w in parts]


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("optimizer", ["lars", "larc"])
def test_lars_and_larc_train_each_classifier_by_their_rule(optimizer, weight_decay):
    features, labels, initial = _problem(torch.float64, views=2)
    factors = (1.0, 20.0, 1e-4)  # with the last LARC's rate is clipped
    fitted = fit_linear(
        features,
        labels,
        initial,
        epochs=6,
        batch_size=16,
        learning_rates=lambda epoch: [factor * _rate(epoch) for factor in factors],
        momentum=0.9,
        weight_decay=weight_decay,
        optimizer=optimizer,
        generator=stream(1, "order"),
    )
    for p in range(P):
        for rate, factor in enumerate(factors):
            wanted = _reference_layerwise(
                features, labels, initial,
                p=p, optimizer=optimizer, weight_decay=weight_decay, factor=factor,
            )  # fmt: skip
            for found, w in zip(fitted, wanted, strict=True):
                torch.testing.assert_close(found[p, rate], w, rtol=1e-10, atol=1e-12)


def test_rates_train_side_by_side_as_each_would_alone():
    features, labels, initial = _problem(torch.float64, views=2)
    weight, bias = fit_linear(
        [list(view) for view in features],  # one tensor a precision, as files are mapped
        labels,
        initial,
        epochs=6,
        batch_size=16,
        learning_rates=lambda epoch: [factor * _rate(epoch) for factor in (1.0, 0.1, 4.0)],
        momentum=0.9,
        weight_decay=0.01,
        generator=stream(1, "order"),
    )
    assert weight.shape == (P, 3, C, D) and bias.shape == (P, 3, C)
    for p in range(P):
        for rate, factor in enumerate((1.0, 0.1, 4.0)):
            w, b, _ = _reference_loop(
                features, labels, initial, p=p, weight_decay=0.01, factor=factor
            )
            assert torch.allclose(weight[p, rate], w, rtol=1e-10, atol=1e-12)
            assert torch.allclose(bias[p, rate], b, rtol=1e-10, atol=1e-12)


def test_a_rate_that_diverges_ends_the_fit_only_where_none_is_left():
    features, labels, initial = _problem()
    settings = {"epochs": 6, "batch_size": 16, "momentum": 0.9, "weight_decay": 0.0}

    def fit(*rates):
        return fit_linear(
            features,
            labels,
            initial,
            learning_rates=lambda epoch: rates,
            generator=stream(1, "order"),
            **settings,
        )[0]

    assert torch.allclose(fit(0.5, 1e38)[:, 0], fit(0.5)[:, 0], atol=1e-5)
    with pytest.raises(FloatingPointError, match="linear classifier's loss"):
        fit(1e38, 2e38)


def test_first_step_by_hand():
    # Zero classifier, two classes, one image x = (1, 2) of class 0: softmax is (1/2, 1/2), so
    # dL/dW = ((-1/2) x, (+1/2) x) and dL/db = (-1/2, 1/2); the loss is log 2.
    fit = LinearFit(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2), momentum=0.9, weight_decay=0.0)
    loss = fit.step(torch.tensor([[[1.0, 2.0]]]), torch.tensor([0]), lrs=[0.1])
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)
    assert torch.allclose(fit.weight[0, 0], torch.tensor([[0.05, 0.1], [-0.05, -0.1]]))
    assert torch.allclose(fit.bias[0, 0], torch.tensor([0.05, -0.05]))


def test_the_same_call_gives_the_same_bits():
    features, labels, initial = _problem()
    settings = {
        "epochs": 6,
        "batch_size": 16,
        "learning_rates": _rates,
        "momentum": 0.9,
        "weight_decay": 0.0,
    }
    (w1, b1), (w2, b2) = (
        fit_linear(features, labels, initial, generator=stream(1, "order"), **settings)
        for _ in range(2)
    )
    assert w1.equal(w2) and b1.equal(b2)


def test_divergence_names_the_step_the_rate_and_the_remedy():
    features, labels, initial = _problem()
    bad = minibatches(N, 16, stream(1, "order"))[2][0]  # seen in the third step
    features[0][1, bad] = float("nan")
    with pytest.raises(FloatingPointError, match=r"nan at step 2 with lr 0\.5.*Lower lr"):
        fit_linear(
            features,
            labels,
            initial,
            epochs=6,
            batch_size=16,
            learning_rates=_rates,
            momentum=0.9,
            weight_decay=0.0,
            generator=stream(1, "order"),
        )
