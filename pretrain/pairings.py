"""Pairings: which (view, precision) is compared with which, one function per row of the table.

    plain     v1,FP - v2,FP
    ssql      v1,q -> v2,FP and back, averaged with plain
    cq-a      v1,q1 - v2,q2
    cq-b      v1,q1 - v2,q1, plus v1,q2 - v2,q2
    cq-c      cq-b, plus v1,q1 - v1,q2, plus v2,q1 - v2,q2
    cq-quant  x,q1 - x,q2 without image augmentation

v1, v2: augmented views; x: the image itself; q, q1, q2: precisions drawn each step. An arrow is a
comparison with a stop-gradient target, a dash the framework's loss of a pair. A target is embedded at
the precision written next to it, by the momentum encoder in a framework that has one; if only the
first view predicts (MoCo v2), "and back" is omitted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lowbit.common.suggest import did_you_mean
from lowbit.pretrain.step import Step
from lowbit.quant import FP

Reduction = Literal["mean", "sum"]
Terms = Iterator[tuple[str, Tensor]]


@dataclass(frozen=True)
class Pairing:
    """A row of the table.

    Attributes:
        name: used in recipes.
        terms: draws views and bits and yields the step's (name, loss) terms.
        policy: the quantization policy it was published with; None: nothing is quantized.
        reduction: how the paper combines the terms.
        observes: whether full-precision passes in each step set the activation ranges.
    """

    name: str
    terms: Callable[[Step], Terms]
    policy: str | None
    reduction: Reduction
    observes: bool = False


PAIRINGS: dict[str, Pairing] = {}
"""Pairings by name. Add one by decorating a function of a `Step` with `@pairing(...)`; its name,
with dashes for underscores, is the recipe's `pairing`."""


def pairing(*, policy: str | None, reduction: Reduction, observes: bool = False) -> Callable:
    """Register the decorated function of a `Step` as a pairing."""

    def register(terms: Callable[[Step], Terms]) -> Callable[[Step], Terms]:
        name = terms.__name__.replace("_", "-")
        PAIRINGS[name] = Pairing(name, terms, policy, reduction, observes)
        return terms

    return register


def get_pairing(name: str) -> Pairing:
    """Return a pairing by name; the error for an unknown one lists close matches."""
    if name not in PAIRINGS:
        raise ValueError(
            f"there is no pairing {name!r}; nothing was trained."
            f"{did_you_mean(name, PAIRINGS)} Known: {', '.join(PAIRINGS)}."
        )
    return PAIRINGS[name]


def total(terms: Tensor, reduction: Reduction) -> Tensor:
    """Reduce terms (..., T) to losses (...)."""
    return terms.mean(-1) if reduction == "mean" else terms.sum(-1)


@pairing(policy=None, reduction="mean")
def plain(step: Step) -> Terms:
    """The framework as published; for SimSiam L = 1/2 [D(p1, z2) + D(p2, z1)]."""
    v1, v2 = step.views()
    z1, z2 = step.embed(v1, FP), step.embed(v2, FP)
    yield "v1,FP - v2,FP", step.both_ways(z1, z2)


@pairing(policy="ssql", reduction="mean", observes=True)
def ssql(step: Step) -> Terms:
    """SSQL: L = 1/2 (L_q + L_aux), post-step quantization (official code, `method.png`).

    L_q = 1/2 [D(p1q, z2) + D(p2q, z1)]: the quantized branch predicts full-precision targets.
    L_aux = 1/2 [D(p1, z2) + D(p2, z1)]: the plain framework. Activation ranges come from the
    full-precision passes of the same step, which come first; q = (b_w, b_a), drawn independently.
    """
    v1, v2 = step.views()
    q = step.draw_independent()
    z1, z2 = step.embed(v1, FP), step.embed(v2, FP)
    with step.observing():
        auxiliary = step.both_ways(z1, z2)
    z1q, z2q = step.embed(v1, q), step.embed(v2, q)
    yield "v1,q -> v2,FP and back", step.compare((z1q, z2), (z2q, z1))
    yield "v1,FP - v2,FP", auxiliary


@pairing(policy="cq", reduction="sum")
def cq_a(step: Step) -> Terms:
    """Contrastive Quant A, Eq. 4: L = NCE(F_q1(v1), F_q2(v2))."""
    v1, v2 = step.views()
    q1, q2 = step.draw_shared(), step.draw_shared()
    yield "v1,q1 - v2,q2", step.both_ways(step.embed(v1, q1), step.embed(v2, q2))


@pairing(policy="cq", reduction="sum")
def cq_b(step: Step) -> Terms:
    """Contrastive Quant B, Eqs. 5-7: L = NCE(f1, f1+) + NCE(f2, f2+).

    f_i = F_qi(v1) and f_i+ = F_qi(v2).
    """
    v1, v2 = step.views()
    q1, q2 = step.draw_shared(), step.draw_shared()
    f1, f1_plus = step.embed(v1, q1), step.embed(v2, q1)
    f2, f2_plus = step.embed(v1, q2), step.embed(v2, q2)
    yield "v1,q1 - v2,q1", step.both_ways(f1, f1_plus)
    yield "v1,q2 - v2,q2", step.both_ways(f2, f2_plus)


@pairing(policy="cq", reduction="sum")
def cq_c(step: Step) -> Terms:
    """Contrastive Quant C, Eq. 8: L = NCE(f1, f1+) + NCE(f2, f2+) + NCE(f1, f2) + NCE(f1+, f2+)."""
    v1, v2 = step.views()
    q1, q2 = step.draw_shared(), step.draw_shared()
    f1, f1_plus = step.embed(v1, q1), step.embed(v2, q1)
    f2, f2_plus = step.embed(v1, q2), step.embed(v2, q2)
    yield "v1,q1 - v2,q1", step.both_ways(f1, f1_plus)
    yield "v1,q2 - v2,q2", step.both_ways(f2, f2_plus)
    yield "v1,q1 - v1,q2", step.both_ways(f1, f2)
    yield "v2,q1 - v2,q2", step.both_ways(f1_plus, f2_plus)


@pairing(policy="cq", reduction="sum")
def cq_quant(step: Step) -> Terms:
    """CQ-Quant, quantization as the only augmentation: L = NCE(F_q1(x), F_q2(x))."""
    x = step.image()
    q1, q2 = step.draw_shared(), step.draw_shared()
    yield "x,q1 - x,q2", step.both_ways(step.embed(x, q1), step.embed(x, q2))
