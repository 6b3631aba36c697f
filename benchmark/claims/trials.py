"""Try claims on results: every claim at every scale, with its verdict."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path

from lowbit.benchmark.claims.claim import Claim, load_claims
from lowbit.benchmark.claims.decide import Estimate, Verdict, decide, estimate
from lowbit.benchmark.claims.result_rows import LABEL, Number, ResultRow, Unit, load_rows
from lowbit.benchmark.claims.scales import Sides, find_sides, rows_of
from lowbit.benchmark.claims.seeds_needed import seeds_needed
from lowbit.common.text import counted

_FEWEST = 2  # pairs: a spread takes two


@dataclass(frozen=True)
class Scale:
    """At which scale a claim was tried; "" where there is nothing to say.

    Attributes:
        network: of the backbone.
        data: the image set that is scored on.
        protocol: how, with all settings that make it a protocol of its own.
        length: how long the scored network trained.
        pretraining: how long its backbone did, and on what.
        a, b: what the sides are called here.
        seeds: how many pairs there are, in words.
    """

    network: str
    data: str
    protocol: str
    length: str
    pretraining: str
    a: str
    b: str
    seeds: str

    def __str__(self) -> str:
        pretrained = f"pretrained {self.pretraining}" if self.pretraining else ""
        protocol = ", ".join(filter(None, (self.protocol, self.length)))
        sides = " against ".join(filter(None, (self.a, self.b)))
        return "; ".join(
            filter(None, (self.network, pretrained, self.data, protocol, sides, self.seeds))
        )


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


def try_claims(
    folders: Iterable[Path], claims: Sequence[Claim] | None = None
) -> list[Trial]:
    """Try claims on the results of folders; return one trial or more a claim, in the claims' order.

    Args:
        folders: see `load_rows`.
        claims: those that come with lowbit-bench by default.

    Raises:
        FileNotFoundError: a folder is missing, or there is no result in it.
    """
    return try_on_rows(load_claims() if claims is None else claims, load_rows(folders))


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
        needed = (
            seeds_needed(each.found, claim.goal, level=decision.level) if undecided else None
        )
        facts = {name: getattr(decision, name) for name in ("verdict", "p", "level")}
        if each.found.varies:
            facts |= {"low": decision.low, "high": decision.high}
        reason = _remark(claim, each.found, decision.low, decision.high)
        trials.append(replace(each.trial, **facts, needed=needed, reason=reason))
    return trials


def _try(claim: Claim, rows: Sequence[ResultRow]) -> Iterator[Trial | _Tried]:
    sides = list(find_sides(claim, rows))
    compared = [(each, _differences(claim, each)) for each in sides]
    measured = [(each, found) for each, found in compared if found.by_unit]
    if not measured:
        yield Trial(claim, "not run", _why_not(claim, rows, compared))
    labels = _labels([each for each, _ in measured])
    for (each, found), (a, b) in zip(measured, labels, strict=True):
        values, seeds = found.pairs()
        trial = Trial(
            claim,
            "not run",
            scale=_scale(claim, each, a, b, seeds),
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


@dataclass(frozen=True)
class _Differences:
    """What a claim compares, by unit, and what it is missing.

    Attributes:
        by_unit: the difference of each pretraining and seed that all rows have.
        pretrainings: whether the sides differ in their pretraining, so that its seeds are the pairs.
        one_sided: whether there is one side only.
        missing: the first numbers that no row of a side has, in words; "": none.
        image_error: see `Trial`.
    """

    by_unit: Mapping[Unit, float]
    pretrainings: bool
    one_sided: bool
    missing: str = ""
    image_error: float | None = None

    def pairs(self) -> tuple[list[float], str]:
        """Return one value a pair, the mean over its scoring seeds, and how many there are, in words.

        Pretrainings are the pairs where there are several or where the sides differ in them; else seeds.
        """
        by_pretraining: dict[int | str | None, list[float]] = {}
        for (pretraining, _), value in self.by_unit.items():
            by_pretraining.setdefault(pretraining, []).append(value)
        if not self.pretrainings and len(by_pretraining) == 1:
            return list(self.by_unit.values()), counted(len(self.by_unit), "seed")
        counts = Counter(map(len, by_pretraining.values()))
        words = counted(len(by_pretraining), "pretraining")
        if max(counts) > 1:
            words += f", {'–'.join(str(n) for n in sorted({min(counts), max(counts)}))} seeds each"
        return [sum(values) / len(values) for values in by_pretraining.values()], words


def _differences(claim: Claim, sides: Sides) -> _Differences:
    less = claim.less.precisions if claim.less and claim.less.precisions else claim.precisions
    places = [(1, sides.a, claim.precisions), (-1, sides.b, claim.precisions)]
    if claim.less is not None:
        places += [(-1, sides.a_less, less), (1, sides.b_less, less)]
    total: dict[Unit, float] | None = None
    errors: list[float | None] = []
    for sign, row, precisions in places:
        if row is None:
            continue
        found = _mean_over(claim, row, precisions)
        if isinstance(found, str):
            return _Differences({}, False, sides.b is None, missing=found)
        units = found if total is None else found.keys() & total.keys()
        total = {
            unit: (total[unit] if total else 0.0) + sign * found[unit].value for unit in units
        }
        known = [found[unit].stderr for unit in units]
        errors.append(None if not known or None in known else sum(known) / len(known))
    between = sides.b is not None and sides.a.origins != sides.b.origins
    missing = "" if total else "no pretraining and seed that both sides have"
    image_error = None if None in errors else hypot(*errors)
    ordered = dict(sorted((total or {}).items(), key=lambda item: str(item[0])))
    return _Differences(ordered, between, sides.b is None, missing, image_error)


def _mean_over(
    claim: Claim, row: ResultRow, precisions: Sequence[str]
) -> dict[Unit, Number] | str:
    """Return the mean over precisions by unit, or what is missing, in words.

    Its standard error over the images is at most the mean of those at the precisions.
    """
    columns = [row.values(claim.metric, precision, claim.after) for precision in precisions]
    units = set.intersection(*(set(column) for column in columns))
    if not units:
        lacking = [p for p, column in zip(precisions, columns, strict=True) if not column]
        after = f" after {claim.after:.2g} of the iterations" if claim.after else ""
        where = f" at {', '.join(lacking)}" if lacking else " at all precisions of one seed"
        return f"{row.name} has no {claim.metric}{where}{after}"
    means = {}
    for unit in units:
        numbers = [column[unit] for column in columns]
        errors = [number.stderr for number in numbers]
        means[unit] = Number(
            sum(number.value for number in numbers) / len(numbers),
            None if None in errors else sum(errors) / len(errors),
        )
    return means


def _why_not(
    claim: Claim, rows: Sequence[ResultRow], compared: Sequence[tuple[Sides, _Differences]]
) -> str:
    """Say why a claim was tried at no scale."""
    if compared:
        return "; ".join(dict.fromkeys(found.missing for _, found in compared))
    sides = {side: getattr(claim, side) for side in "ab" if getattr(claim, side) is not None}
    missing = [
        ", ".join(f"{name} {_text(value)}" for name, value in facts.items())
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


def _scale(claim: Claim, sides: Sides, a: str, b: str, seeds: str) -> Scale:
    facts = sides.a.facts
    lengths = [row.length for row in (sides.a, sides.b) if row is not None]
    pretrainings = [row.pretraining for row in (sides.a, sides.b) if row is not None]
    pretrain = facts["task"] == "pretrain"
    protocols = [str(row.facts["protocol"]) for row in (sides.a, sides.a_less)]
    return Scale(
        network=facts["architecture"],
        data=facts["dataset"],
        protocol="" if pretrain else " less ".join(dict.fromkeys(protocols)),
        length=_both(lengths),
        pretraining="" if pretrain else _both(pretrainings),
        a=a,
        b=b,
        seeds=seeds,
    )


def _both(texts: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(filter(None, texts)))


def _labels(sides: Sequence[Sides]) -> list[tuple[str, str]]:
    """Name the sides of trials; where two rows of a scale would share a name, by what they differ in."""
    rows = {id(row): row for each in sides for row in (each.a, each.b) if row is not None}
    alike: dict[tuple, list[int]] = {}
    for key, row in rows.items():
        scale = (row.facts["dataset"], row.facts[LABEL], row.length, row.pretraining)
        alike.setdefault((_name(row), *scale), []).append(key)
    names = {}
    for (name, *_), keys in alike.items():
        facts = sorted({fact for key in keys for fact in rows[key].facts})
        differing = [
            fact for fact in facts if len({repr(rows[key].facts.get(fact)) for key in keys}) > 1
        ]
        for key in keys:
            said = _facts(rows[key], differing)
            names[key] = f"{name} [{said}]" if said else name
    return [(names[id(each.a)], names[id(each.b)] if each.b else "") for each in sides]


_SHOWN = 2  # facts in a name
_UNSAID = ("split_sha256", "policy_fingerprint")  # which say nothing to people


def _facts(row: ResultRow, names: Sequence[str]) -> str:
    said = [name for name in names if name not in _UNSAID][:_SHOWN]
    return ", ".join(f"{name.rpartition('.')[2].rstrip('_')} {_text(row.facts.get(name))}" for name in said)


def _name(row: ResultRow) -> str:
    """Name a row by how its network was trained, where that is what protocols compare; else its backbone."""
    if row.facts["protocol"] == "adaptive":
        return str(row.facts.get("adaptive.method", row.name))
    return row.name if row.facts["training"] == "-" else f"{row.name}, {row.facts['training']}"


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " or ".join(map(_text, value)) if value and isinstance(value[0], str) else str(list(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
