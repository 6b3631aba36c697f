"""Try claims on results: every claim at every scale, with its verdict."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from lowbit.benchmark.claims.claim import Claim, load_claims
from lowbit.benchmark.claims.decide import Estimate, Verdict, decide, estimate
from lowbit.benchmark.claims.differences import Differences, find_differences
from lowbit.benchmark.claims.load_rows import load_rows
from lowbit.benchmark.claims.result_rows import ResultRow
from lowbit.benchmark.claims.scale_words import Scale, describe_scale, name_sides, value_text
from lowbit.benchmark.claims.scales import Sides, find_sides, rows_of
from lowbit.benchmark.claims.seeds_needed import seeds_needed

_FEWEST = 2  # pairs: a spread takes two


@dataclass(frozen=True)
class Trial:
    """A claim at one scale.

    Attributes:
        claim: the claim.
        verdict: supported, contradicted, undecided or not run.
        reason: why it was not run, or what else there is to say; "": nothing.
        scale: None where it was tried at none.
        found: the difference here; None: not measured.
        n: pairs of pretrainings, or of seeds.
        sd: standard deviation over them; None with fewer than two.
        low, high: its interval at `level`, as far as it is known.
        p, level: see `decide`.
        needed: pairs that would decide an undecided claim; None: there are enough, or no number that
            anybody might run would do.
        image_error: standard error of `found` over the test images, as if the sides had each a sample of
            their own, which it does not exceed; None: not known.
    """

    claim: Claim
    verdict: Verdict
    reason: str = ""
    scale: Scale | None = None
    found: float | None = None
    n: int = 0
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    level: float | None = None
    needed: int | None = None
    image_error: float | None = None


@dataclass(frozen=True)
class _Tried:
    """A trial that has an estimate, before all are decided together."""

    trial: Trial
    found: Estimate


def try_claims(folders: Iterable[Path], claims: Sequence[Claim] | None = None) -> list[Trial]:
    """Try claims on the results of folders; return one trial or more a claim, in the claims' order.

    Args:
        folders: see `load_rows`.
        claims: those that come with lowbit-bench by default.

    Raises:
        FileNotFoundError: a folder is missing, or there is no result in it.
    """
    return try_on_rows(_shipped() if claims is None else claims, load_rows(folders))


@cache
def _shipped() -> tuple[Claim, ...]:
    return load_claims()


def try_on_rows(claims: Sequence[Claim], rows: Sequence[ResultRow]) -> list[Trial]:
    """Try claims on rows; all verdicts are corrected together for how many were tried."""
    found = [each for claim in claims for each in _try(claim, rows)]
    tried = [each for each in found if isinstance(each, _Tried)]
    decisions = iter(decide([(each.found, each.trial.claim.goal) for each in tried]))
    trials = []
    for each in found:
        if isinstance(each, Trial):
            trials.append(each)
            continue
        decision = next(decisions)
        claim = each.trial.claim
        undecided = decision.verdict == "undecided"
        needed = seeds_needed(each.found, claim.goal, level=decision.level) if undecided else None
        facts = {name: getattr(decision, name) for name in ("verdict", "p", "level")}
        if each.found.varies:
            facts |= {"low": decision.low, "high": decision.high}
        reason = _remark(claim, each.found, decision.low, decision.high)
        trials.append(replace(each.trial, **facts, needed=needed, reason=reason))
    return trials


def _try(claim: Claim, rows: Sequence[ResultRow]) -> Iterator[Trial | _Tried]:
    sides = list(find_sides(claim, rows))
    compared = [(each, find_differences(claim, each)) for each in sides]
    measured = [(each, found) for each, found in compared if found.by_unit]
    if not measured:
        yield Trial(claim, "not run", _why_not(claim, rows, compared))
    labels = name_sides([each for each, _ in measured])
    for (each, found), (a, b) in zip(measured, labels, strict=True):
        values, seeds = found.pairs()
        trial = Trial(
            claim,
            "not run",
            scale=describe_scale(each, a, b, seeds),
            found=sum(values) / len(values),
            n=len(values),
            image_error=found.image_error,
        )
        if len(values) < _FEWEST:
            kind = "pretraining" if "pretraining" in seeds else "seed"
            reason = f"too few seeds: one {kind} has both sides, and a spread takes {_FEWEST}"
            yield replace(trial, reason=reason)
        else:
            estimated = estimate(values)
            yield _Tried(replace(trial, sd=estimated.sd), estimated)


def _why_not(
    claim: Claim, rows: Sequence[ResultRow], compared: Sequence[tuple[Sides, Differences]]
) -> str:
    """Say why a claim was tried at no scale."""
    if compared:
        return "; ".join(dict.fromkeys(found.missing for _, found in compared))
    sides = {side: getattr(claim, side) for side in "ab" if getattr(claim, side) is not None}
    missing = [
        ", ".join(f"{name} {value_text(value)}" for name, value in facts.items())
        for side, facts in sides.items()
        if not rows_of(claim, side, rows)
    ]
    if len(missing) == len(sides):
        return "no results of either side" if len(sides) == 2 else "no results"
    if missing:
        return f"missing side: no results of {missing[0]}"
    if claim.less is not None and claim.less.where:
        return "the sides have results, but not both places at one scale"
    return "both sides have results, but none at one scale"


def _remark(claim: Claim, found: Estimate, low: float, high: float) -> str:
    """Say what a verdict alone does not."""
    if not found.varies:
        return "the differences do not vary, so nothing can be tested"
    if claim.within:
        return ""
    if high < 0:
        return "the other side has more"
    if low > 0 and high < claim.matters:
        return "more, but by less than would matter"
    return "no difference that would matter" if high < claim.matters else ""
