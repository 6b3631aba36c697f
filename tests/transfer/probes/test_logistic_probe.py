"""Logistic regression to its optimum: against scikit-learn's, and what convexity promises."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from lowbit.transfer.probes.lbfgs import Evaluation, minimize
from lowbit.transfer.probes.logistic_probe import GAP, Axes, fit_logistic, tolerance_of
from lowbit.transfer.probes.sgd_probe import classify

N, D, C = 900, 24, 7


def _problem(seed=0, n=N, scale=1.0):
    """Features as a network gives them: correlated, off-centre, of very different variances."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (n,), generator=generator)
    means = torch.randn(C, D, generator=generator)
    x = torch.randn(n, D, generator=generator) + 0.7 * means[labels]
    mix = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    x = (x * torch.logspace(0, -2, D)) @ mix + 3
    return scale * x, labels


def _scaled(x):
    """What `Axes` says it does to features, but for the rotation, in double precision."""
    centred = x.double() - x.double().mean(dim=0)
    return centred / centred.square().mean().sqrt()


def _reference(x, y, strength):
    """scikit-learn's optimum: accuracy on x and objective, as a mean."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must have converged
        model = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=20_000)
        model.fit(x.numpy(), y.numpy())
    weight, bias = torch.tensor(model.coef_), torch.tensor(model.intercept_)
    loss = F.cross_entropy(x @ weight.T + bias, y) + strength / 2 * weight.square().sum()
    return model.score(x.numpy(), y.numpy()), loss.item()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_optimum_is_scikit_learns_for_every_strength(scale):
    x, y = _problem(scale=scale)
    strengths = torch.tensor([1e-4, 1e-2, 1.0])
    fit = fit_logistic(Axes.of(x), y, C, strengths)
    assert (fit.gradient_norm <= tolerance_of(strengths)).all()
    rms = (x - x.mean(dim=0)).square().mean().sqrt()
    for place, strength in enumerate(strengths.tolist()):
        score, loss = _reference(_scaled(x), y, strength)
        assert fit.loss[place].item() == pytest.approx(loss, abs=1e-4)
        found = classify(x.double(), fit.weight[place], fit.bias[place])
        assert (found == y).double().mean().item() == pytest.approx(score, abs=1.5e-3)
        # The classifier for features as they came has the loss it says.
        mean_loss = F.cross_entropy(x.double() @ fit.weight[place].T + fit.bias[place], y)
        penalty = strength / 2 * (fit.weight[place] * rms).square().sum()
        assert (mean_loss + penalty).item() == pytest.approx(fit.loss[place].item(), abs=1e-6)


def test_batched_problems_are_those_solved_alone_and_start_nowhere_special():
    x, y = _problem()
    axes = Axes.of(x)
    together = fit_logistic(axes, y, C, torch.tensor([1e-3, 1e-1]))
    for place, strength in enumerate((1e-3, 1e-1)):
        alone = fit_logistic(axes, y, C, torch.tensor([strength]))
        assert together.loss[place].item() == pytest.approx(alone.loss.item(), abs=1e-5)
        assert torch.allclose(together.weight[place], alone.weight[0], atol=1e-2)


def test_fewer_images_than_features_are_no_worse():
    x, y = _problem(n=15)
    axes = Axes.of(x)
    assert axes.x.shape == (15, 14 + 1)  # 15 centred points span 14 axes
    fit = fit_logistic(axes, y, C, torch.tensor([1e-3]))
    _, loss = _reference(_scaled(x), y, 1e-3)
    # scikit-learn has no class without an image; here such a class only gets less likely.
    assert fit.loss.item() == pytest.approx(loss, abs=GAP + 5e-3)


def test_no_regularization_path_crosses_and_the_loss_is_bounded_by_chance():
    x, y = _problem()
    fit = fit_logistic(Axes.of(x), y, C, torch.tensor([1e2, 1e-1, 1e-6]))
    norms = fit.weight.flatten(1).norm(dim=1)
    assert norms[0] < norms[1] < norms[2]
    assert math.log(C) > fit.loss[0] > fit.loss[1] > fit.loss[2] > 0


def test_a_backbone_that_tells_nothing_apart_is_refused():
    with pytest.raises(FloatingPointError, match="no classifier was fitted"):
        Axes.of(torch.ones(5, 3))


def test_lbfgs_finds_the_minima_of_quadratics_of_many_shapes_at_once():
    # f_b(x) = x' A_b x / 2 - c_b' x has its minimum at A_b^{-1} c_b.
    rng = np.random.default_rng(0)
    A, c = [], []
    for condition in (1, 1e2, 1e4):
        q, _ = np.linalg.qr(rng.standard_normal((12, 12)))
        A.append(q @ np.diag(np.geomspace(1, condition, 12)) @ q.T)
        c.append(rng.standard_normal(12))
    A, c = torch.tensor(np.array(A)), torch.tensor(np.array(c))

    def evaluate(problems, x):
        Ax = torch.einsum("bij,bj->bi", A[problems], x)
        value = (x * (Ax / 2 - c[problems])).sum(dim=1)
        return Evaluation(value, Ax - c[problems], torch.ones_like(x))

    start = torch.zeros(3, 12, dtype=torch.float64)
    found = minimize(evaluate, start, tolerance=torch.full((3,), 1e-8))
    assert torch.allclose(found.point, torch.linalg.solve(A, c), atol=1e-7)
    assert (found.gradient_norm <= 1e-8).all()
    assert found.evaluations[0] < found.evaluations[2]  # each stops when it is done


def test_lbfgs_accepts_a_point_whose_value_rose_by_rounding_alone():
    def evaluate(problems, x):
        value = 1 + x.square() / 2 + 1.3e-7 * (x.abs() < 5e-4)  # (1, 1)
        return Evaluation(value[:, 0], x, torch.ones_like(x))

    def evaluations(rounding):
        start, tolerance = torch.full((1, 1), 5e-4, dtype=torch.float64), torch.tensor([1e-9])
        return int(minimize(evaluate, start, tolerance=tolerance, rounding=rounding).evaluations)

    assert evaluations(1e-8) == 2  # Newton's step
    assert evaluations(1e-10) > 5  # shortened in vain
