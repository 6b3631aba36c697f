"""Multinomial logistic regression solved to its optimum, many problems at once.

Each problem minimizes, over a weight W (C, D) and a bias b (C,),

    L(W, b) = mean_i cross_entropy(W x_i + b, y_i) + lambda / 2 ||W||^2,

which is convex and has one minimum. scikit-learn's `LogisticRegression(C=1 / (lambda N))` has the
same one. The optimum depends only on the features: there is no randomness and no learning rate.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lowbit.transfer.probes.lbfgs import Evaluation, minimize

GAP = 1e-4  # of the loss over its minimum, at most
TOLERANCE = 1e-4  # of the gradient's norm, at most
_CHUNK = 2**24  # logits held at once: 128 MiB in double precision
_CHUNK_CPU = 2**17  # so that they fit in a core's cache


class Optimum(NamedTuple):
    """The minimum of B problems.

    Attributes:
        weight: (B, C, D), for the original features.
        bias: (B, C).
        loss: (B,), the objective there.
        gradient_norm: (B,), of (W, b) in the coordinates of `Axes`.
        evaluations: (B,), passes over the images.
    """

    weight: Tensor
    bias: Tensor
    loss: Tensor
    gradient_norm: Tensor
    evaluations: Tensor


@dataclass(frozen=True, eq=False)
class Axes:
    """Features centred, divided by one number, and rotated to their principal axes.

    The number is the root mean square of the centred features, so that a lambda means the same
    for any scale of a backbone's features. Features are not scaled individually. Centring changes
    only b, which is not regularized, and a rotation preserves ||W||; so the minimum is that
    of the scaled features, in coordinates where a diagonal matrix describes the curvature.

    Attributes:
        x: (N, R + 1), along R axes with all the variance, and a constant 1 for b.
        mean: (D,).
        turn: (D, R), from centred features to x.
        variance: (R,), of x but its constant.
    """

    x: Tensor
    mean: Tensor
    turn: Tensor
    variance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Axes":
        """Find the axes of features (N, D)."""
        mean = features.mean(dim=0, dtype=torch.float64)
        centred = features - mean.to(features.dtype)
        covariance = (centred.mT @ centred).double() / len(features)
        mean_square = covariance.trace() / len(mean)
        if not mean_square > 0:
            raise FloatingPointError(
                "all features of a split are equal, or not finite; no classifier was fitted. "
                "Check the checkpoint: the backbone does not distinguish any images."
            )
        variance, axes = torch.linalg.eigh(covariance / mean_square)
        # N centred points span N - 1 axes at most. Any rotation will do, so rounding is harmless.
        kept = slice(-min(len(features) - 1, len(mean)), None)
        turn = axes[:, kept] / mean_square.sqrt()
        x = F.pad(centred @ turn.to(features.dtype), (0, 1), value=1.0)
        return cls(x, mean, turn, variance[kept].clamp_min(0))

    def back(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return from w (B, C, R + 1) weight (B, C, D) and bias (B, C) for the original features."""
        weight, bias = w[..., :-1] @ self.turn.mT, w[..., -1]
        bias = bias - bias.mean(dim=1, keepdim=True)  # a shift of all classes changes nothing
        return weight, bias - weight @ self.mean


def tolerance_of(strengths: Tensor) -> Tensor:
    """Return the gradient norm (B,) at which the loss is within `GAP` of its minimum.

    The penalty makes L lambda-strongly convex in W, so that L - L* <= ||gradient||^2 / (2 lambda).
    """
    return (2 * GAP * strengths.double()).sqrt().clamp_max(TOLERANCE)


def fit_logistic(axes: Axes, labels: Tensor, num_classes: int, strengths: Tensor) -> Optimum:
    """Fit one classifier for each regularization strength to its optimum.

    Args:
        axes: of the training features.
        labels: (N,).
        strengths: lambda of each problem, (B,), all positive.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
        >>> fit = fit_logistic(Axes.of(x), torch.tensor([0, 1, 0, 1]), 2, torch.tensor([0.1]))
        >>> bool(fit.gradient_norm[0] <= 1e-4)
        True
    """
    labels = labels.to(axes.x.device)
    strengths = strengths.to(axes.x.device, torch.float64)
    shape = (len(strengths), num_classes, axes.x.shape[1])  # (B, C, R + 1), b the last column
    tolerance = tolerance_of(strengths)
    point = axes.x.new_zeros(shape, dtype=torch.float64).flatten(1)
    evaluations = 0
    # Single precision is twice as fast and gives the gradient to about 1e-6 of its terms; double
    # continues from there, usually only to confirm convergence.
    for dtype, floor, rounding in ((torch.float32, 1e-6, 1e-8), (torch.float64, 0.0, 1e-10)):
        objective = _Objective(axes, labels, num_classes, strengths, dtype)
        reached = tolerance.clamp_min(floor)
        found = minimize(objective, point, tolerance=reached, rounding=rounding)
        point, evaluations = found.point, evaluations + found.evaluations
    weight, bias = axes.back(point.view(shape))
    return Optimum(weight, bias, found.value, found.gradient_norm, evaluations)


class _Objective:
    """L, its gradient and its curvature at weights (M, C, R + 1) of several problems at once."""

    def __init__(
        self, axes: Axes, y: Tensor, num_classes: int, strengths: Tensor, dtype: torch.dtype
    ) -> None:
        self.x, self.y, self.dtype = axes.x, y, dtype
        self.num_classes, self.strengths = num_classes, strengths
        one = axes.variance.new_ones(1)
        self.second_moment = torch.cat([axes.variance, one])  # (R + 1,)
        self.frequency = torch.bincount(y, minlength=num_classes).double() / len(y)

    def __call__(self, problems: Tensor, point: Tensor) -> Evaluation:
        w = point.view(len(point), self.num_classes, -1)
        loss, gradient, square = self._cross_entropy(w)
        p = gradient[..., -1] + self.frequency  # mean_i p_ic, since the gradient of b_c is p - y
        # d^2 loss / d W_cj^2 = mean_i p_ic (1 - p_ic) x_ij^2, here as a product of two means.
        curvature = (p - square).clamp_min(1e-12)[..., None] * self.second_moment
        decay = self.strengths[problems, None, None].expand(-1, 1, w.shape[-1]).clone()
        decay[..., -1] = 0  # b is free
        value = loss + (decay * w.square()).sum(dim=(1, 2)) / 2
        gradient += decay * w
        return Evaluation(value, gradient.flatten(1), (curvature + decay).flatten(1))

    def _cross_entropy(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means over images of the loss (M,), its gradient, and p^2 (M, C)."""
        M, C, R = w.shape
        flat = w.to(self.dtype).reshape(M * C, R)
        loss, square = w.new_zeros(M), w.new_zeros(M, C)
        gradient = torch.zeros_like(w)
        rows = max(1, (_CHUNK_CPU if self.x.device.type == "cpu" else _CHUNK) // (M * C))
        for x, y in zip(self.x.split(rows), self.y.split(rows), strict=True):
            x, index = x.to(self.dtype), y.expand(M, 1, -1)
            log_p = F.log_softmax((flat @ x.T).view(M, C, -1), dim=1)  # images last: see LinearFit
            loss -= log_p.gather(1, index).sum(dim=(1, 2), dtype=torch.float64)
            p = log_p.exp_()
            square += torch.linalg.vector_norm(p, dim=2).square()
            p.scatter_add_(1, index, p.new_tensor(-1.0).expand_as(index))
            gradient += (p.view(M * C, -1) @ x).view(M, C, R)
        n = len(self.x)
        return loss / n, gradient / n, square / n
