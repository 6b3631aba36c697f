"""L-BFGS on many smooth convex problems at once, each with its own steps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_SHORTEST = 1e-5  # step, of a direction's length, below which values differ by rounding alone
MEMORY = 10  # pairs (s, y), as scikit-learn's and SciPy's solver keeps
_ARMIJO = 1e-4  # Nocedal and Wright, Numerical Optimization, Sec. 3.1


class Evaluation(NamedTuple):
    """Evaluation of B problems at a point: value (B,), gradient (B, n), curvature (B, n).

    The curvature is any positive estimate of the Hessian's diagonal; its inverse is where L-BFGS
    starts (H_0 of Algorithm 7.4).
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor


class Minimum(NamedTuple):
    """Where B problems stopped: the points (B, n), values, gradient norms and evaluations (B,)."""

    point: Tensor
    value: Tensor
    gradient_norm: Tensor
    evaluations: Tensor


def minimize(
    evaluate: Callable[[Tensor, Tensor], Evaluation],
    start: Tensor,
    *,
    tolerance: Tensor,
    rounding: float = 1e-10,
    max_evaluations: int = 1000,
) -> Minimum:
    """Minimize B problems by L-BFGS until the norm of each one's gradient is at most its tolerance.

    A problem that can no longer find a lower point because of rounding also stops:
    its gradient norm shows it.

    Every round evaluates each unfinished problem once. A problem whose new point is low enough
    (Armijo) accepts it and computes a new direction; the others shorten their step. Convexity makes
    s'y positive, so sufficient decrease is the only condition on a step.

    Args:
        evaluate: maps problem indices (M,) and a point of each (M, n) to the evaluation there.
        start: (B, n), float64.
        tolerance: of each gradient's norm, (B,).
        rounding: increase of a value, as a share of it, that does not reject a point.
        max_evaluations: of one problem, after which the current point is returned.
    """
    result = Minimum(
        start.clone(),
        start.new_full((len(start),), float("nan")),
        start.new_full((len(start),), float("inf")),
        torch.zeros(len(start), dtype=torch.int64, device=start.device),
    )
    active = torch.arange(len(start), device=start.device)
    x = start.clone()
    here = evaluate(active, x)
    s, y = (x.new_zeros(MEMORY, *x.shape) for _ in range(2))  # newest first
    d = -here.gradient / here.curvature
    t = x.new_ones(len(x))
    for count in range(1, max_evaluations + 1):
        norm = here.gradient.norm(dim=1)
        stuck = t < _SHORTEST
        done = (norm <= tolerance[active]) | stuck | (count == max_evaluations)
        if bool(done.any()):  # the only time a round waits for the device
            at = active[done]
            result.point[at], result.value[at] = x[done], here.value[done]
            result.gradient_norm[at], result.evaluations[at] = norm[done], count
            active, x, d, t = (part[~done] for part in (active, x, d, t))
            here, s, y = Evaluation(*(part[~done] for part in here)), s[:, ~done], y[:, ~done]
            if not len(active):
                break
        slope = (here.gradient * d).sum(dim=1)
        candidate = x + t[:, None] * d
        there = evaluate(active, candidate)
        # Near the minimum rounding hides the decrease; the gradient still gives the direction.
        noise = rounding * here.value.abs()
        good = there.value <= here.value + _ARMIJO * t * slope + noise
        taken = good[:, None]
        s = torch.where(taken, torch.cat([(candidate - x)[None], s[:-1]]), s)
        y = torch.where(taken, torch.cat([(there.gradient - here.gradient)[None], y[:-1]]), y)
        x = torch.where(taken, candidate, x)
        here = Evaluation(
            torch.where(good, there.value, here.value),
            torch.where(taken, there.gradient, here.gradient),
            torch.where(taken, there.curvature, here.curvature),
        )
        d = torch.where(taken, _direction(here, s, y), d)
        t = torch.where(good, 1.0, _shorter(t, slope, here.value, there.value))
    return result


def _direction(here: Evaluation, s: Tensor, y: Tensor) -> Tensor:
    """Return -H g by the two-loop recursion (Algorithm 7.4); pairs not yet filled are zero."""
    sy = (s * y).sum(dim=-1)  # (MEMORY, M)
    rho = torch.where(sy > 0, 1 / sy, 0.0)
    q, alphas = here.gradient, []
    for i in range(len(s)):
        alphas.append(rho[i] * (s[i] * q).sum(dim=1))
        q = q - alphas[i][:, None] * y[i]
    ratio = sy[0] / (y[0].square() / here.curvature).sum(dim=1)
    gamma = torch.where(sy[0] > 0, ratio, 1.0)
    r = gamma[:, None] * q / here.curvature
    for i in reversed(range(len(s))):
        beta = rho[i] * (y[i] * r).sum(dim=1)
        r = r + (alphas[i] - beta)[:, None] * s[i]
    return -r


def _shorter(t: Tensor, slope: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through both values with `slope` has its minimum, 0.1 t to 0.5 t."""
    best = -slope * t.square() / (2 * (after - before - slope * t))
    return torch.where(best.isfinite(), best, 0.0).clamp(0.1 * t, 0.5 * t)
